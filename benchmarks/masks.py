"""Training steps per second with action masks, ours and of MaskablePPO of sb3-contrib, which must be installed.

python -m benchmarks.masks --rounds 3
python -m benchmarks.masks --task corridors
"""

from collections.abc import Callable
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import tyro
from gymnasium import spaces

from AsyncPPO import ActionMasks, AsyncPPO
from benchmarks.throughput.training import SHAPES, compare, model_speed, trainer_speed
from PPO import PPO

SHAPE = SHAPES["wide"]


class Doors(gym.Env):
    """16 doors, of which about half are open at every step, for 100 steps."""

    observation_space = spaces.Box(0.0, 1.0, (16,), np.float32)
    action_space = spaces.Discrete(16)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start an episode."""
        super().reset(seed=seed)
        self._steps = 0
        return self._next(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Open a door; the reward is the number on it."""
        reward, self._steps = self._value(action), self._steps + 1
        return self._next(), reward, False, self._steps == 100, {}

    def action_masks(self) -> np.ndarray:
        """Return which doors are open."""
        return self._open

    def _next(self) -> np.ndarray:
        self._obs = self.np_random.random(16, np.float32)
        self._open = self._obs > self._obs.mean()
        return self._obs

    def _value(self, action: Any) -> float:
        return float(self._obs[action])


class Corridors(Doors):
    """Four corridors with four doors each; an action opens one in each, and at least one is open in each."""

    action_space = spaces.MultiDiscrete([4] * 4)  # type: ignore[assignment]

    def _next(self) -> np.ndarray:
        obs = super()._next()
        corridors = obs.reshape(4, 4)
        self._open = (corridors >= corridors.mean(axis=1, keepdims=True)).ravel()
        return obs

    def _value(self, action: Any) -> float:
        return float(self._obs.reshape(4, 4)[np.arange(4), action].sum())


TASKS = {"doors": Doors, "corridors": Corridors}


def ours(task: str, steps: int) -> float:
    """Return the speed of `AsyncPPO`."""
    make = TASKS[task]
    ppo = PPO.for_env(
        ActionMasks(make()),
        batch_size=SHAPE.batch_size,
        mini_batch_size=SHAPE.mini_batch_size,
        k_epochs=SHAPE.k_epochs,
        seed=0,
    )
    with AsyncPPO(lambda: ActionMasks(make()), ppo, SHAPE.num_envs, steps, seed=0, progress=False) as trainer:
        return trainer_speed(trainer, steps)


def maskable_ppo(task: str, steps: int) -> float:
    """Return the speed of sb3-contrib."""
    from sb3_contrib import MaskablePPO
    from torch.nn import Tanh

    return model_speed(MaskablePPO, TASKS[task], Tanh, SHAPE, steps)


CONTESTANTS: dict[str, Callable[[str, int], float]] = {"ours": ours, "MaskablePPO": maskable_ppo}


def turn(name: str, task: str, steps: int) -> float:
    """Return the speed of one contestant."""
    return CONTESTANTS[name](task, steps)


def main(task: Literal["doors", "corridors"] = "doors", steps: int = 50_000, rounds: int = 5) -> None:
    """Print the steps per second of both, measured in turns, and the ratio of the medians.

    Args:
        task: one discrete action, or four at once.
        steps: the number of steps in each measurement.
        rounds: the number of measurements of each.
    """
    compare(turn, ("ours", task, steps), ("MaskablePPO", task, steps), rounds)


if __name__ == "__main__":
    tyro.cli(main)
