"""MemberTrainer: the `AsyncTrainer` of a member of a population."""

import math
from collections.abc import Sequence
from typing import Any

from AsyncPPO import AsyncTrainer
from AsyncPPO.backends import EnvFactory
from AsyncPPO.callbacks import Callback
from AsyncPPO.episodes import Episode
from AsyncPPO.workers import Pulse
from Population.schedule import Count

ALL_STEPS = 2**62
"""The number of steps of a run that ends by episodes or seconds: it is never reached."""


class Watch(Callback):
    """Counts the episodes of a trainer, and beats its member's pulse."""

    def __init__(self, number: int, pulse: Pulse) -> None:
        self.number, self.pulse = number, pulse
        self.returns: list[float] = []

    def on_rollout(self, trainer: AsyncTrainer, steps: int, episodes: Sequence[Episode]) -> None:
        """Count the episodes, and beat."""
        self.pulse.beat(self.number)
        self.pulse.step = trainer.steps_done
        self.returns += [episode.return_ for episode in episodes]


class MemberTrainer(AsyncTrainer):
    """A trainer whose run ends by steps, episodes or seconds, whichever comes first."""

    warns_of_short_runs = False

    def __init__(self, envs: list[EnvFactory], agent: Any, finish: Count, **options: Any) -> None:
        """Make the trainer.

        Args:
            envs: make the environments.
            agent: the agent to train.
            finish: when the run ends; infinite in the units that do not count.
            options: further arguments of `AsyncTrainer`.
        """
        steps = math.ceil(finish.steps) if finish.steps < math.inf else ALL_STEPS
        super().__init__(envs, agent, steps=steps, **options)
        self.finish = finish

    @property
    def fraction_done(self) -> float:
        """The fraction of the run that is over, in the unit that is nearest to its end."""
        others = max(self.episodes_done / self.finish.episodes, self.seconds / self.finish.seconds)
        return max(super().fraction_done, min(others, 1.0))
