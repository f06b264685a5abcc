"""UpdateSchedule: when an off-policy agent updates."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from OffPolicy.config import OffPolicyConfig
from parallel_rl.utils import whole_number

ROUNDING = 1e-9
"""Due updates are counted in floats; this much rounding error is tolerated, in updates."""


@dataclass
class UpdateSchedule:
    """`utd` updates for each environment step after `learning_starts`, or after a later start.

    They come in rounds that are at least `train_freq` steps apart.
    """

    last_round: int = 0
    """The step of the last round."""
    from_step: int = 0
    """The step of the last restart."""
    from_update: int = 0
    """The number of updates until then."""

    def start(self, config: OffPolicyConfig) -> int:
        """Return the step after which updates are due."""
        return max(config.learning_starts, self.from_step)

    def due(self, config: OffPolicyConfig, steps: int, updates: int) -> int:
        """Return how many updates are due after so many steps and updates; less than 1 if none is."""
        return math.floor(config.utd * (steps - self.start(config)) + ROUNDING) - (updates - self.from_update)

    def steps_wanted(self, config: OffPolicyConfig, steps: int, updates: int) -> int:
        """Return how many steps after so many steps and updates the next round comes."""
        start = self.start(config)
        if steps < start:
            return start - steps
        next_update = start + math.ceil((updates - self.from_update + 1 - ROUNDING) / config.utd)
        return max(next_update, max(self.last_round, start) + config.train_freq) - steps

    def restart(self, step: int, updates: int) -> None:
        """Let `utd` updates be due for each step after `step`, whatever was due before."""
        self.from_step, self.from_update = step, updates

    def state(self) -> dict[str, int]:
        """Return the numbers by their names in checkpoints."""
        return {f"_{name}": number for name, number in vars(self).items()}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Self:
        """Return the schedule whose `state` was saved.

        Raises:
            ValueError: it has no whole numbers.
        """
        return cls(**{each.name: whole_number(state[f"_{each.name}"], each.name) for each in fields(cls)})
