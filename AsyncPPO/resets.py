"""Masks and indexes of environments, and the options and seeds of resets."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from parallel_rl.utils import env_seeds, spawn_seeds

RESET_MASK = "reset_mask"
"""The option of a reset that selects environments."""


def check_mask(name: str, mask: Any, num_envs: int) -> np.ndarray:
    """Return a mask of environments as an array.

    Raises:
        ValueError: it is not bool `(N,)`; the message has its `name`.
    """
    mask = np.asarray(mask)
    if mask.shape != (num_envs,) or mask.dtype != np.bool_:
        raise ValueError(f"{name} must be a bool array of shape ({num_envs},), not {mask.dtype} of shape {mask.shape}")
    return mask


def check_env_ids(env_ids: ArrayLike, free: np.ndarray) -> np.ndarray:
    """Return indexes of environments as an array.

    Args:
        env_ids: `(n,)`.
        free: bool `(N,)`: the environments that are allowed.

    Raises:
        ValueError: one is not allowed, or appears twice.
    """
    env_ids = np.asarray(env_ids)
    valid = env_ids.ndim == 1 and env_ids.dtype.kind in "iu" and ((env_ids >= 0) & (env_ids < len(free))).all()
    if not valid or not free[env_ids].all():
        raise ValueError(f"env_ids must be indexes of environments that run and wait for an action, not {env_ids}")
    if len(set(env_ids.tolist())) != len(env_ids):
        raise ValueError(f"env_ids names an environment twice: {env_ids}")
    return env_ids


def take_reset_mask(options: dict[str, Any], num_envs: int) -> tuple[np.ndarray, dict[str, Any] | None]:
    """Split the options of a reset into `reset_mask` and the others.

    Returns:
        The environments `(n,)` where the mask is True, and the other options.

    Raises:
        ValueError: the mask is wrong, or False everywhere.
    """
    mask = check_mask(RESET_MASK, options[RESET_MASK], num_envs)
    if not mask.any():
        raise ValueError(f"{RESET_MASK} is False everywhere: there is nothing to reset")
    others = {name: value for name, value in options.items() if name != RESET_MASK}
    return np.flatnonzero(mask), others or None


def checked_options(options: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a copy of the options of resets.

    Raises:
        TypeError: they are not a dict with strings as keys.
    """
    if options is not None and not (isinstance(options, dict) and all(isinstance(name, str) for name in options)):
        raise TypeError(f"reset_options must be a dict with strings as keys, not {options!r}")
    return copy.deepcopy(options)


class EnvSeeds:
    """The seeds of the next resets of N environments. Each is used once; later resets continue the random stream."""

    def __init__(self, seed: int | Sequence[int] | None, num_envs: int, own: slice = slice(None)) -> None:
        """Derive N seeds from one (None: from fresh entropy), or take a list of N.

        Args:
            seed: the seed, or the list.
            num_envs: N.
            own: the environments of this rank. Their seeds are the ones that they would have in a run on one rank.
        """
        seeds = env_seeds(seed, num_envs)
        self._first: int | None = seeds[0]
        self._next: list[int | None] = [*seeds[own]]
        self._listed = None if isinstance(seed, int | np.integer | None) else [*self._next]
        self._total, self._own = num_envs, own

    @property
    def first(self) -> int | None:
        """The seed of the first environment's first reset."""
        return self._first

    def restart(self, seed: int | Sequence[int | None]) -> list[int | None]:
        """Return N seeds for a reset with the argument `seed`. Later results of `state` derive from the first one.

        Raises:
            ValueError: the number of seeds is wrong.
        """
        count, seeds = len(self._next), list[int | None]()
        if isinstance(seed, int | np.integer):
            seeds = [*spawn_seeds(seed, count)]
        else:
            numbers = env_seeds([0 if env_seed is None else env_seed for env_seed in seed], count)
            seeds = [None if env_seed is None else number for env_seed, number in zip(seed, numbers, strict=True)]
        self._first = seeds[0]
        return seeds

    def next(self) -> list[int | None]:
        """Return N seeds for a reset; None where a stream continues."""
        return self._next

    def use(self, env_ids: np.ndarray) -> None:
        """Mark the seeds of environments as used."""
        for index in env_ids.tolist():
            self._next[index] = None

    def state(self) -> list[int | None]:
        """Return N seeds for environments that a checkpoint cannot restore."""
        return [*spawn_seeds(self._first, self._total)[self._own]]

    def load_state(self, state: list[int | None], *, used: bool) -> None:
        """Restore what `state` returned; with `used`, the environments were restored and need no seeds.

        Seeds that were given as a list are used again, because the environment may accept no others.
        """
        self._first, self._next = state[0], [None] * len(self._next) if used else [*(self._listed or state)]

    def begin_after(self, state: list[int | None]) -> None:
        """Derive N seeds from the `state` of any number of environments; use seeds given as a list again."""
        seeds: list[int | None] = [*spawn_seeds(state[0], self._total)]
        self._first, self._next = seeds[0], [*(self._listed or seeds[self._own])]
