"""The exploration noise of gSDE, which stays the same for several steps (Raffin et al. 2021, arXiv:2005.05719)."""

from collections.abc import Callable

import numpy as np

from parallel_rl.utils import State
from PPO.config import ROLLOUT


class Exploration:
    """Noise for each environment. It is sampled at the first step, and again after some steps or after `forget`."""

    def __init__(self, steps: int, size: int) -> None:
        """Start without noise.

        Args:
            steps: after how many steps to resample; with `ROLLOUT` only after `forget`.
            size: A, the number of random numbers for an action.
        """
        self.steps = steps
        self._noise = np.empty((0, size), np.float32)
        self._ages = np.empty(0, np.int64)

    def noise(self, env_ids: np.ndarray, draw: Callable[[int], np.ndarray]) -> np.ndarray:
        """Return the noise `(n, A)` for the next step of some environments.

        Args:
            env_ids: `(n,)`, each at most once.
            draw: a function that samples noise for a number of environments.
        """
        missing = max(env_ids, default=-1) + 1 - len(self._ages)
        if missing > 0:
            self._ages, self._noise = np.pad(self._ages, (0, missing)), np.pad(self._noise, ((0, missing), (0, 0)))
        due = env_ids[self._ages[env_ids] == 0]
        if len(due):
            self._noise[due] = draw(len(due))
        self._ages[env_ids] += 1
        if self.steps != ROLLOUT:
            self._ages[env_ids] %= self.steps
        return self._noise[env_ids]

    def forget(self) -> None:
        """Resample all noise at the next step."""
        self._ages[:] = 0

    def state(self) -> State:
        """Return the noise and its ages in steps, for `utils.save_state`."""
        return {"noise": self._noise.copy(), "ages": self._ages.copy()}

    def restored(self, state: State) -> "Exploration":
        """Return an `Exploration` with the noise `(N, A)` of a `state`.

        Raises:
            ValueError: the state does not fit.
        """
        noise, ages = (np.asarray(state.get(name) if isinstance(state, dict) else None) for name in ("noise", "ages"))
        size = self._noise.shape[1]
        kinds = noise.dtype == np.float32 and ages.dtype == np.int64 and noise.ndim == 2 and ages.ndim == 1
        if not kinds or len(noise) != len(ages) or (len(noise) and noise.shape[1] != size):
            raise ValueError(f"the saved noise is {noise.dtype} {noise.shape}, of ages {ages.dtype} {ages.shape}")
        if not np.isfinite(noise).all() or (ages < 0).any():
            raise ValueError("the saved noise is not finite, or its ages are negative")
        other = Exploration(self.steps, size)
        other._noise, other._ages = noise.reshape(-1, size).copy(), ages.copy()
        return other
