"""The speed of four PPO members beside that of two independent trainers."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import numpy as np

from AsyncPPO import AsyncPPO
from benchmarks.population.cases import BATCH, MEMBERS, agent
from Population import MeanAgentCombiner, Trainer

ENV_ID, NUM_ENVS, TRAINERS = "CartPole-v1", 8, 2


def members(steps: int = 100_000, intervals: Sequence[int] = (BATCH, 4096, 25_000), rounds: int = 3) -> None:
    """Print the steps per second of two trainers, and of four members whose weights are averaged, taken in turns.

    Args:
        steps: of each member; a trainer takes twice as many.
        intervals: the steps of each member between two averages; by default the first is an update.
        rounds: the number of measurements of each.
    """
    runs: dict[str, Callable[[], float]] = {"two trainers": partial(of_trainers, MEMBERS // TRAINERS * steps)}
    for every in intervals:
        runs[f"four members, averaged every {every:,} steps"] = partial(of_population, steps, every)
    speeds = np.median([[run() for run in runs.values()] for _ in range(rounds)], axis=0)
    for name, speed in zip(runs, speeds, strict=True):
        print(f"{name}: {speed:,.0f} steps/s, {speed / speeds[0]:.2f} of two trainers")


def of_population(steps: int, every: int) -> float:
    """Return the steps per second of a population, its start included."""
    schedule = [("finish", steps, "steps"), ("combine_agents", MEMBERS * every, "steps")]
    start = time.perf_counter()
    Trainer(
        agent(ENV_ID, 0), ENV_ID, MEMBERS, "parallel_learning", MeanAgentCombiner(), schedule, "sync", seed=0,
        num_envs=NUM_ENVS, progress=False,
    ).run()  # fmt: skip
    return MEMBERS * steps / (time.perf_counter() - start)


def of_trainers(steps: int) -> float:
    """Return the steps per second of trainers with one process each, without the start of these processes."""
    with ProcessPoolExecutor(TRAINERS, mp_context=get_context("spawn")) as pool:
        times = [*pool.map(train, [steps] * TRAINERS, range(TRAINERS))]
    starts, ends = zip(*times, strict=True)
    return TRAINERS * steps / (max(ends) - min(starts))


def train(steps: int, seed: int) -> tuple[float, float]:
    """Train in this process; return when it began and ended."""
    ppo, start = agent(ENV_ID, seed), time.time()
    with AsyncPPO(ENV_ID, ppo, NUM_ENVS, steps, backend="inline", seed=seed, progress=False) as trainer:
        trainer.run()
    return start, time.time()
