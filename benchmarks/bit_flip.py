"""BitFlip: a task that is hopeless without hindsight. `--env-id benchmarks.bit_flip:BitFlip-v0` has 15 bits."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class BitFlip(gym.Env):
    """Flip a bit in each step until all equal the goal's; the reward is -1 until then.

    Source: Andrychowicz et al. 2017 (arXiv:1707.01495), section 3.1.
    """

    def __init__(self, bits: int = 15) -> None:
        """Make the spaces."""
        part = spaces.Box(0, 1, (bits,), np.float32)
        self.observation_space = spaces.Dict(observation=part, achieved_goal=part, desired_goal=part)
        self.action_space, self.bits = spaces.Discrete(bits), bits

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        """Sample a state and a goal."""
        super().reset(seed=seed)
        self.state, self.goal = self.np_random.integers(2, size=(2, self.bits)).astype(np.float32)
        self.count = 0
        return self._obs(), {}

    def _obs(self) -> dict[str, np.ndarray]:
        return {"observation": self.state.copy(), "achieved_goal": self.state.copy(), "desired_goal": self.goal.copy()}

    def step(self, action: int) -> tuple[dict, float, bool, bool, dict]:
        """Flip the bit `action`. An episode has as many steps as there are bits."""
        self.state[action] = 1 - self.state[action]
        self.count += 1
        reached = bool(self.compute_terminated(self.state, self.goal, {}))
        return self._obs(), float(reached) - 1, reached, self.count == self.bits, {"is_success": reached}

    @staticmethod
    def compute_terminated(achieved: np.ndarray, desired: np.ndarray, info: dict) -> np.ndarray:
        """Return whether goals `(..., bits)` are reached."""
        return (achieved == desired).all(axis=-1)

    @staticmethod
    def compute_reward(achieved: np.ndarray, desired: np.ndarray, info: dict) -> np.ndarray:
        """Return 0 where goals `(..., bits)` are reached, and -1 elsewhere."""
        return (achieved == desired).all(axis=-1).astype(np.float32) - 1


gym.register("BitFlip-v0", "benchmarks.bit_flip:BitFlip")
