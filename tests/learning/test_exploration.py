"""DeepSea: what only deep exploration finds (Osband et al. 2020, arXiv:1908.03568)."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from AsyncPPO import AsyncPPO
from parallel_rl.utils import Features
from PPO import PPO, RND, Companion, RewardScale, Transitions

LENGTH = 20
STEPS = 400_000
SEEDS = range(5)


class DeepSea(gym.Env):
    """A diver sinks by a row in every step, and goes to the right or to the left; which action is which, the cell says.

    A treasure of 1 lies in the last corner on the right; every step to the right costs 0.01 / length. Chance gets there
    in one of a million episodes.
    """

    def __init__(self, length: int = LENGTH) -> None:
        self.observation_space = spaces.Discrete(length * length)
        self.action_space = spaces.Discrete(2)
        self.length = length
        self.right = np.random.default_rng(0).integers(0, 2, (length, length))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict]:
        super().reset(seed=seed)
        self.row = self.column = 0
        return 0, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict]:
        goes_right = action == self.right[self.row, self.column]
        found = goes_right and self.column == self.length - 1
        self.row += 1
        self.column = min(self.column + 1, self.length - 1) if goes_right else max(self.column - 1, 0)
        over = self.row == self.length
        reward = float(found) - (0.01 / self.length if goes_right else 0.0)
        return (0 if over else self.row * self.length + self.column), reward, over, False, {}


class Counts(Companion):
    """One over the root of how often the next cell was visited."""

    name, beta = "count", 1.0

    def build(self, features: Features, action_space: spaces.Space, generator: torch.Generator) -> None:
        self.scale = RewardScale(self.gamma)
        self.register_buffer("counts", torch.zeros(features.columns, dtype=torch.float64))

    def reward(self, transitions: Transitions) -> np.ndarray:
        self.counts += transitions.next_obs.double().sum(dim=0)
        return self.scale.scale(
            (transitions.next_obs.double() @ self.counts.clamp(min=1).rsqrt()).numpy(), transitions.batch
        )


def finds_the_treasure(seed: int, **kwargs: Any) -> bool:
    """Train, and say whether the last 100 episodes mostly end at the treasure."""
    settings = {"batch_size": 1024, "mini_batch_size": 256, "k_epochs": 4, "gamma": 0.99, "entropy_coef": 0.01}
    ppo = PPO.for_env(DeepSea(), seed=seed, **(settings | kwargs))
    with AsyncPPO(DeepSea, ppo, 32, STEPS, backend="inline", seed=seed, progress=False) as trainer:
        trainer.run()
        return trainer.mean_return > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("companion", [RND(beta=1.0, update_proportion=1.0), Counts()], ids=["RND", "counts"])
def test_a_companion_finds_the_treasure(companion: Companion, seed: int) -> None:
    assert finds_the_treasure(seed, companions=[companion])


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_ppo_alone_does_not_find_the_treasure(seed: int) -> None:
    assert not finds_the_treasure(seed)
