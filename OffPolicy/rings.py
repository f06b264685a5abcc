"""Rings: where a replay buffer stores trajectories.

Each environment has a ring of rows in time order. A row holds an observation and the action taken there. The next
observation of a transition is in the next row, so no observation is stored twice. The final observation of an episode
has its own row, without an action, and so has the newest observation of an unfinished episode until its next step. Rows
without an action are never sampled.
"""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from parallel_rl.utils import (
    State,
    Trajectory,
    check_like,
    episode_ends,
    episode_numbers,
    free_memory,
    row_type,
    whole_number,
)

RUNNING = -1
"""A value of `Rings.final_row`: the episode has no final observation yet."""
ARRAYS = ("obs", "action", "reward", "terminated", "is_transition", "final_row", "step")
OF_TRAJECTORY = ARRAYS[:4]
"""Those with rows of trajectories."""
COUNTS = ("written", "steps")
logger = logging.getLogger(__name__)


class Placed(NamedTuple):
    """A trajectory, and the rows to write it to."""

    rows: np.ndarray
    """The rows of its transitions."""
    columns: dict[str, np.ndarray]
    """What to write there, by the name of the array."""
    finals: np.ndarray
    """The rows of the final observations."""
    final_obs: np.ndarray


class Rings:
    """The newest rows of N environments.

    Row r is of environment `r % N`; the row that follows it in time is `r + N`, wrapped around.
    """

    obs: np.ndarray
    """`(rows, ...)`."""
    action: np.ndarray
    """`(rows, ...)`, taken at `obs`."""
    reward: np.ndarray
    """float32 `(rows,)`, of that action."""
    terminated: np.ndarray
    """bool `(rows,)`, whether that action led to a terminal state."""
    is_transition: np.ndarray
    """bool `(rows,)`: whether an action was taken; False at final observations and in rows not yet written."""
    final_row: np.ndarray
    """int64 `(rows,)`, the row with the final observation of the same episode; `RUNNING` if there is none yet."""
    step: np.ndarray
    """int32 `(rows,)`, the number of earlier steps in the same episode."""

    def __init__(
        self, capacity: int, observation_space: spaces.Space, action_space: spaces.Space, num_envs: int | None = None
    ) -> None:
        """Make an empty buffer; floats are stored in single precision.

        Args:
            capacity: rows in all rings together.
            observation_space: of one environment.
            action_space: of one environment.
            num_envs: N; by default taken from the first trajectories. Until then nothing is allocated.

        Raises:
            ValueError: as `make_rings`.
        """
        types = (_stored(observation_space), _stored(action_space), "f4", "?", "?", "i8", "i4")
        self._types = {name: np.dtype(kind) for name, kind in zip(ARRAYS, types, strict=True)}
        self.capacity, self.num_envs, self.size = capacity, 0, 0
        if num_envs is not None:
            self.make_rings(num_envs)

    def make_rings(self, num_envs: int) -> None:
        """Make empty rings for N environments.

        Raises:
            ValueError: `capacity` is too small for them, or does not fit into the machine's memory.
        """
        if self.capacity < 2 * num_envs:
            raise ValueError(f"buffer_size has no room for {num_envs} environments: it must be at least 2 for each")
        if not self.num_envs:  # later ones replace these
            self._check_memory()
        self.num_envs, self.ring_length, self.size = num_envs, self.capacity // num_envs, 0
        self.rows = self.ring_length * num_envs
        for name, kind in self._types.items():  # zeros take no memory until they are written to
            setattr(self, name, np.zeros((self.rows, *kind.shape), kind.base))
        self._written = np.zeros(num_envs, np.int64)  # rows written to each ring so far, overwritten ones included
        self._steps = np.zeros(num_envs, np.int64)  # of the running episodes

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the parts of `Dict` observations; none for others."""
        return self._types["obs"].names or ()

    def can_hold(self, observation_space: spaces.Space) -> bool:
        """Return whether the observations of a space have the shape and type of the rows."""
        return _stored(observation_space) == self._types["obs"]

    @property
    def nbytes(self) -> int:
        """The bytes that the buffer takes when it is full."""
        return self.capacity * self._bytes_per_row

    @property
    def _bytes_per_row(self) -> int:
        return sum(kind.itemsize for kind in self._types.values())

    def _check_memory(self) -> None:
        free = free_memory()
        if free is not None and self.nbytes > free:
            raise ValueError(
                f"buffer_size={self.capacity:,} takes {self.nbytes / 1e9:.1f} GB ({self._bytes_per_row:,} bytes for "
                f"each transition), but only {free / 1e9:.1f} GB are free: {free // self._bytes_per_row:,} would fit"
            )
        logger.info("the replay buffer takes %.2f GB when it is full", self.nbytes / 1e9)

    def __len__(self) -> int:
        return self.size

    @property
    def filled(self) -> int:
        """The number of rows that have been written; they are the first ones."""
        return filled_length(self._written, self.ring_length) * self.num_envs

    def following(self, rows: np.ndarray, steps: int | np.ndarray = 1) -> np.ndarray:
        """Return the rows that come `steps` steps after rows `(B,)`."""
        return (rows + steps * self.num_envs) % self.rows

    def steps_to_final(self, rows: np.ndarray) -> np.ndarray:
        """Return the number of steps `(B,)` from rows to the final observation of their episode, or the newest one."""
        final = self.final_row[rows]
        running = final == RUNNING
        if running.any():
            env_ids = rows[running] % self.num_envs
            final[running] = self._row(self._written[env_ids], env_ids)
        return (final - rows) // self.num_envs % self.ring_length

    def steps_kept_before(self, rows: np.ndarray) -> np.ndarray:
        """Return how many earlier rows `(B,)` of the same episode are still stored."""
        top = self._written + (self._steps > 0)  # position behind the newest row
        age = (rows // self.num_envs - top[rows % self.num_envs]) % self.ring_length
        return np.minimum(self.step[rows], age)

    def extend(self, trajectories: Sequence[Trajectory]) -> np.ndarray:
        """Append trajectories.

        If the last trajectory of an environment stopped within an episode, the new one continues that episode. But if
        the new one begins with another observation, the environment was reset, and the episode counts as truncated.

        Returns:
            The rows that changed, int64.

        Raises:
            ValueError: a trajectory is of none of the N environments, or one of its arrays has another shape than the
                spaces ask for; then nothing is changed.
        """
        for trajectory in trajectories:
            self._check_shapes(trajectory)
        env_ids = [trajectory.env_id for trajectory in trajectories]
        if not self.num_envs:
            self.make_rings(max(env_ids) + 1)
        if max(env_ids) >= self.num_envs:
            wrong = f"environment {max(env_ids)} is not one of the {self.num_envs} in the replay buffer"
            raise ValueError(f"{wrong}: call take_share(slice(0, N), N) of the agent first, if there are more")
        if len({*env_ids}) < len(env_ids):
            return np.concatenate([self._append([trajectory]) for trajectory in trajectories])
        return self._append(trajectories)

    def _append(self, trajectories: Sequence[Trajectory]) -> np.ndarray:
        """Append trajectories of different environments; return the rows that changed."""
        parts = [self._place(trajectory) for trajectory in trajectories]
        rows, finals = np.concatenate([part.rows for part in parts]), np.concatenate([part.finals for part in parts])
        changed = np.concatenate([rows, finals])
        self.size += len(rows) - int(np.count_nonzero(self.is_transition[changed]))
        self.is_transition[finals], self.is_transition[rows] = False, True
        for name in parts[0].columns:
            getattr(self, name)[rows] = np.concatenate([part.columns[name] for part in parts])
        self.obs[finals] = np.concatenate([part.final_obs for part in parts])
        return changed

    def _check_shapes(self, trajectory: Trajectory) -> None:
        shapes = {name: self._types[name].shape for name in OF_TRAJECTORY} | {"truncated": ()}
        for name, shape in shapes.items():
            _check_shape(trajectory, name, (len(trajectory), *shape))
        _check_shape(trajectory, "final_obs", (int(np.count_nonzero(trajectory.ends)), *shapes["obs"]))

    def _row(self, position: Any, env_id: Any) -> Any:
        """Return the row at a position, counted from the start of an environment's ring without wrapping."""
        return position % self.ring_length * self.num_envs + env_id

    def _place(self, trajectory: Trajectory) -> Placed:
        """Count a trajectory as written; return where to write it, or its newest rows if it is longer than the ring."""
        env_id = trajectory.env_id
        if self._steps[env_id] and not self._continues(trajectory):
            self._close(env_id)
        over = episode_ends(trajectory.terminated, trajectory.truncated)
        episode, indexes = episode_numbers(over), np.arange(len(trajectory))
        positions = self._written[env_id] + indexes + episode  # each episode before has a final observation, too
        final_positions = positions[trajectory.ends] + 1
        begins = np.concatenate([[-self._steps[env_id]], np.flatnonzero(over) + 1])
        final_rows = np.append(self._row(positions[over] + 1, env_id), RUNNING)
        if over.any():
            self._finish(env_id, final_rows[0])
        # an unfinished episode goes on in the row of its newest observation
        self._written[env_id] = final_positions[-1] + over[-1]
        self._steps[env_id] = len(trajectory) - begins[-1]
        oldest = final_positions[-1] + 1 - self.ring_length
        fits, final_fits = positions >= oldest, final_positions >= oldest
        columns = {name: getattr(trajectory, name)[fits] for name in OF_TRAJECTORY}
        columns |= {"step": (indexes - begins[episode])[fits], "final_row": final_rows[episode][fits]}
        finals = self._row(final_positions[final_fits], env_id)
        return Placed(self._row(positions[fits], env_id), columns, finals, trajectory.final_obs[final_fits])

    def _continues(self, trajectory: Trajectory) -> bool:
        """Return whether a trajectory begins with the newest observation of its environment.

        After a reset to exactly that observation this is True as well. That is harmless: the state is the same.
        """
        newest = self.obs[self._row(self._written[trajectory.env_id], trajectory.env_id)]
        return trajectory.obs[:1].astype(self.obs.dtype).tobytes() == newest.tobytes()

    def _close(self, env_id: int) -> None:
        """End the running episode at its newest observation."""
        self._finish(env_id, self._row(self._written[env_id], env_id))
        self._written[env_id] += 1
        self._steps[env_id] = 0

    def _finish(self, env_id: int, final_row: int) -> None:
        """Record the row of the final observation in all rows of the running episode."""
        count = min(int(self._steps[env_id]), self.ring_length - 1)
        self.final_row[self._row(self._written[env_id] - 1 - np.arange(count), env_id)] = final_row

    def clear(self) -> None:
        """Remove all transitions."""
        if self.num_envs:
            self.make_rings(self.num_envs)

    def state(self) -> State:
        """Return everything, for `utils.save_state`; the arrays are views, so nothing is copied."""
        if not self.num_envs:
            return {"num_envs": 0}
        counts = {name: getattr(self, f"_{name}") for name in COUNTS}
        return {"num_envs": self.num_envs, **counts, **{name: getattr(self, name)[: self.filled] for name in ARRAYS}}

    def load_state(self, state: State) -> None:
        """Restore what `state` returned, in a buffer with the same capacity and spaces.

        Raises:
            ValueError: it is of another buffer; then nothing is changed.
        """
        num_envs = whole_number(state["num_envs"], "number of environments in the replay buffer")
        if not num_envs:
            self.clear()
            return
        if (length := self.capacity // num_envs) < 2:
            raise ValueError(f"buffer_size={self.capacity} has no room for the saved {num_envs} environments")
        for name in COUNTS:
            check_like(state[name], np.zeros(num_envs, np.int64), f"{name} of the replay buffer")
        filled = filled_length(state["written"], length) * num_envs
        for name, kind in self._types.items():
            own = np.broadcast_to(np.zeros(kind.shape, kind.base), (filled, *kind.shape))
            check_like(state[name], own, f"{name} of the replay buffer")
        self.make_rings(num_envs)
        for name in ARRAYS:
            getattr(self, name)[:filled] = state[name]
        self._written, self._steps = (state[name].copy() for name in COUNTS)
        self.size = int(np.count_nonzero(self.is_transition))


def filled_length(written: np.ndarray, ring_length: int) -> int:
    """Return how many rows of each ring are in use: those `written` `(N,)`, and one with the newest observation."""
    return min(int(written.max()) + 1, ring_length)


def _check_shape(trajectory: Trajectory, name: str, wanted: tuple[int, ...]) -> None:
    if (found := getattr(trajectory, name).shape) != wanted:
        raise ValueError(f"{name} of the trajectory of environment {trajectory.env_id} is {found}, not {wanted}")


def _stored(space: spaces.Space) -> Any:
    """Return the NumPy subarray type of a row that holds an element of a space."""
    shape, kind = row_type(space)
    return _single_precision(np.dtype((kind, shape)))


def _single_precision(kind: np.dtype) -> np.dtype:
    """Return a type with its floats in single precision, which networks use."""
    base = kind.base
    if base.names is not None:
        base = np.dtype([(name, _single_precision(base[name])) for name in base.names])
    elif base.kind == "f":
        base = np.dtype(np.float32)
    return np.dtype((base, kind.shape))
