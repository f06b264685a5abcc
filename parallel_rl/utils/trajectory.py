"""Trajectory: the unit in which experience travels from the collector to an agent."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Trajectory:
    """Consecutive transitions of one environment, a row each, without a gap.

    A trajectory may span several episodes and may stop in the middle of one. A row is an *end* when its episode ended there
    (`terminated` or `truncated`) or when it is the last row.
    """

    env_id: int
    """Which environment."""
    obs: np.ndarray
    """`(L, ...)`, what the policy saw."""
    action: np.ndarray
    """`(L, ...)`."""
    reward: np.ndarray
    """`(L,)`."""
    terminated: np.ndarray
    """bool `(L,)`: the episode reached a terminal state, whose value is zero."""
    truncated: np.ndarray
    """bool `(L,)`: the episode was stopped from outside; the value of the next observation still counts."""
    final_obs: np.ndarray
    """`(E, ...)`, the next observation of each end, in row order, before any reset."""
    extras: dict[str, np.ndarray] = field(default_factory=dict)
    """Further rows `(L, ...)` by name, such as the `log_prob` of the action under the behavior policy."""

    def __len__(self) -> int:
        """Return the number of transitions L."""
        return len(self.reward)

    @property
    def ends(self) -> np.ndarray:
        """Bool `(L,)`: the rows after which this trajectory has no further row of the same episode."""
        ends = self.terminated | self.truncated
        ends[-1] = True
        return ends
