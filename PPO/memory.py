"""Memory: the trajectories that PPO learns from.

A memory holds trajectories, and `batch` joins them. `update.prepare` converts the batch to `Rows` of tensors, which
`update.optimize` shuffles.
"""

from typing import Any, NamedTuple

from parallel_rl.utils import Batch, Trajectory
from parallel_rl.utils.shapes import in_shapes

Array = Any
"""A tensor; for the analytic gradient a NumPy array."""


class Rows(NamedTuple):
    """The fields of a minibatch, with one row for each transition."""

    obs: Array
    """Normalized observations."""
    raw_action: Array
    """Actions before squashing and scaling; discrete ones count from 0."""
    log_prob: Array
    """Log-probability of the action under the behavior policy."""
    advantage: Array
    target: Array
    """Normalized returns `(..., V)`."""
    value: Array
    """Normalized values before the update `(..., V)`."""
    state: Array | None = None
    """The recurrent state before the row; None without a core."""
    starts: Array | None = None
    """Whether a sequence starts here; None without a core."""

    def __repr__(self) -> str:
        """Return the fields as text, with shapes in place of numbers."""
        return in_shapes(self)

    @property
    def past(self) -> tuple[Array, Array] | None:
        """The inputs of a core, in addition to observations."""
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
    """A list of trajectories, each of one environment."""

    def __init__(self) -> None:
        self.clear()

    def __len__(self) -> int:
        return self._length

    def clear(self) -> None:
        """Remove all trajectories."""
        self._trajectories: list[Trajectory] = []
        self._length = 0

    def append(self, trajectory: Trajectory) -> None:
        """Append a trajectory; the arrays are not copied.

        Raises:
            ValueError: it is empty, or does not have one final observation for each end.
        """
        if not len(trajectory):
            raise ValueError("an empty trajectory has nothing to learn from")
        if len(trajectory.final_obs) != trajectory.ends.sum():
            raise ValueError(
                f"the trajectory has {trajectory.ends.sum()} ends, but final_obs has {len(trajectory.final_obs)} rows: "
                "it needs one for each end"
            )
        self._trajectories.append(trajectory)
        self._length += len(trajectory)

    def batch(self) -> Batch:
        """Return all trajectories, joined.

        Raises:
            ValueError: there are none, or they do not all have the same extra fields.
        """
        if not self._trajectories:
            raise ValueError("the memory is empty")
        return Batch.of(self._trajectories)
