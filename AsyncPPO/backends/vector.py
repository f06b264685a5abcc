"""Environments of EnvPool: one object steps many, faster than a loop over them."""

import importlib.util
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from AsyncPPO.backends.base import EnvError, Infos, StepArrays
from AsyncPPO.backends.block import FINAL_INFO, Block
from AsyncPPO.backends.outcomes import copied
from parallel_rl.utils import COMPOSITE, episode_ends

Step = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]
BOOKKEEPING = {"env_id", "players", "elapsed_step"}
"""Entries that EnvPool puts into the infos of every step; they are dropped."""


class EnvPool:
    """Environments of EnvPool (Weng et al. 2022, arXiv:2206.10558), which steps them in threads."""

    def __init__(self, env_id: str, num_envs: int) -> None:
        """Make the environments, whose infos are dicts of rows, as in Gymnasium's vector environments."""
        self._id, self._num_envs = env_id, num_envs
        self._pool = self._make([*range(num_envs)])
        self.observation_space, self.action_space = self._pool.observation_space, self._pool.action_space
        self.spec = gym.registry.get(env_id)

    def reset(
        self, env_ids: np.ndarray, seeds: Sequence[int | None], options: dict[str, Any] | None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Reset; with seeds the pool is made again, since EnvPool takes seeds only in its constructor."""
        if options:
            raise ValueError("EnvPool's environments take no options of a reset")
        if seeds[0] is not None:
            self._pool.close()
            self._pool = self._make(seeds)
        obs, info = self._pool.reset(env_ids)
        return obs[np.argsort(info["env_id"])], _news(info)

    def step(self, env_ids: np.ndarray, actions: np.ndarray) -> Step:
        """Step some environments; return their rows."""
        *rows, info = self._pool.step(actions, env_ids)
        order = np.argsort(info["env_id"])
        obs, reward, terminated, truncated = (row[order] for row in rows)
        return obs, reward, terminated, truncated, _news(info)

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

    def __init__(self, pool: EnvPool, arrays: StepArrays) -> None:
        """Take over the pool."""
        super().__init__(0, arrays)
        self._pool = pool

    def reset(self, env_ids: Sequence[int], seeds: Sequence[int | None], options: dict[str, Any] | None) -> Infos:
        """Reset the environments."""
        rows = np.asarray(env_ids)
        try:
            obs, info = self._pool.reset(rows, seeds, self.reset_options if options is None else options)
        except Exception as error:
            raise EnvError(f"EnvPool failed in reset: {error!r}") from error
        self.arrays.obs[rows] = obs
        return _by_env(rows, info)

    def step(self, env_ids: Sequence[int], autoreset: bool) -> Infos:
        """Step some environments; with `autoreset`, reset those that finish."""
        rows, arrays = np.asarray(env_ids), self.arrays
        try:
            obs, reward, terminated, truncated, info = self._pool.step(rows, arrays.action[rows])
        except Exception as error:
            raise EnvError(f"EnvPool failed in step: {error!r}") from error
        arrays.obs[rows], arrays.reward[rows] = obs, reward
        arrays.terminated[rows], arrays.truncated[rows] = terminated, truncated
        infos, over = _by_env(rows, info), episode_ends(terminated, truncated)
        if autoreset and over.any():
            ended = rows[over]
            arrays.final_obs[ended] = obs[over]
            final = {index: {FINAL_INFO: infos.pop(index)} for index in ended.tolist() if index in infos}
            for index, begin in self.reset(ended.tolist(), [None] * len(ended), None).items():
                final[index] = begin | final.get(index, {})
            infos |= final
        return infos

    def close(self) -> None:
        """Close the environments."""
        self._pool.close()


def _news(info: dict[str, Any]) -> dict[str, Any]:
    order = np.argsort(info["env_id"])
    return {name: rows[order] for name, rows in info.items() if name not in BOOKKEEPING}


def _by_env(env_ids: np.ndarray, info: dict[str, Any]) -> Infos:
    return (
        {index: copied({name: rows[row] for name, rows in info.items()}) for row, index in enumerate(env_ids)}
        if info
        else {}
    )
