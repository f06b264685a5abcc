"""Callbacks that stop a run."""

import math
from numbers import Real
from typing import TYPE_CHECKING

from AsyncPPO.callbacks.base import Callback
from AsyncPPO.episodes import Evaluation
from parallel_rl.utils import Metrics
from parallel_rl.utils.counts import checked_positive

if TYPE_CHECKING:
    from AsyncPPO.trainer import AsyncTrainer


class StopAfter(Callback):
    """Stops the run at the first row of metrics after some seconds of training.

    Args:
        seconds: the limit; the training before a resume does not count.

    Raises:
        ValueError: it is not a positive number.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = checked_positive("seconds", seconds)

    def on_start(self, trainer: "AsyncTrainer") -> None:
        """Store the seconds of training before this run or resume."""
        self._before = trainer.seconds

    def on_update(self, trainer: "AsyncTrainer", metrics: Metrics) -> None:
        """Stop if the time is over."""
        if trainer.seconds >= self._before + self.seconds:
            trainer.stop(f"after {self.seconds:g} seconds")


class StopAtReturn(Callback):
    """Stops the run when the mean return of the last 100 episodes, or of an evaluation, reaches a target.

    A run that resumes after it has reached the target is not stopped again.

    Args:
        target: the mean return.

    Raises:
        ValueError: it is not a number, or is NaN.
    """

    def __init__(self, target: float) -> None:
        if not isinstance(target, Real) or math.isnan(target):
            raise ValueError(f"target must be a mean return, not {target!r}")
        self.target: float = target

    def on_start(self, trainer: "AsyncTrainer") -> None:
        """Store whether the target has already been reached."""
        evaluated = any(evaluation.mean >= self.target for evaluation in trainer.evaluations)
        self._reached = evaluated or self._reached_by(trainer)

    def on_update(self, trainer: "AsyncTrainer", metrics: Metrics) -> None:
        """Stop if the last 100 episodes reach the target, once there are 100."""
        if not self._reached and self._reached_by(trainer):
            trainer.stop(f"at a mean return of {trainer.mean_return:.1f}")

    def on_evaluation(self, trainer: "AsyncTrainer", evaluation: Evaluation) -> None:
        """Stop if the evaluation reaches the target."""
        if not self._reached and evaluation.mean >= self.target:
            trainer.stop(f"at an evaluation's mean return of {evaluation.mean:.1f}")

    def _reached_by(self, trainer: "AsyncTrainer") -> bool:
        return len(trainer.recent) == trainer.recent.maxlen and trainer.mean_return >= self.target
