"""Environments that one object steps: those of EnvPool, or of a `gymnasium.vector.VectorEnv`."""

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from AsyncPPO.backends.base import EnvError, Infos, StepArrays
from AsyncPPO.backends.block import FINAL_INFO, Block
from AsyncPPO.backends.outcomes import check_finite
from AsyncPPO.backends.vector_env import VectorEnvPool, infos_by_env
from parallel_rl.utils import COMPOSITE, episode_ends

Result = TypeVar("Result")
BOOKKEEPING = {"env_id", "players", "elapsed_step"}
"""Entries that EnvPool puts into the infos of every step; they are dropped."""


class EnvPool:
    """Environments of EnvPool (Weng et al. 2022, arXiv:2206.10558), which steps them in threads."""

    resets_late = False
    name = "EnvPool"

    def __init__(self, env_id: str, num_envs: int) -> None:
        self._id, self._num_envs = env_id, num_envs
        self._pool = self._make([*range(num_envs)])
        self.observation_space, self.action_space = self._pool.observation_space, self._pool.action_space
        self.spec = gym.registry.get(env_id)

    def reset(
        self, env_ids: np.ndarray, seeds: Sequence[int | None], options: dict[str, Any] | None
    ) -> tuple[np.ndarray, Infos]:
        """Reset; with seeds the pool is made again, since EnvPool takes seeds only in its constructor."""
        if options:
            raise ValueError("EnvPool's environments take no options of a reset")
        if seeds[0] is not None:
            self._pool.close()
            self._pool = self._make(seeds)
        obs, info = self._pool.reset(env_ids)
        return obs[np.argsort(info["env_id"])], _by_env(env_ids, info)

    def step(self, env_ids: np.ndarray, actions: np.ndarray) -> tuple[Any, ...]:
        """Step some environments with their rows of the actions `(N, ...)`; return their rows and infos."""
        *rows, info = self._pool.step(actions[env_ids], env_ids)
        order = np.argsort(info["env_id"])
        return *(row[order] for row in rows), _by_env(env_ids, info)

    def begin(self, env_ids: np.ndarray) -> tuple[np.ndarray, Infos]:
        """Reset those that have finished."""
        return self.reset(env_ids, [None] * len(env_ids), None)

    def close(self) -> None:
        """Close all environments."""
        self._pool.close()

    def _make(self, seeds: Sequence[int | None]) -> Any:
        import envpool

        env_seed = [int(seed or 0) % 2**31 for seed in seeds]
        return envpool.make(self._id, env_type="gymnasium", num_envs=self._num_envs, env_seed=env_seed)


def make_pool(env: Any, num_envs: int) -> EnvPool:
    """Make N environments in one object of EnvPool.

    Raises:
        TypeError: not an id or a spec, or a space with several parts.
        ValueError: EnvPool is not installed, or has no such environment.
    """
    if not isinstance(env, str | EnvSpec):
        raise TypeError(f"backend='vector' needs an environment's id or its EnvSpec, not {env!r}")
    env_id = env if isinstance(env, str) else env.id
    if importlib.util.find_spec("envpool") is None:
        raise ValueError("backend='vector' needs EnvPool, which is not installed: pip install envpool")
    import envpool

    if env_id not in envpool.list_all_envs():
        raise ValueError(f"EnvPool has no environment {env_id}: leave backend='vector' out")
    pool = EnvPool(env_id, num_envs)
    for space in (pool.observation_space, pool.action_space):
        if isinstance(space, COMPOSITE):
            pool.close()
            raise TypeError(f"{env_id} cannot be stepped by backend='vector': its space {space} has several parts")
    return pool


class PoolBlock(Block):
    """The environments of a pool."""

    def __init__(self, pool: EnvPool | VectorEnvPool, arrays: StepArrays) -> None:
        super().__init__(0, arrays)
        self._pool = pool
        self.waiting = np.zeros(len(arrays.reward), bool) if pool.resets_late else None

    def reset(self, env_ids: Sequence[int], seeds: Sequence[int | None], options: dict[str, Any] | None) -> Infos:
        """Reset the environments."""
        rows = np.asarray(env_ids)
        options = self.reset_options if options is None else options
        obs, infos = self._called("reset", lambda: self._pool.reset(rows, seeds, options))
        self.arrays.obs[rows] = obs
        if self.waiting is not None:
            self.waiting[rows] = False
        return infos

    def step(self, env_ids: Sequence[int], autoreset: bool) -> Infos:
        """Step some environments; with `autoreset`, begin new episodes of those that finish."""
        rows, arrays = np.asarray(env_ids), self.arrays
        obs, reward, terminated, truncated, infos = self._called("step", lambda: self._pool.step(rows, arrays.action))
        arrays.obs[rows], arrays.reward[rows] = obs, reward
        arrays.terminated[rows], arrays.truncated[rows] = terminated, truncated
        ended = rows[episode_ends(terminated, truncated)]
        if autoreset and self.waiting is not None:
            begun = np.flatnonzero(self.waiting)
            arrays.obs[begun], self.waiting[:] = self._pool.begin(begun)[0], False
            check_finite("observation", begun, arrays.obs[begun])
            self.waiting[ended] = True
        if autoreset and len(ended):
            arrays.final_obs[ended] = arrays.obs[ended]
            final = {index: {FINAL_INFO: infos.pop(index)} for index in ended.tolist() if infos.get(index)}
            begun_infos: Infos = {}
            if self.waiting is None:
                arrays.obs[ended], begun_infos = self._called("reset", lambda: self._pool.begin(ended))
            infos |= {index: begun_infos.get(index, {}) | final.get(index, {}) for index in ended.tolist()}
        return infos

    def close(self) -> None:
        """Close the environments."""
        self._pool.close()

    def _called(self, what: str, call: Callable[[], Result]) -> Result:
        try:
            return call()
        except EnvError:
            raise
        except Exception as error:
            raise EnvError(f"{self._pool.name} failed in {what}: {error!r}") from error


def _by_env(env_ids: np.ndarray, info: dict[str, Any]) -> Infos:
    """Return the infos of EnvPool by environment."""
    order = np.argsort(info["env_id"])
    news = {name: rows[order] for name, rows in info.items() if name not in BOOKKEEPING}
    return dict(zip(env_ids.tolist(), infos_by_env(news, len(env_ids)), strict=True)) if news else {}
