"""Reasons to stop a run."""

from typing import TYPE_CHECKING

from AsyncPPO.callbacks.base import Callback
from AsyncPPO.episodes import Evaluation
from parallel_rl.utils import Metrics

if TYPE_CHECKING:
    from AsyncPPO.trainer import AsyncTrainer


class StopAfter(Callback):
    """Ends the run after some seconds of training, at the next update."""

    def __init__(self, seconds: float) -> None:
        """Keep the limit; what a run that goes on had trained before does not count."""
        self.seconds = seconds

    def on_start(self, trainer: "AsyncTrainer") -> None:
        """Look at the clock."""
        self._before = trainer.seconds

    def on_update(self, trainer: "AsyncTrainer", metrics: Metrics) -> None:
        """Look again."""
        if trainer.seconds >= self._before + self.seconds:
            trainer.stop(f"after {self.seconds:g} seconds")


class StopAtReturn(Callback):
    """Ends the run when the mean return of the last 100 episodes reaches a target, or that of an evaluation does.

    A run that goes on after it has reached the target goes on to its end.
    """

    def __init__(self, target: float) -> None:
        """Keep the target."""
        self.target = target

    def on_start(self, trainer: "AsyncTrainer") -> None:
        """See whether it was reached before."""
        evaluated = any(evaluation.mean >= self.target for evaluation in trainer.evaluations)
        self._reached = evaluated or self._reached_by(trainer)

    def on_update(self, trainer: "AsyncTrainer", metrics: Metrics) -> None:
        """Look at the last 100 episodes, once there are so many."""
        if not self._reached and self._reached_by(trainer):
            trainer.stop(f"at a mean return of {trainer.mean_return:.1f}")

    def on_evaluation(self, trainer: "AsyncTrainer", evaluation: Evaluation) -> None:
        """Look at the evaluation."""
        if not self._reached and evaluation.mean >= self.target:
            trainer.stop(f"at an evaluation's mean return of {evaluation.mean:.1f}")

    def _reached_by(self, trainer: "AsyncTrainer") -> bool:
        return len(trainer.recent) == trainer.recent.maxlen and trainer.mean_return >= self.target
