"""Environments with a given cost of a step."""

import time
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium import spaces

SLOW_SECONDS = 0.01


class Busy(gym.Env):
    """Spends `seconds` of its thread's CPU time on each step, so more processes than cores gain nothing."""

    def __init__(self, seconds: float, pixels: bool = False, straggle: Literal["spin", "sleep"] | None = None) -> None:
        """Make it with 8 floats, or an 84x84x4 image, as its observation; episodes last 200 steps.

        With `straggle`, one step in a hundred takes 10 ms more, busy or asleep.
        """
        self.seconds, self.straggle = seconds, straggle
        self.observation_space = (
            spaces.Box(0, 255, (84, 84, 4), np.uint8) if pixels else spaces.Box(-1, 1, (8,), np.float32)
        )
        self.action_space = spaces.Discrete(2)
        self.obs = np.zeros(self.observation_space.shape, self.observation_space.dtype)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start an episode."""
        super().reset(seed=seed)
        self.count = 0
        return self.obs, {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Spend the time of a step."""
        slow = self.straggle is not None and self.np_random.random() < 0.01
        if slow and self.straggle == "sleep":
            time.sleep(SLOW_SECONDS)
        end = time.thread_time() + self.seconds + SLOW_SECONDS * (slow and self.straggle == "spin")
        while time.thread_time() < end:
            pass
        self.count += 1
        return self.obs, 1.0, False, self.count == 200, {}
