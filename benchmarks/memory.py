"""Does a recurrent policy keep what it has learned? It trains long after solving a task with a memory of 30 steps.

python -m benchmarks.memory            # with the command line's settings for recurrent policies
python -m benchmarks.memory --before   # with advantages standardized in each minibatch

A seed passes if no mean return in the last fifth of the run is more than 5% below the best.
"""

from typing import Any

import gymnasium as gym
import numpy as np
import tyro
from gymnasium import spaces

from AsyncPPO import AsyncPPO
from parallel_rl.presets import RECURRENT
from PPO import PPO

LENGTH = 30
SOLVED = 0.95
NUM_ENVS = RECURRENT["num_envs"]
SETTINGS: dict[str, Any] = {
    "core": "gru",
    "core_size": 32,
    "hidden_sizes": (32,),
    "lr": 3e-3,
    "k_epochs": 5,
    "gamma": 0.99,
    "batch_size": 1024,
    "mini_batch_size": 256,
}


class Cue(gym.Env):
    """The first of 30 observations says which action is right in the last step, whose reward is 1 or -1."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Show the cue."""
        super().reset(seed=seed)
        self._cue, self._count = int(self.np_random.integers(2)), 0
        return np.array([2 * self._cue - 1, 0], np.float32), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Show only whether the next step is the last one."""
        self._count += 1
        over = self._count == LENGTH
        reward = (1.0 if action == self._cue else -1.0) if over else 0.0
        return np.array([0, self._count == LENGTH - 1], np.float32), reward, over, False, {}


def returns(seed: int, steps: int, settings: dict[str, Any]) -> np.ndarray:
    """Return the mean return of the newest episodes after each update."""
    ppo = PPO.for_env(Cue(), **SETTINGS, **settings, seed=seed)
    with AsyncPPO(Cue, ppo, NUM_ENVS, steps, backend="inline", seed=seed, progress=False) as trainer:
        return np.array([update["mean_return"] for update in trainer.run()])


def main(before: bool = False, seeds: tuple[int, ...] = (0, 1, 2, 3, 4), steps: int = 160_000) -> None:
    """Print a row for each seed.

    Args:
        before: standardize advantages in each minibatch.
        seeds: one run each.
        steps: of each run.
    """
    settings = {} if before else {name: value for name, value in RECURRENT.items() if name != "num_envs"}
    print("| seed | updates | solved after | later below 0.95 | best | last fifth: mean | lowest | passes |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for seed in seeds:
        curve = returns(seed, steps, settings)
        solved = int(np.argmax(curve >= SOLVED)) if curve.max() >= SOLVED else len(curve)
        lost, last = int(sum(curve[solved:] < SOLVED)), curve[-(len(curve) // 5) :]
        passes = curve.max() >= SOLVED and last.min() >= 0.95 * curve.max()
        row = (
            f"| {seed} | {len(curve)} | {solved} | {lost} | {curve.max():.2f} | {last.mean():.3f} | {last.min():.2f} |"
        )
        print(f"{row} {'yes' if passes else 'no'} |", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
