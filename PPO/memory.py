"""Memory: the transitions that PPO learns from, in stretches that never run together.

A memory holds stretches; `batch` joins them; the learner turns the batch into `Rows` of tensors, which it shuffles.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from parallel_rl.utils import Stretch


@dataclass(frozen=True)
class Batch:
    """All stretches of a memory, one after the other: M rows."""

    obs: np.ndarray
    """`(M, ...)`."""
    action: np.ndarray
    """`(M, ...)`."""
    reward: np.ndarray
    """`(M,)`."""
    terminated: np.ndarray
    """bool `(M,)`: nothing comes after these rows."""
    ends: np.ndarray
    """bool `(M,)`: the last rows of an episode or of a stretch."""
    stretch_ends: np.ndarray
    """bool `(M,)`: the last rows of a stretch."""
    final_obs: np.ndarray
    """`(E, ...)`, what truly followed each of the E ends."""
    env_ids: np.ndarray
    """`(S,)`, the environment of each of the S stretches."""
    extras: dict[str, np.ndarray]
    """Further rows `(M, ...)` by name."""

    @property
    def next_obs(self) -> np.ndarray:
        """`(M, ...)`, what truly followed each row, before any reset."""
        following = np.roll(self.obs, -1, axis=0)
        following[self.ends] = self.final_obs
        return following


Array = Any
"""A tensor; or a NumPy array, for the analytic gradient."""


class Rows(NamedTuple):
    """What a minibatch is made of; every field has one row for each transition."""

    obs: Array
    """Normalized."""
    raw_action: Array
    """Before squashing and scaling; of a choice, counted from 0."""
    log_prob: Array
    """Of the action, under the policy that acted."""
    advantage: Array
    target: Array
    """Normalized returns `(..., V)`."""
    value: Array
    """Normalized, before the update `(..., V)`."""
    state: Array | None = None
    """The recurrent state before; None without a core."""
    starts: Array | None = None
    """Whether a sequence starts here; None without a core."""

    @property
    def past(self) -> tuple[Array, Array] | None:
        """What a core needs beside the observations."""
        return None if self.state is None else (self.state, self.starts)

    def take(self, index: Array) -> "Rows":
        """Return the rows `index` `(k,)`, in that order."""
        return Rows(*[field if field is None else field[index] for field in self])

    def part(self, start: int, stop: int) -> "Rows":
        """Return views of the rows `start` to `stop`."""
        return self.take(slice(start, stop))

    def numpy(self) -> "Rows":
        """Return the same rows as arrays: views of tensors on the CPU."""
        return Rows(*[field if field is None else field.numpy() for field in self])


class Memory:
    """A list of stretches, each of one environment."""

    def __init__(self) -> None:
        """Start empty."""
        self.clear()

    def __len__(self) -> int:
        """Return the number of transitions."""
        return self._length

    def clear(self) -> None:
        """Forget everything."""
        self._stretches: list[Stretch] = []
        self._length = 0

    def append(self, stretch: Stretch) -> None:
        """Keep one more stretch, as it is: the arrays are not copied.

        Raises:
            ValueError: it is empty, or its number of final observations is not that of its ends.
        """
        if not len(stretch):
            raise ValueError("an empty stretch has nothing to learn from")
        if len(stretch.final_obs) != stretch.ends.sum():
            raise ValueError(f"{stretch.ends.sum()} ends, but {len(stretch.final_obs)} final observations")
        self._stretches.append(stretch)
        self._length += len(stretch)

    def batch(self) -> Batch:
        """Return all stretches, joined.

        Raises:
            ValueError: there are none, or they do not all have the same extra fields.
        """
        stretches = self._stretches
        if not stretches:
            raise ValueError("the memory is empty")
        names = stretches[0].extras.keys()
        if any(stretch.extras.keys() != names for stretch in stretches):
            raise ValueError(f"some stretches have {sorted(names)} beside the usual fields, and some do not")
        stretch_ends = np.zeros(len(self), dtype=bool)
        stretch_ends[np.cumsum([len(stretch) for stretch in stretches]) - 1] = True
        return Batch(
            obs=np.concatenate([stretch.obs for stretch in stretches]),
            action=np.concatenate([stretch.action for stretch in stretches]),
            reward=np.concatenate([stretch.reward for stretch in stretches]),
            terminated=np.concatenate([stretch.terminated for stretch in stretches]),
            ends=np.concatenate([stretch.ends for stretch in stretches]),
            stretch_ends=stretch_ends,
            final_obs=np.concatenate([stretch.final_obs for stretch in stretches]),
            env_ids=np.array([stretch.env_id for stretch in stretches]),
            extras={name: np.concatenate([stretch.extras[name] for stretch in stretches]) for name in names},
        )
