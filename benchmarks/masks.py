"""Training steps per second with action masks, ours and of MaskablePPO of sb3-contrib, which must be installed.

python -m benchmarks.masks --rounds 3
"""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import tyro
from gymnasium import spaces

from AsyncPPO import ActionMasks, AsyncPPO
from benchmarks.throughput.training import SHAPES, in_turns, model_speed, trainer_speed
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
        reward, self._steps = float(self._obs[action]), self._steps + 1
        return self._next(), reward, False, self._steps == 100, {}

    def action_masks(self) -> np.ndarray:
        """Return which doors are open."""
        return self._open

    def _next(self) -> np.ndarray:
        self._obs = self.np_random.random(16, np.float32)
        self._open = self._obs > self._obs.mean()
        return self._obs


def ours(steps: int) -> float:
    """Return the speed of `AsyncPPO`."""
    ppo = PPO.for_env(
        ActionMasks(Doors()),
        batch_size=SHAPE.batch_size,
        mini_batch_size=SHAPE.mini_batch_size,
        k_epochs=SHAPE.k_epochs,
        seed=0,
    )
    with AsyncPPO(lambda: ActionMasks(Doors()), ppo, SHAPE.num_envs, steps, seed=0, progress=False) as trainer:
        return trainer_speed(trainer, steps)


def maskable_ppo(steps: int) -> float:
    """Return the speed of sb3-contrib."""
    from sb3_contrib import MaskablePPO
    from torch.nn import Tanh

    return model_speed(MaskablePPO, Doors, Tanh, SHAPE, steps)


CONTESTANTS: dict[str, Callable[[int], float]] = {"ours": ours, "MaskablePPO": maskable_ppo}


def turn(name: str, steps: int) -> float:
    """Return the speed of one contestant."""
    return CONTESTANTS[name](steps)


def main(steps: int = 50_000, rounds: int = 5) -> None:
    """Print the steps per second of both, measured in turns, and the ratio of the medians.

    Args:
        steps: the number of steps in each measurement.
        rounds: the number of measurements of each.
    """
    rates = in_turns(turn, [(name, steps) for name in CONTESTANTS], rounds)
    for (name, _), each in rates.items():
        print(f"{name}: {', '.join(f'{rate:,.0f}' for rate in each)} steps/s")
    print(f"ours / MaskablePPO: {np.median(rates['ours', steps]) / np.median(rates['MaskablePPO', steps]):.2f}")


if __name__ == "__main__":
    tyro.cli(main)
