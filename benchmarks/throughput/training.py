"""Steps per second of PPO from end to end, the same algorithm and networks, beside the peers that are installed."""

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np

from AsyncPPO import AsyncPPO
from PPO import PPO


@dataclass(frozen=True)
class Shape:
    """How a batch is made and used; separate 64x64 tanh networks throughout."""

    num_envs: int
    horizon: int
    mini_batch_size: int
    k_epochs: int

    @property
    def batch_size(self) -> int:
        """Transitions in a batch."""
        return self.num_envs * self.horizon


SHAPES = {"wide": Shape(32, 64, 512, 4), "small": Shape(8, 256, 64, 10)}
"""Wide: 32 environments x 64 steps. Small: Stable-Baselines3's default."""


def timed(run: Callable[[int], Any], steps: int) -> float:
    """Return steps per second of a second run, after a first has warmed everything up."""
    run(steps // 4)
    start = time.perf_counter()
    run(steps)
    return steps / (time.perf_counter() - start)


def ours(env_id: str, shape: Shape, steps: int, learner: Any = "auto", backend: Any = "auto") -> float:
    """Return the speed of `AsyncPPO`."""
    with gym.make(env_id) as env:
        ppo = PPO.for_env(
            env,
            batch_size=shape.batch_size,
            mini_batch_size=shape.mini_batch_size,
            k_epochs=shape.k_epochs,
            lr=3e-4,
            learner=learner,
            seed=0,
        )
    with AsyncPPO(env_id, ppo, shape.num_envs, steps, backend=backend, seed=0, progress=False) as trainer:

        def run(count: int) -> None:
            trainer.steps = count
            trainer.run()

        return timed(run, steps)


def stable_baselines3(env_id: str, shape: Shape, steps: int) -> float:
    """Return the speed of Stable-Baselines3 with its DummyVecEnv, its fastest for cheap environments."""
    import stable_baselines3
    from stable_baselines3.common.vec_env import DummyVecEnv
    from torch import nn

    model = stable_baselines3.PPO(
        "MlpPolicy",
        DummyVecEnv([partial(gym.make, env_id)] * shape.num_envs),
        n_steps=shape.horizon,
        batch_size=shape.mini_batch_size,
        n_epochs=shape.k_epochs,
        policy_kwargs={"net_arch": {"pi": [64, 64], "vf": [64, 64]}, "activation_fn": nn.Tanh},
        device="cpu",
        seed=0,
    )
    return timed(lambda count: model.learn(count, reset_num_timesteps=False), steps)


CONTESTANTS: dict[str, Callable[[str, Shape, int], float]] = {
    "ours": ours,
    "ours, one process": partial(ours, backend="inline"),
    "ours, learner=torch": partial(ours, learner="torch"),
}
if importlib.util.find_spec("stable_baselines3"):
    CONTESTANTS["Stable-Baselines3"] = stable_baselines3


def measure(env_id: str, shape: Shape, steps: int, rounds: int) -> dict[str, float]:
    """Return the median speed of each contestant, taken in turns."""
    turns = [[run(env_id, shape, steps) for run in CONTESTANTS.values()] for _ in range(rounds)]
    return dict(zip(CONTESTANTS, np.median(turns, axis=0).tolist(), strict=True))
