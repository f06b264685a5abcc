"""A stand-in for EnvPool if it is not installed: the same functions, with environments of Gymnasium."""

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

INSTALLED = importlib.util.find_spec("envpool") is not None


class FakePool:
    """What `envpool.make` returns. As there, rows are returned in any order, with their `env_id` in the infos."""

    def __init__(self, env_id: str, num_envs: int, env_seed: list[int]) -> None:
        self._envs = [gym.make(env_id) for _ in range(num_envs)]
        self._seeds: list[int | None] = [*env_seed]
        self.observation_space, self.action_space = self._envs[0].observation_space, self._envs[0].action_space

    def reset(self, env_ids: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        order = env_ids[::-1]
        obs = []
        for index in order:
            obs.append(self._envs[index].reset(seed=self._seeds[index])[0])
            self._seeds[index] = None
        return np.stack(obs), self._infos(order)

    def step(self, actions: np.ndarray, env_ids: np.ndarray) -> tuple[Any, ...]:
        order = np.argsort(env_ids)[::-1]
        rows = [self._envs[env_ids[row]].step(actions[row])[:4] for row in order]
        return *(np.stack(column) for column in zip(*rows, strict=True)), self._infos(env_ids[order])

    def close(self) -> None:
        for env in self._envs:
            env.close()

    @staticmethod
    def _infos(env_ids: np.ndarray) -> dict[str, np.ndarray]:
        return {"env_id": env_ids, "elapsed_step": np.zeros(len(env_ids)), "lives": env_ids + 10}


def use_fake_envpool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `import envpool` import this module if EnvPool is not installed."""
    if INSTALLED:
        return
    module: Any = ModuleType("envpool")
    module.__spec__ = ModuleSpec("envpool", None)
    module.list_all_envs = lambda: ["CartPole-v1", "Pendulum-v1", "Blackjack-v1"]
    module.make = lambda env_id, env_type, num_envs, env_seed: FakePool(env_id, num_envs, env_seed)
    monkeypatch.setitem(sys.modules, "envpool", module)
