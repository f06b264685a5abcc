"""The effect of the scale of rewards on learning: `python -m benchmarks.reward_scale`.

The rewards of CartPole-v1 are multiplied by a number. The table has the mean length of 20 deterministic episodes after
50,000 steps, for seeds 0 to 4. Before `utils.reward_unit` it was

| rewards times | 1e-24 | 1e-12 | 1e-9 | 1e-6 | 1e-5 to 1e16 | 1e18 | 1e24 |
| --- | --- | --- | --- | --- | --- | --- | --- |
| mean return | 41 | 30 | 22 | 298 | 500 | 9 | 9 |

and now it is 500 for every seed, from 1e-24 to 1e24.
"""

import argparse

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import TransformReward

from AsyncPPO import AsyncPPO, evaluate
from PPO import PPO

SCALES = (1e-24, 1e-18, 1e-12, 1e-9, 1e-6, 1e-4, 1e-2, 1.0, 1e2, 1e6, 1e12, 1e18, 1e24)


def score(scale: float, seed: int, steps: int) -> float:
    """Return the mean return of an agent that was trained on rewards times `scale`."""

    def env() -> gym.Env:
        return TransformReward(gym.make("CartPole-v1"), lambda reward: scale * float(reward))

    ppo = PPO.for_env(env(), k_epochs=10, gamma=0.99, mini_batch_size=256, seed=seed)
    with AsyncPPO(env, ppo, 32, steps, backend="inline", seed=seed, progress=False) as trainer:
        trainer.run()
    return float(evaluate(ppo, "CartPole-v1", 20, seed=seed, backend="inline").mean())


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description="The effect of the scale of rewards on learning.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--scales", type=float, nargs="+", default=SCALES)
    arguments = parser.parse_args()
    print("| rewards times | mean return | of each seed |\n| --- | --- | --- |")
    for scale in arguments.scales:
        scores = [score(scale, seed, arguments.steps) for seed in range(arguments.seeds)]
        each = ", ".join(f"{value:.0f}" for value in scores)
        print(f"| {scale:g} | {np.mean(scores):.0f} | {each} |", flush=True)


if __name__ == "__main__":
    main()
