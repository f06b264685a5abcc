"""VecMemory: one buffer for each environment."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from parallel_rl.utils import State, Trajectory, check_like, counted, episode_ends, older

ROWS = ("obs", "action", "reward", "terminated", "truncated")
"""The fields of every transition; others are extras."""
FLAGS = ("terminated", "truncated")
FIRST_CAPACITY = 128
"""Initial capacity of a buffer, in rows; it doubles as needed."""


class VecMemory:
    """One growing buffer of transitions for each of N environments.

    Rows are time-major arrays `(capacity, N, ...)` by name: row t of environment i is its t-th transition. The next
    observation of row t is in `final_obs[t, i]` if the episode ended there, and otherwise in row t + 1; that of the
    last row is stored separately.
    """

    def __init__(self, num_envs: int, arrays: dict[str, np.ndarray] | None = None) -> None:
        """Make empty buffers.

        Args:
            num_envs: N.
            arrays: `(capacity, N, ...)` by name, `final_obs` among them, to store the rows in. The owner of the arrays
                may write rows into them and then call `extend`. The trajectories of `take` are views, valid until the
                next write. By default the first rows determine shapes and types, and the arrays grow as needed.

        Raises:
            ValueError: `num_envs` is below 1.
        """
        self.num_envs = counted("num_envs", num_envs)
        self._given = arrays or {}
        self.clear()

    def __len__(self) -> int:
        return int(self.lengths.sum())

    def clear(self) -> None:
        """Empty the buffers."""
        self.lengths = np.zeros(self.num_envs, dtype=np.int64)
        self._arrays = dict(self._given)
        self._next_obs = np.empty(0) if not self._given else np.zeros_like(self._given["final_obs"][0])

    def append(
        self,
        env_ids: np.ndarray,
        *,
        obs: Any,
        action: Any,
        reward: Any,
        terminated: Any,
        truncated: Any,
        next_obs: Any = None,
        **extras: Any,
    ) -> None:
        """Append one transition to the buffer of each environment in `env_ids` `(n,)`.

        Args:
            env_ids: `(n,)`, each at most once.
            obs: `(n, ...)`, the observations that the policy acted on.
            action: `(n, ...)`.
            reward: `(n,)`.
            terminated: bool `(n,)`.
            truncated: bool `(n,)`.
            next_obs: `(n, ...)`, the true next observations, before any reset; by default `obs`.
            extras: further rows `(n, ...)` by name.

        Raises:
            ValueError: a row count other than n, other fields than before, or a type that the stored one cannot hold.
        """
        rows = {
            "obs": np.asarray(obs),
            "action": np.asarray(action),
            "reward": np.asarray(reward, dtype=np.float32),
            "terminated": np.asarray(terminated, dtype=bool),
            "truncated": np.asarray(truncated, dtype=bool),
            **{name: np.asarray(value) for name, value in extras.items()},
        }
        following = rows["obs"] if next_obs is None else np.asarray(next_obs)
        for name, value in (rows | {"next_obs": following}).items():
            if value.ndim == 0 or len(value) != len(env_ids):
                raise ValueError(f"{name} has shape {value.shape}, but {len(env_ids)} environments gave a row")
        stored = rows | {"final_obs": following}
        self._make_room(stored, int(self.lengths.max()) + 1)
        if stored.keys() != self._arrays.keys():
            raise ValueError(f"fields changed from {sorted(self._arrays)} to {sorted(stored)}")
        for name, value in stored.items():
            held = self._arrays[name].dtype
            if not np.can_cast(_stored_dtype(value), held) and not _fits(value, held):
                called = "next_obs" if name == "final_obs" else name
                raise ValueError(f"{called} changed from {self._arrays[name].dtype} to {value.dtype}")
        steps = self.lengths[env_ids]
        for name, value in rows.items():
            self._arrays[name][steps, env_ids] = value
        self._next_obs[env_ids] = following
        ended = episode_ends(rows["terminated"], rows["truncated"])
        if ended.any():
            self._arrays["final_obs"][steps[ended], env_ids[ended]] = following[ended]
        self.lengths[env_ids] += 1

    def extend(self, steps: int, next_obs: np.ndarray) -> None:
        """Add rows of every environment that were written into the arrays.

        Args:
            steps: number of rows of each environment; all have equally many.
            next_obs: `(N, ...)`, the observations after the last row, or after the reset that followed it.
        """
        self.lengths += steps
        self._next_obs[:] = next_obs

    def truncate(self, env_ids: np.ndarray) -> None:
        """Truncate the episodes of the last rows of environments `(n,)`, which were restarted."""
        for env_id in env_ids[self.lengths[env_ids] > 0].tolist():
            last = self.lengths[env_id] - 1, env_id
            if not episode_ends(*(self._arrays[name][last] for name in FLAGS)):
                self._arrays["truncated"][last] = True
                self._arrays["final_obs"][last] = self._next_obs[env_id]

    def take(self) -> list[Trajectory]:
        """Return every environment's trajectory, in index order, and empty the buffers.

        The trajectories are views of the arrays. Later rows go into new arrays, unless the constructor got `arrays`.
        """
        trajectories = list(self._trajectories())
        self.clear()
        return trajectories

    def _trajectories(self) -> Iterable[Trajectory]:
        env_ids, arrays = np.flatnonzero(self.lengths), self._arrays
        if not len(env_ids):
            return
        ends = _ended({name: arrays[name][: self.lengths.max()] for name in FLAGS}, self.lengths)
        last = self.lengths[env_ids] - 1
        running = ~ends[last, env_ids]
        arrays["final_obs"][last[running], env_ids[running]] = self._next_obs[env_ids[running]]
        ends[last, env_ids] = True
        columns, steps = np.nonzero(ends.T)  # environment after environment
        final_obs, stops = arrays["final_obs"][steps, columns], np.cumsum(ends.sum(axis=0)).tolist()
        extras = [name for name in arrays if name not in {*ROWS, "final_obs"}]
        for env_id, length in zip(env_ids.tolist(), (last + 1).tolist(), strict=True):
            yield Trajectory(
                env_id=env_id,
                **{name: arrays[name][:length, env_id] for name in ROWS},
                final_obs=final_obs[stops[env_id - 1] if env_id else 0 : stops[env_id]],
                extras={name: arrays[name][:length, env_id] for name in extras},
            )

    def _make_room(self, rows: dict[str, np.ndarray], needed: int) -> None:
        if not self._arrays:
            for name, value in rows.items():
                shape = (FIRST_CAPACITY, self.num_envs, *value.shape[1:])
                self._arrays[name] = np.empty(shape, _stored_dtype(value))
            self._next_obs = np.zeros_like(self._arrays["final_obs"][0])
        while self._arrays and needed > len(self._arrays["reward"]):
            for name, array in self._arrays.items():
                self._arrays[name] = np.concatenate([array, np.empty_like(array)])

    def state(self) -> State:
        """Return the rows, for `utils.save_state`; `final_obs` `(E, ...)` has only the E ends of episodes."""
        longest = int(self.lengths.max())
        arrays = {name: array[:longest].copy() for name, array in self._arrays.items()} if longest else {}
        if longest:
            arrays["final_obs"] = arrays["final_obs"][_ended(arrays, self.lengths)]
        return {"lengths": self.lengths.copy(), "next_obs": self._next_obs.copy(), "arrays": arrays}

    def load_state(self, state: State) -> None:
        """Restore what `state` returned, also in an older version.

        Raises:
            ValueError: it does not fit; nothing is changed then.
        """
        lengths, next_obs, arrays = self._checked(older.buffer(state))
        self.clear()
        self.lengths = lengths
        if not arrays:
            return
        longest, final_obs = int(lengths.max()), arrays.pop("final_obs")
        self._make_room({name: array[0] for name, array in arrays.items()} | {"final_obs": next_obs}, longest)
        for name, array in arrays.items():
            self._arrays[name][:longest] = array
        self._arrays["final_obs"][:longest][_ended(arrays, lengths)] = final_obs
        self._next_obs[:] = next_obs

    def _checked(self, state: State) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Return the checked parts of a `state`."""
        lengths, next_obs, arrays = (state[name] for name in ("lengths", "next_obs", "arrays"))
        check_like(lengths, self.lengths, "lengths of buffers")
        if (lengths < 0).any():
            raise ValueError(f"the saved buffers have {lengths} rows")
        longest = int(lengths.max())
        if not longest:
            return lengths, next_obs, {}
        if not (self._given.keys() or {*ROWS, "final_obs"}) <= arrays.keys():
            raise ValueError(f"the saved buffers hold only {', '.join(arrays) or 'nothing'}")
        for name, array in arrays.items():
            if name == "final_obs":
                continue
            if not isinstance(array, np.ndarray) or array.shape[:2] != (longest, self.num_envs):
                raise ValueError(f"the saved {name} must have {longest} rows for each of {self.num_envs} environments")
            if name in self._given:
                check_like(array, self._given[name][:longest], name)
            elif name in FLAGS:
                check_like(array, np.zeros((longest, self.num_envs), bool), name)
        obs = (arrays["obs"] if not self._given else self._given["final_obs"])[0]
        check_like(next_obs, obs, "next observations")
        ends = np.count_nonzero(_ended(arrays, lengths))
        check_like(arrays["final_obs"], np.empty((ends, *obs.shape[1:]), obs.dtype), "next observations of ends")
        return lengths, next_obs, {**arrays}


