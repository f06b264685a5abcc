"""The bars of populations: `python -m benchmarks.population {speed,mean,best,explore}`, each prints JSON lines.

`speed` compares with PRLearn, if it is installed (`pip install prlearn`).
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from AsyncPPO import AsyncPPO, evaluate
from Population import Agent, AgentCombiner, ExploitExplore, FixedStatAgentCombiner, MeanAgentCombiner, Trainer
from PPO import PPO

try:
    import prlearn
except ImportError:
    prlearn = None

EPISODES = 100
"""Of each evaluation, deterministic."""
BATCH = 512
STEPS = {"CartPole-v1": 50_000, "Acrobot-v1": 50_000}
"""Of each member, or of a single run."""
BAD_RATES = (1e-6, 1e-5, 1e-3, 1e-1)


class Rover(Agent):
    """Acts at random in LunarLander; its training does nothing."""

    def __init__(self) -> None:
        """Make its random stream."""
        self.rng = np.random.default_rng(0)

    def action(self, state: Any) -> int:
        """Return a random action."""
        return int(self.rng.integers(4))

    def train(self, experience: Any) -> None:
        """Do nothing."""


def speed() -> None:
    """Print steps per second of the quick start of PRLearn with a random agent, and the seconds until a first step."""
    schedule = [("finish", 250, "episodes"), ("train_agent", 10, "episodes")]
    arguments: dict[str, Any] = {"n_workers": 4, "mode": "parallel_learning", "sync_mode": "sync"}
    env = gym.make("LunarLander-v3")
    trainers: dict[str, Callable[[Any], Any]] = {
        "ours": lambda rules: Trainer(Rover(), env, schedule=rules, progress=False, **arguments)
    }
    if prlearn is not None:
        trainers["PRLearn"] = lambda rules: prlearn.Trainer(Rover(), env, schedule=rules, **arguments)
    for name, make in trainers.items():
        start = time.perf_counter()
        make([("finish", 1, "steps")]).run()
        first = time.perf_counter() - start
        start = time.perf_counter()
        _, result = make(schedule).run()
        seconds = time.perf_counter() - start
        steps = sum(worker["total_steps"] for worker in result["workers"])
        report(what="speed", who=name, steps_per_second=round(steps / seconds), first_step=round(first, 2))


def mean() -> None:
    """Print returns of the mean of four, combined after each update, and of one run of the summed steps."""
    for env_id, steps in STEPS.items():
        for seed in range(5):
            population = returns_of(env_id, seed, steps, MeanAgentCombiner(), 4 * BATCH)
            report(what="mean", env_id=env_id, seed=seed, population=population, single=single(env_id, seed, 4 * steps))


def best() -> None:
    """Print returns of the best of four, and of single runs of the same steps for each member."""
    for env_id, steps in STEPS.items():
        for seed in range(5):
            combiner = FixedStatAgentCombiner("mean_x_episodes_reward")
            report(what="best", env_id=env_id, seed=seed, population=returns_of(env_id, seed, steps, combiner, steps))
        for seed in range(20):
            report(what="best", env_id=env_id, seed=seed, single=single(env_id, seed, steps))


def explore() -> None:
    """Print returns of population-based training from bad learning rates, and of fixed runs with these rates."""
    env_id = "CartPole-v1"
    for seed in range(5):
        combiner = ExploitExplore(of=["lr"], seed=seed)
        population = returns_of(env_id, seed, 100_000, combiner, 40_000, [agent(env_id, 0, lr=lr) for lr in BAD_RATES])
        report(what="explore", seed=seed, population=population)
    for lr in BAD_RATES:
        report(what="explore", lr=lr, single=single(env_id, 0, 100_000, lr=lr))


def agent(env_id: str, seed: int, **settings: Any) -> PPO:
    """Return an untrained PPO."""
    return PPO.for_env(env_id, batch_size=BATCH, mini_batch_size=128, gamma=0.99, seed=seed, **settings)


def returns_of(
    env_id: str, seed: int, steps: int, combiner: AgentCombiner, every: int, agents: list[PPO] | None = None
) -> float:
    """Return the mean return of the agent of a population of four."""
    schedule = [("finish", steps, "steps"), ("combine_agents", every, "steps")]
    trained, _ = Trainer(
        agents or agent(env_id, seed), env_id, 4, "parallel_learning", combiner, schedule, "sync", seed=seed,
        progress=False,
    ).run()  # fmt: skip
    return float(evaluate(trained, env_id, EPISODES, seed=1_000_000 + seed).mean())


def single(env_id: str, seed: int, steps: int, **settings: Any) -> float:
    """Return the mean return of a run of AsyncPPO."""
    with AsyncPPO(env_id, agent(env_id, seed, **settings), 8, steps, seed=seed, progress=False) as trainer:
        trainer.run()
        return float(evaluate(trainer.ppo, env_id, EPISODES, seed=1_000_000 + seed).mean())


def report(**row: Any) -> None:
    """Print a line, with the number of cores."""
    print(json.dumps(row | {"cores": len(os.sched_getaffinity(0))}), flush=True)


if __name__ == "__main__":
    {"speed": speed, "mean": mean, "best": best, "explore": explore}[sys.argv[1]]()
