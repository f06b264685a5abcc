"""The unit in which experience travels from the collector to the learner."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Stretch:
    """What one environment lived through, row by row, without a gap.

    It may span several episodes and may stop in the middle of one. A row is an *end* when its episode ended there
    (`terminated` or `truncated`) or when it is the last row.
    """

    env_id: int
    """Which environment."""
    obs: np.ndarray
    """`(L, ...)`, what each action answered."""
    action: np.ndarray
    """`(L, ...)`."""
    reward: np.ndarray
    """`(L,)`."""
    terminated: np.ndarray
    """bool `(L,)`: the task's own end; nothing comes after it."""
    truncated: np.ndarray
    """bool `(L,)`: cut from outside; the value of what would have come still counts."""
    final_obs: np.ndarray
    """`(E, ...)`, the observation that truly followed each end, in row order, before any reset."""
    extras: dict[str, np.ndarray] = field(default_factory=dict)
    """Further rows `(L, ...)` by name, such as the `log_prob` of the action under the policy that drew it."""

    def __len__(self) -> int:
        """Return the number of transitions L."""
        return len(self.reward)

    @property
    def ends(self) -> np.ndarray:
        """The rows `(L,)`, as a bool mask, that nothing of the same episode follows in this stretch."""
        ends = self.terminated | self.truncated
        ends[-1] = True
        return ends
