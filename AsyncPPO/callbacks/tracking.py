"""Callbacks that report to experiment trackers, whose libraries are imported when the callback is made."""

import math
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from AsyncPPO.callbacks.base import Callback
from AsyncPPO.episodes import Evaluation
from parallel_rl.utils import Metrics

if TYPE_CHECKING:
    from AsyncPPO.trainer import AsyncTrainer


class WeightsAndBiases(Callback):
    """Reports settings, metrics and evaluations to Weights & Biases; there, a resumed run is a new run."""

    stores = True

    def __init__(self, settings: Mapping[str, Any], **options: Any) -> None:
        """Store the settings of the run, and the options of `wandb.init`.

        Raises:
            ValueError: W&B is not installed.
        """
        self._wandb, self.settings, self.options = _imported("wandb"), settings, options

    def on_start(self, trainer: "AsyncTrainer") -> None:
        """Begin a run."""
        self._run = self._wandb.init(config=dict(self.settings), **self.options)

    def on_update(self, trainer: "AsyncTrainer", metrics: Metrics) -> None:
        """Report a row of metrics."""
        self._run.log(_finite(metrics), step=metrics["steps"])

    def on_evaluation(self, trainer: "AsyncTrainer", evaluation: Evaluation) -> None:
        """Report an evaluation at the current step, since W&B rejects earlier steps, such as that of its weights."""
        self._run.log(_finite(evaluation.figures(), "eval/"), step=trainer.steps_done)

    def on_end(self, trainer: "AsyncTrainer") -> None:
        """End the run."""
        self._run.finish(exit_code=1 if trainer.error else 0)


class MLflow(Callback):
    """Reports settings, metrics and evaluations to MLflow; there, a resumed run is a new run."""

    stores = True

    def __init__(self, settings: Mapping[str, Any], **options: Any) -> None:
        """Store the settings of the run, and the options of `mlflow.start_run`.

        Raises:
            ValueError: MLflow is not installed.
        """
        self._mlflow, self.settings, self.options = _imported("mlflow"), settings, options

    def on_start(self, trainer: "AsyncTrainer") -> None:
        """Begin a run."""
        self._mlflow.start_run(**self.options)
        self._mlflow.log_params(dict(self.settings))

    def on_update(self, trainer: "AsyncTrainer", metrics: Metrics) -> None:
        """Report a row of metrics."""
        self._mlflow.log_metrics(_finite(metrics), step=metrics["steps"])

    def on_evaluation(self, trainer: "AsyncTrainer", evaluation: Evaluation) -> None:
        """Report an evaluation."""
        self._mlflow.log_metrics(_finite(evaluation.figures(), "eval/"), step=evaluation.steps)

    def on_end(self, trainer: "AsyncTrainer") -> None:
        """End the run."""
        self._mlflow.end_run(status="FAILED" if trainer.error else "FINISHED")


def _imported(package: str) -> Any:
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise ValueError(f"{package} is not installed: pip install {package} ({error})") from None


def _finite(metrics: Metrics, prefix: str = "") -> Metrics:
    """Return the metrics that are finite; before the end of the first episode there is no return."""
    return {f"{prefix}{name}": value for name, value in metrics.items() if math.isfinite(value)}