def _ended(arrays: dict[str, np.ndarray], lengths: np.ndarray) -> np.ndarray:
    """Return which of T rows end an episode, bool `(T, N)`; of environment i only the first `lengths[i]` count."""
    ended = episode_ends(*(arrays[name] for name in FLAGS))
    return ended & (np.arange(len(ended))[:, None] < lengths)


def joined_buffers(states: Sequence[State]) -> State:
    """Return the state of one `VecMemory` for the environments of several, one after the other."""
    filled = next((state for state in states if state["arrays"]), None)
    if filled is not None:
        states = [state if state["arrays"] else _empty_like(filled, len(state["lengths"])) for state in states]
    lengths, next_obs = (np.concatenate([state[name] for state in states]) for name in ("lengths", "next_obs"))
    if filled is None:
        return {"lengths": lengths, "next_obs": next_obs, "arrays": {}}
    longest = max(int(state["lengths"].max()) for state in states)
    wide = [_widened(state, longest) for state in states]
    arrays = {name: np.concatenate([part[name] for part in wide], axis=1) for name in wide[0]}
    arrays["final_obs"] = arrays["final_obs"][_ended(arrays, lengths)]
    return {"lengths": lengths, "next_obs": next_obs, "arrays": arrays}


def _empty_like(state: State, num_envs: int) -> State:
    """Return the state of a `VecMemory` without rows, with the fields of another one."""
    arrays = {name: np.zeros((0, num_envs, *array.shape[2:]), array.dtype) for name, array in state["arrays"].items()}
    next_obs = state["next_obs"]
    return {
        "lengths": np.zeros(num_envs, np.int64),
        "next_obs": np.zeros((num_envs, *next_obs.shape[1:]), next_obs.dtype),
        "arrays": arrays | {"final_obs": state["arrays"]["final_obs"][:0]},
    }


