"""Learning while collecting: steps per second of `AsyncPPO(lag=1)` and of `AsyncPPO(lag=0)`.

python -m benchmarks.lag --rounds 3 [--device cuda]
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import tyro
from gymnasium import spaces

from AsyncPPO import AsyncPPO
from benchmarks.throughput.training import in_turns, trainer_speed
from PPO import PPO

STEP_SECONDS = 0.001
NUM_ENVS, HORIZON = 8, 128


class Pixels(gym.Env):
    """Random images of 84x84, four at once, for 100 steps."""

    observation_space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    action_space = spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start an episode."""
        super().reset(seed=seed)
        self._steps, self._obs = 0, self.np_random.integers(0, 256, (4, 84, 84), np.uint8)
        return self._obs, {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Roll the image; action 0 is right."""
        self._steps, self._obs = self._steps + 1, np.roll(self._obs, 1, axis=1)
        return self._obs, float(action == 0), False, self._steps == 100, {}


class Busy(gym.Wrapper):
    """Computes for a millisecond in each step."""

    def step(self, action: Any) -> Any:
        """Step."""
        end = time.thread_time() + STEP_SECONDS
        while time.thread_time() < end:
            pass
        return self.env.step(action)


TASKS: dict[str, tuple[Callable[[], gym.Env], dict[str, Any]]] = {
    "LSTM": (lambda: gym.make("CartPole-v1"), {"core": "lstm", "mini_batch_size": 128, "k_epochs": 10}),
    "images": (Pixels, {"mini_batch_size": 256, "k_epochs": 4}),
}


def turn(task: str, lag: int, updates: int, device: str) -> float:
    """Return the steps per second of a run with this number of updates."""
    make_env, settings = TASKS[task]

    def make() -> gym.Env:
        return Busy(make_env())

    ppo = PPO.for_env(make(), batch_size=NUM_ENVS * HORIZON, device=device, seed=0, **settings)
    steps = updates * NUM_ENVS * HORIZON
    with AsyncPPO(make, ppo, NUM_ENVS, steps, acting="central", lag=lag, seed=0, progress=False) as trainer:
        return trainer_speed(trainer, steps)


def main(rounds: int = 3, updates: int = 8, device: str = "cpu") -> None:
    """Print the steps per second of each turn, and the ratio of the medians with and without a lag.

    Args:
        rounds: the number of turns with each lag.
        updates: the number of updates in a turn.
        device: of the networks.
    """
    rates = in_turns(
        partial(turn, updates=updates, device=device), [(task, lag) for task in TASKS for lag in (0, 1)], rounds
    )
    for (task, lag), each in rates.items():
        print(f"{task}, lag {lag}: {', '.join(f'{rate:,.0f}' for rate in each)} steps/s")
    for task in TASKS:
        print(f"{task}: {np.median(rates[task, 1]) / np.median(rates[task, 0]):.2f} times as fast with lag 1")


if __name__ == "__main__":
    tyro.cli(main)
