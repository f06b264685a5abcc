"""VecMemory: one buffer for each environment."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from utils import Stretch

FIRST_CAPACITY = 128
"""Rows that a buffer has room for at first; it doubles as needed."""


class VecMemory:
    """One growing buffer of transitions for each of N environments.

    The buffers are rows of arrays `(N, capacity, ...)`, so what belongs to one environment lies together in time. A
    step of any subset of the environments is one assignment for each field.
    """

    def __init__(self, num_envs: int) -> None:
        """Make empty buffers; shapes and types are those of the first rows that come.

        Raises:
            ValueError: `num_envs` is below 1.
        """
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, not {num_envs}")
        self.num_envs = num_envs
        self._capacity = FIRST_CAPACITY
        self.clear()

    def __len__(self) -> int:
        """Return the number of transitions in all buffers together."""
        return int(self.lengths.sum())

    def clear(self) -> None:
        """Forget everything."""
        self.lengths = np.zeros(self.num_envs, dtype=np.int64)
        self._arrays: dict[str, np.ndarray] = {}
        self._next_obs: np.ndarray | None = None
        self._final_obs: list[list[np.ndarray]] = [[] for _ in range(self.num_envs)]

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
        self._make_room(rows, following, int(self.lengths.max()) + 1)
        if rows.keys() != self._arrays.keys():
            raise ValueError(f"fields changed from {sorted(self._arrays)} to {sorted(rows)}")
        for name, value in rows.items():
            if value.dtype.kind != self._arrays[name].dtype.kind:
                raise ValueError(f"{name} changed from {self._arrays[name].dtype} to {value.dtype}")
        at = self.lengths[env_ids]
        for name, value in rows.items():
            self._arrays[name][env_ids, at] = value
        self._next_obs[env_ids] = following  # type: ignore[index]
        for row in np.flatnonzero(rows["terminated"] | rows["truncated"]).tolist():
            self._final_obs[env_ids[row]].append(following[row].copy())
        self.lengths[env_ids] += 1

    def take(self) -> list[Stretch]:
        """Hand over every environment's stretch, in index order, and be empty.

        The arrays go along: what was taken stays as it is, whatever is appended later.
        """
        stretches = list(self._stretches())
        self.clear()
        return stretches

    def _stretches(self) -> Iterable[Stretch]:
        for env_id in np.flatnonzero(self.lengths).tolist():
            length = self.lengths[env_id]
            fields = {name: array[env_id, :length] for name, array in self._arrays.items()}
            final_obs = self._final_obs[env_id]
            if not (fields["terminated"][-1] or fields["truncated"][-1]):
                final_obs = [*final_obs, self._next_obs[env_id]]  # type: ignore[index]
            core = {name: fields.pop(name) for name in ("obs", "action", "reward", "terminated", "truncated")}
            yield Stretch(env_id=env_id, **core, final_obs=np.stack(final_obs), extras=fields)

    def _make_room(self, rows: dict[str, np.ndarray], following: np.ndarray, needed: int) -> None:
        if not self._arrays:
            for name, value in rows.items():
                self._arrays[name] = np.empty((self.num_envs, self._capacity, *value.shape[1:]), _stored_dtype(value))
            self._next_obs = np.empty((self.num_envs, *following.shape[1:]), _stored_dtype(following))
        if needed > self._capacity:
            self._capacity = 2 * self._capacity
            for name, array in self._arrays.items():
                grown = np.empty((self.num_envs, self._capacity, *array.shape[2:]), array.dtype)
                grown[:, : array.shape[1]] = array
                self._arrays[name] = grown


def _stored_dtype(rows: np.ndarray) -> np.dtype:
    """Floats are kept in single precision, which is what a network computes in."""
    return np.dtype(np.float32) if np.issubdtype(rows.dtype, np.floating) else rows.dtype
