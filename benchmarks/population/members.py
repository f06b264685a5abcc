"""The speed of four PPO members beside that of two independent trainers."""

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np

from AsyncPPO import AsyncPPO
from benchmarks.population.cases import BATCH, MEMBERS, agent
from Population import MeanAgentCombiner, Trainer

ENV_ID, NUM_ENVS, TRAINERS = "CartPole-v1", 8, 2


def members(steps: int = 100_000, rounds: int = 3) -> None:
    """Print the steps per second of four members, averaged after each update, and of two trainers, taken in turns.

    Args:
        steps: of each member; a trainer takes twice as many.
        rounds: the number of measurements of each.
    """
    speeds = np.array([[of_population(steps), of_trainers(MEMBERS // TRAINERS * steps)] for _ in range(rounds)])
    for name, each in zip(("four members", "two trainers"), speeds.T, strict=True):
        print(f"{name}: {', '.join(f'{speed:,.0f}' for speed in each)} steps/s")
    ours, independent = np.median(speeds, axis=0)
    print(f"four members / two trainers: {ours / independent:.2f}")


def of_population(steps: int) -> float:
    """Return the steps per second of a population, its start included."""
    schedule = [("finish", steps, "steps"), ("combine_agents", MEMBERS * BATCH, "steps")]
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
