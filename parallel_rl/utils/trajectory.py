"""Trajectories: which rows are ends, and the next observation of each row. Only this module computes these.

Rows are `(M, ...)`, in the order of time, or time-major `(T, N, ...)`, a column for each of N environments. A row is an
*end* when its episode ended there (`terminated` or `truncated`), or when it is the last row of its trajectory. The next
observation of an end is not among the rows, so it is stored separately.

    end                        next observation     bootstrap value
    terminated                 stored separately    0
    truncated, or merely last  stored separately    its value
    (no end)                   in the next row      its value
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


def episode_ends(terminated: np.ndarray, truncated: np.ndarray) -> np.ndarray:
    """Return which rows end an episode: bool, of the same shape."""
    return terminated | truncated


def ends_of(terminated: np.ndarray, truncated: np.ndarray) -> np.ndarray:
    """Return the ends of one trajectory `(M,)`, or of N side by side `(T, N)`: bool of that shape."""
    ends = episode_ends(terminated, truncated)
    ends[-1:] = True
    return ends


def episode_numbers(ended: np.ndarray) -> np.ndarray:
    """Return the number of the episode that each row `(M,)` belongs to: how many ended before it."""
    return np.cumsum(ended) - ended


def next_rows(rows: np.ndarray, ends: np.ndarray, final_rows: np.ndarray) -> np.ndarray:
    """Return the successor of each row in time, such as next observations or their values.

    Args:
        rows: `(M, ...)` or `(T, N, ...)`.
        ends: bool `(M,)` or `(T, N)`; the last rows are among them.
        final_rows: `(E, ...)`, the successors of the E ends, in the order of `np.nonzero(ends)`.

    Returns:
        Of the shape of `rows`.
    """
    following = np.roll(rows, -1, axis=0)
    following[ends] = final_rows
    return following


def true_next_obs(obs: np.ndarray, ended: np.ndarray, final_obs: np.ndarray) -> np.ndarray:
    """Return the next observations of a step with autoreset; where an episode ended, `obs` already shows the new one.

    Args:
        obs: `(n, ...)`, after the step and the resets.
        ended: bool `(n,)`.
        final_obs: `(e, ...)`, the last observations of those that ended, before the resets.
    """
    if not len(final_obs):
        return obs
    obs = obs.copy()
    obs[ended] = final_obs
    return obs


def bootstrap_values(next_values: np.ndarray, terminated: np.ndarray) -> np.ndarray:
    """Return the bootstrap values: 0 after a termination, otherwise the value of the next observation."""
    return np.where(terminated, 0.0, next_values)


@dataclass(frozen=True)
class Trajectory:
    """Consecutive transitions of one environment, a row each, without a gap.

    A trajectory may span several episodes and may stop in the middle of one.
    """

    env_id: int
    """The index of the environment."""
    obs: np.ndarray
    """`(L, ...)`, the observations that the policy acted on."""
    action: np.ndarray
    """`(L, ...)`."""
    reward: np.ndarray
    """`(L,)`."""
    terminated: np.ndarray
    """bool `(L,)`: the episode reached a terminal state, whose value is zero."""
    truncated: np.ndarray
    """bool `(L,)`: the episode was stopped from outside, so it bootstraps from the next observation."""
    final_obs: np.ndarray
    """`(E, ...)`, the next observation of each end, in row order, before any reset."""
    extras: dict[str, np.ndarray] = field(default_factory=dict)
    """Further rows `(L, ...)` by name, such as the `log_prob` of the action under the behavior policy."""

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def ends(self) -> np.ndarray:
        """Bool `(L,)`: the last row of each episode in this trajectory."""
        return ends_of(self.terminated, self.truncated)

    @property
    def next_obs(self) -> np.ndarray:
        """`(L, ...)`, the next observation of each row, before any reset."""
        return next_rows(self.obs, self.ends, self.final_obs)


@dataclass(frozen=True)
class Batch:
    """S trajectories, one after the other: M rows."""

    obs: np.ndarray
    """`(M, ...)`."""
    action: np.ndarray
    """`(M, ...)`."""
    reward: np.ndarray
    """`(M,)`."""
    terminated: np.ndarray
    """bool `(M,)`."""
    ends: np.ndarray
    """bool `(M,)`: the `ends` of each trajectory."""
    trajectory_ends: np.ndarray
    """bool `(M,)`: the last rows of the trajectories."""
    final_obs: np.ndarray
    """`(E, ...)`, the next observation of each end, in row order."""
    env_ids: np.ndarray
    """`(S,)`, the environment of each trajectory."""
    extras: dict[str, np.ndarray]
    """Further rows `(M, ...)` by name."""

    @classmethod
    def of(cls, trajectories: Sequence[Trajectory]) -> "Batch":
        """Join trajectories; the arrays are copied.

        Raises:
            ValueError: there are none, or they do not all have the same extra fields.
        """
        if not trajectories:
            raise ValueError("there are no trajectories to join")
        names = trajectories[0].extras.keys()
        if any(trajectory.extras.keys() != names for trajectory in trajectories):
            raise ValueError(f"some trajectories have {sorted(names)} beside the usual fields, and some do not")

        def joined(name: str) -> np.ndarray:
            return np.concatenate([getattr(trajectory, name) for trajectory in trajectories])

        trajectory_ends = np.zeros(sum(map(len, trajectories)), dtype=bool)
        trajectory_ends[np.cumsum([len(trajectory) for trajectory in trajectories]) - 1] = True
        return cls(
            **{name: joined(name) for name in ("obs", "action", "reward", "terminated", "ends", "final_obs")},
            trajectory_ends=trajectory_ends,
            env_ids=np.array([trajectory.env_id for trajectory in trajectories]),
            extras={name: np.concatenate([trajectory.extras[name] for trajectory in trajectories]) for name in names},
        )

    @property
    def next_obs(self) -> np.ndarray:
        """`(M, ...)`, the next observation of each row, before any reset."""
        return next_rows(self.obs, self.ends, self.final_obs)