def part_of_buffer(state: State, own: slice) -> State:
    """Return the state of a `VecMemory` for some of the environments of another one."""
    lengths = state["lengths"][own]
    if not state["arrays"]:
        return state | {"lengths": lengths, "next_obs": state["next_obs"][own]}
    longest = int(lengths.max())
    arrays = {name: array[:longest, own] for name, array in _widened(state, len(state["arrays"]["reward"])).items()}
    arrays["final_obs"] = arrays["final_obs"][_ended(arrays, lengths)]
    return {"lengths": lengths, "next_obs": state["next_obs"][own], "arrays": arrays}


def _widened(state: State, steps: int) -> dict[str, np.ndarray]:
    """Return the arrays of a state with T = `steps` rows, and `final_obs` with an entry for each row `(T, N, ...)`."""
    arrays, ended = dict(state["arrays"]), _ended(state["arrays"], state["lengths"])
    ends, arrays["final_obs"] = (
        arrays["final_obs"],
        np.zeros(ended.shape + arrays["final_obs"].shape[1:], arrays["final_obs"].dtype),
    )
    arrays["final_obs"][ended] = ends
    missing = steps - len(ended)
    return {
        name: np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])
        for name, array in arrays.items()
    }


def _stored_dtype(rows: np.ndarray) -> np.dtype:
    """Return the type to store rows in: floats in single precision, as networks compute."""
    return np.dtype(np.float32) if np.issubdtype(rows.dtype, np.floating) else rows.dtype


def _fits(rows: np.ndarray, dtype: np.dtype) -> bool:
    """Return whether rows of a wider type of the same kind have only values that a type can hold."""
    return rows.dtype.kind == dtype.kind and bool((rows.astype(dtype) == rows).all())
