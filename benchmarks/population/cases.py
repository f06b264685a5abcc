"""The cases that are compared: runs of populations and of single agents."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from AsyncPPO import AsyncPPO, evaluate
from Population import Agent, AgentCombiner, EvaluatedAgentCombiner, ExploitExplore, MeanAgentCombiner, Trainer
from PPO import PPO

EPISODES = 100
"""The number of deterministic episodes in each evaluation."""
BATCH, MEMBERS = 512, 4
STEPS_OF_MEAN = {"CartPole-v1": 25_000, "Acrobot-v1": 50_000}
STEPS_OF_BEST = {"CartPole-v1": 10_000, "Acrobot-v1": 20_000, "LunarLander-v3": 60_000, "Hopper-v5": 60_000}
"""Steps of each member. They are few, so that single runs differ."""
BAD_RATES = (1e-6, 1e-5, 1e-3, 1e-1)
EXPLORING = 100_000
"""Steps of each member in population-based training."""


@dataclass(frozen=True)
class Case:
    """Runs that differ by their seeds."""

    bar: str
    """The comparison that they are part of, and the task."""
    name: str
    seeds: int
    run: Callable[[int], float]
    """Trains with a seed; returns the mean return of deterministic episodes afterwards."""


def cases() -> list[Case]:
    """Return all cases."""
    mean = MeanAgentCombiner
    explore = partial(ExploitExplore, of=["lr"])
    found = []
    for env_id, steps in STEPS_OF_BEST.items():
        best = partial(EvaluatedAgentCombiner, env_id, EPISODES)
        found += [
            Case(f"best, {env_id}", "best of 4", 5, partial(population, env_id, steps, best, MEMBERS * steps)),
            Case(f"best, {env_id}", "single runs", 20, partial(single, env_id, steps)),
        ]
    for env_id, steps in STEPS_OF_MEAN.items():
        found += [
            Case(f"mean, {env_id}", "mean of 4", 5, partial(population, env_id, steps, mean, MEMBERS * BATCH)),
            Case(f"mean, {env_id}", "one run of the summed steps", 5, partial(single, env_id, MEMBERS * steps)),
        ]
    exploring = partial(population, "CartPole-v1", EXPLORING, explore, 40_000, rates=BAD_RATES)
    fixed = [
        Case("explore, CartPole-v1", f"lr={lr:g}", 5, partial(single, "CartPole-v1", EXPLORING, lr=lr))
        for lr in BAD_RATES
    ]
    return [*found, Case("explore, CartPole-v1", "explore", 5, exploring), *fixed]


def agent(env_id: str, seed: int, **settings: Any) -> PPO:
    """Return an untrained PPO."""
    return PPO.for_env(env_id, batch_size=BATCH, mini_batch_size=128, gamma=0.99, seed=seed, **settings)


def population(
    env_id: str,
    steps: int,
    combiner: Callable[[], AgentCombiner],
    every: int,
    seed: int,
    rates: Sequence[float] | None = None,
) -> float:
    """Train a population of four; return the score of its agent."""
    agents = agent(env_id, seed) if rates is None else [agent(env_id, seed, lr=lr) for lr in rates]
    schedule = [("finish", steps, "steps"), ("combine_agents", every, "steps")]
    trained, _ = Trainer(
        agents, env_id, MEMBERS, "parallel_learning", combiner(), schedule, "sync", seed=seed, progress=False
    ).run()
    return score(trained, env_id, seed)


def single(env_id: str, steps: int, seed: int, **settings: Any) -> float:
    """Train with AsyncPPO; return the score."""
    with AsyncPPO(env_id, agent(env_id, seed, **settings), 8, steps, seed=seed, progress=False) as trainer:
        trainer.run()
        return score(trainer.ppo, env_id, seed)


def score(trained: PPO, env_id: str, seed: int) -> float:
    """Return the mean return of deterministic episodes."""
    return float(evaluate(trained, env_id, EPISODES, seed=1_000_000 + seed).mean())


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
