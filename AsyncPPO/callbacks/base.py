"""Callback: the hooks into a run; ProgressBar."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from AsyncPPO.episodes import Episode, Evaluation
from AsyncPPO.progress import Bar
from parallel_rl.utils import Metrics

if TYPE_CHECKING:
    from AsyncPPO.trainer import AsyncTrainer


class Callback:
    """Hooks into `AsyncPPO.run`; each is given the trainer. What one raises ends the run."""

    def on_start(self, trainer: "AsyncTrainer") -> None:
        """Be told that a run begins, or goes on."""

    def on_rollout(self, trainer: "AsyncTrainer", steps: int, episodes: Sequence[Episode]) -> None:
        """Be told of `steps` environment steps, and of the episodes that ended in them."""

    def on_update(self, trainer: "AsyncTrainer", metrics: Metrics) -> None:
        """Be told what an update gave: a row of `trainer.history`. Here `trainer.stop(why)` ends the run."""

    def on_evaluation(self, trainer: "AsyncTrainer", evaluation: Evaluation) -> None:
        """Be told how well the agent plays."""

    def on_end(self, trainer: "AsyncTrainer") -> None:
        """Be told that the run is over: `trainer.stopped` says why, `trainer.error` is what was raised, if anything."""


class ProgressBar(Callback):
    """Shows the steps, how many there are in a second, and the mean return of the last 100 episodes."""

    def on_start(self, trainer: "AsyncTrainer") -> None:
        """Show the bar."""
        begin, target = trainer.goal
        self._bar = Bar(total=target - begin, initial=trainer.steps_done - begin, unit="step")

    def on_rollout(self, trainer: "AsyncTrainer", steps: int, episodes: Sequence[Episode]) -> None:
        """Move on."""
        bar = self._bar
        bar.update(min(steps, trainer.goal[1] - trainer.goal[0] - bar.n))
        if episodes:
            rate = trainer.success_rate
            success = "" if np.isnan(rate) else f", success {rate:.0%}"
            bar.set_description(f"mean return {trainer.mean_return:.1f}{success}", refresh=False)

    def on_end(self, trainer: "AsyncTrainer") -> None:
        """Leave it as it is."""
        self._bar.close()
