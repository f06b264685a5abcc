"""The time of a gradient step, with autograd and with the analytic gradient: `python -m benchmarks.learner`."""

import time
from typing import Any

import numpy as np

from parallel_rl.utils import Trajectory
from PPO import PPO

ROWS = 2048
EPOCHS = 4


def milliseconds_per_step(learner: Any, continuous: bool, mini_batch_size: int) -> float:
    """Return the time of one update divided by the number of its gradient steps."""
    ppo = PPO(
        continuous, 8, 4, k_epochs=EPOCHS, batch_size=ROWS, mini_batch_size=mini_batch_size, learner=learner, seed=0
    )
    rng = np.random.default_rng(0)
    obs, flags = rng.normal(size=(ROWS, 8)).astype(np.float32), np.zeros(ROWS, bool)
    action, extras = ppo.act(obs)
    ppo.memory.append(
        Trajectory(0, obs, action, rng.normal(size=ROWS).astype(np.float32), flags, flags, obs[:1], extras)
    )
    start = time.perf_counter()
    ppo.learn()
    return (time.perf_counter() - start) / (EPOCHS * ROWS / mini_batch_size) * 1e3


def main() -> None:
    """Print a table with the medians of ten turns."""
    for continuous in (False, True):
        for mini_batch_size in (512, 64):
            turns = [
                [milliseconds_per_step(learner, continuous, mini_batch_size) for learner in ("torch", "auto")]
                for _ in range(11)
            ][1:]
            torch, analytic = np.median(turns, axis=0)
            kind = "continuous" if continuous else "discrete"
            print(f"| {kind} | {mini_batch_size} | {torch:.2f} ms | {analytic:.2f} ms |")


if __name__ == "__main__":
    main()
