"""VecMemory: one buffer for each environment."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from parallel_rl.utils import State, Trajectory, check_like

FIELDS = {"obs", "action", "reward", "terminated", "truncated", "final_obs"}
"""Of what every environment went through."""
FLAGS = {"terminated", "truncated"}
FIRST_CAPACITY = 128
"""Rows that a buffer has room for at first; it doubles as needed."""


class VecMemory:
    """One growing buffer of transitions for each of N environments.

    The buffers are rows of arrays `(N, capacity, ...)`, so what belongs to one environment lies together in time. A
    step of any subset of the environments is one assignment for each field. Of what followed the rows only that of
    ends is kept: `final_obs[i, k]` followed the k-th end of environment i, or its last row so far.
    """

    def __init__(self, num_envs: int, arrays: dict[str, np.ndarray] | None = None) -> None:
        """Make empty buffers.

        Args:
            num_envs: N.
            arrays: where to keep the rows, `(N, capacity, ...)` by field, `final_obs` among them; someone else may
                write them (`extend`), and what `take` hands over is valid until then. By default shapes and types are
                those of the first rows that come, and there is always room for more.

        Raises:
            ValueError: `num_envs` is below 1.
        """
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, not {num_envs}")
        self.num_envs = num_envs
        self._given = arrays or {}
        self.clear()

    def __len__(self) -> int:
        """Return the number of transitions in all buffers together."""
        return int(self.lengths.sum())

    def clear(self) -> None:
        """Forget everything."""
        self.lengths = np.zeros(self.num_envs, dtype=np.int64)
        self._ends = np.zeros(self.num_envs, dtype=np.int64)
        self._arrays = dict(self._given)

    def state(self) -> State:
        """Return the rows, for `utils.save_state`."""
        longest = int(self.lengths.max())
        arrays = {name: array[:, :longest].copy() for name, array in self._arrays.items()} if longest else {}
        return {"lengths": self.lengths.copy(), "ends": self._ends.copy(), "arrays": arrays}

    def load_state(self, state: State) -> None:
        """Take over what `state` was.

        Raises:
            ValueError: it is not that of such buffers; nothing is changed then.
        """
        lengths, ends, arrays = self._checked(state)
        self.clear()
        longest = int(lengths.max())
        self._make_room({name: array[:, 0] for name, array in arrays.items()}, longest)
        for name, array in arrays.items():
            self._arrays[name][:, :longest] = array
        self.lengths, self._ends = lengths, ends

    def _checked(self, state: State) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Return the parts of a `state`, if it can be one."""
        lengths, ends, arrays = (state[name] for name in ("lengths", "ends", "arrays"))
        check_like(lengths, self.lengths, "lengths of buffers")
        check_like(ends, self._ends, "numbers of ends")
        longest = int(lengths.max())
        for name, array in arrays.items():
            if not isinstance(array, np.ndarray) or array.shape[:2] != (self.num_envs, longest):
                raise ValueError(f"the saved {name} are no {longest} rows for each of {self.num_envs} environments")
            if name in self._given:
                check_like(array, self._given[name][:, :longest], name)
            elif name in FLAGS:
                check_like(array, np.zeros((self.num_envs, longest), bool), name)
        if longest and not (self._given.keys() or FIELDS) <= arrays.keys():
            raise ValueError(f"the saved buffers hold only {', '.join(arrays) or 'nothing'}")
        over = (arrays["terminated"] | arrays["truncated"]) if longest else np.zeros((self.num_envs, 0), bool)
        counted = (over & (np.arange(longest) < lengths[:, None])).sum(axis=1)
        if (lengths < 0).any() or (counted != ends).any():
            raise ValueError("the saved buffers have other ends than they say")
        return lengths, ends, arrays

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
            obs: `(n, ...)`, what the action answered.
            action: `(n, ...)`.
            reward: `(n,)`.
            terminated: bool `(n,)`.
            truncated: bool `(n,)`.
            next_obs: `(n, ...)`, the true next observations, before any reset; where they are not known, `obs`
                stands for them.
            extras: further rows `(n, ...)` by name.

        Raises:
            ValueError: a row count other than n, or other fields or types than before.
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
        for name, value in rows.items():
            if value.dtype.kind != self._arrays[name].dtype.kind:
                raise ValueError(f"{name} changed from {self._arrays[name].dtype} to {value.dtype}")
            self._arrays[name][env_ids, self.lengths[env_ids]] = value
        self._arrays["final_obs"][env_ids, self._ends[env_ids]] = following
        self._ends[env_ids] += rows["terminated"] | rows["truncated"]
        self.lengths[env_ids] += 1

    def cut(self, env_ids: np.ndarray) -> None:
        """Note that environments `(n,)` were started anew: what they lived through before is truncated there."""
        for env_id in env_ids[self.lengths[env_ids] > 0].tolist():
            last = self.lengths[env_id] - 1
            if not self._arrays["terminated"][env_id, last]:
                self._ends[env_id] += not self._arrays["truncated"][env_id, last]
                self._arrays["truncated"][env_id, last] = True

    def extend(self, steps: int, next_obs: np.ndarray) -> None:
        """Count `steps` more rows of every environment, which someone else has written into the arrays.

        Args:
            steps: how many; every environment has as many rows as the others.
            next_obs: `(N, ...)`, what came after the last of them, or after the reset that followed it.
        """
        length = int(self.lengths[0]) + steps
        over = self._arrays["terminated"][:, :length] | self._arrays["truncated"][:, :length]
        self._ends = over.sum(axis=1)
        running = np.flatnonzero(~over[:, -1])
        self._arrays["final_obs"][running, self._ends[running]] = next_obs[running]
        self.lengths += steps

    def take(self) -> list[Trajectory]:
        """Hand over every environment's trajectory, in index order, and be empty.

        The arrays go along, so what was taken stays as it is, whatever is appended later; unless they were given.
        """
        trajectories = list(self._trajectories())
        self.clear()
        return trajectories

    def _trajectories(self) -> Iterable[Trajectory]:
        for env_id in np.flatnonzero(self.lengths).tolist():
            length = self.lengths[env_id]
            fields = {name: array[env_id, :length] for name, array in self._arrays.items()}
            core = {name: fields.pop(name) for name in ("obs", "action", "reward", "terminated", "truncated")}
            stops = not (core["terminated"][-1] or core["truncated"][-1])
            final_obs = fields.pop("final_obs")[: self._ends[env_id] + stops]
            yield Trajectory(env_id=env_id, **core, final_obs=final_obs, extras=fields)

    def _make_room(self, rows: dict[str, np.ndarray], needed: int) -> None:
        if not self._arrays:
            for name, value in rows.items():
                shape = (self.num_envs, FIRST_CAPACITY, *value.shape[1:])
                self._arrays[name] = np.empty(shape, _stored_dtype(value))
        while self._arrays and needed > self._arrays["reward"].shape[1]:
            for name, array in self._arrays.items():
                grown = np.empty((self.num_envs, 2 * array.shape[1], *array.shape[2:]), array.dtype)
                grown[:, : array.shape[1]] = array
                self._arrays[name] = grown


def _stored_dtype(rows: np.ndarray) -> np.dtype:
    """Floats are kept in single precision, which is what a network computes in."""
    return np.dtype(np.float32) if np.issubdtype(rows.dtype, np.floating) else rows.dtype
