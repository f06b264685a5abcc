"""Steps per second of vectorized environments with random actions, as a fraction of what the cores could do."""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np

from AsyncPPO import EnvVectorizer
from AsyncPPO.backends import available_cores
from benchmarks.throughput.envs import Busy

Factory = Callable[[], gym.Env]
Stepper = Callable[[], int]
"""Takes some steps and returns their number."""

ENVS: dict[str, Factory] = {
    "CartPole-v1": partial(gym.make, "CartPole-v1", disable_env_checker=True),
    "LunarLander-v3": partial(gym.make, "LunarLander-v3", disable_env_checker=True),
    "busy 10 us": partial(Busy, 10e-6),
    "busy 100 us": partial(Busy, 100e-6),
    "busy 1 ms": partial(Busy, 1e-3),
    "84x84x4 uint8, 100 us": partial(Busy, 100e-6, pixels=True),
    "100 us, 1% 10 ms more (busy)": partial(Busy, 100e-6, straggle="spin"),
    "100 us, 1% 10 ms more (asleep)": partial(Busy, 100e-6, straggle="sleep"),
}
SLEEPERS = "100 us, 1% 10 ms more (asleep)"
SLEEPERS_BLOCK = 4
"""The number of environments of a worker if they sleep: more workers than cores keep the cores busy."""


def can_be_timed(name: str, num_envs: int) -> bool:
    """Return whether the limit can be measured; with many more processes than cores it cannot."""
    return name != SLEEPERS or SLEEPERS_BLOCK <= num_envs <= 32


def rate(stepper: Stepper, seconds: float) -> float:
    """Return steps per second, after a warm-up."""
    end = time.perf_counter() + seconds / 5
    while time.perf_counter() < end:
        stepper()
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        steps += stepper()
    return steps / (time.perf_counter() - start)


def plain_loop(factory: Factory, num_envs: int) -> Stepper:
    """Step environments one after the other, without communication."""
    envs = [factory() for _ in range(num_envs)]
    for env in envs:
        env.reset()
    actions = np.random.default_rng(0).integers(0, envs[0].action_space.n, 1024)  # type: ignore[attr-defined]

    def step() -> int:
        for env, action in zip(envs, actions, strict=False):
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        return num_envs

    return step


def limit(factory: Factory, num_envs: int, seconds: float, count: int) -> float:
    """Return the total steps per second of plain loops in `count` processes."""
    context = multiprocessing.get_context("fork")
    rates = context.SimpleQueue()
    ready = context.Barrier(count)

    def work() -> None:
        stepper = plain_loop(factory, num_envs // count)
        ready.wait()
        rates.put(rate(stepper, seconds))

    processes = [context.Process(target=work) for _ in range(count)]
    for process in processes:
        process.start()
    total = sum(rates.get() for _ in processes)
    for process in processes:
        process.join()
    return total


@contextmanager
def ours(factory: Factory, num_envs: int, backend: Any) -> Iterator[Stepper]:
    """Step an `EnvVectorizer`."""
    with EnvVectorizer(factory, num_envs, backend=backend, autoreset=True, seed=0) as env:
        yield _vector_stepper(env, num_envs)


@contextmanager
def by_recv(factory: Factory, num_envs: int) -> Iterator[Stepper]:
    """Step an `EnvVectorizer` by `send` and `recv`: always the environments that are ready."""
    workers = num_envs // SLEEPERS_BLOCK if factory is ENVS[SLEEPERS] else available_cores()
    with EnvVectorizer(factory, num_envs, num_workers=workers, asynchronous=True, autoreset=True, seed=0) as env:
        env.reset()
        actions = np.random.default_rng(0).integers(0, env.single_action_space.n, num_envs)
        env.send(actions)

        def step() -> int:
            *_, env_ids = env.recv(min_envs=1)
            env.send(actions[env_ids], env_ids)
            return len(env_ids)

        yield step


@contextmanager
def gymnasiums(factory: Factory, num_envs: int, kind: type[gym.vector.VectorEnv]) -> Iterator[Stepper]:
    """Step one of Gymnasium's vector environments."""
    env = kind([factory] * num_envs)  # type: ignore[call-arg]
    yield _vector_stepper(env, num_envs)
    env.close()


def _vector_stepper(env: Any, num_envs: int) -> Stepper:
    env.reset()
    actions = np.random.default_rng(0).integers(0, env.single_action_space.n, (1024, num_envs))
    count = 0

    def step() -> int:
        nonlocal count
        env.step(actions[count % 1024])
        count += 1
        return num_envs

    return step


CONTESTANTS: dict[str, Callable[[Factory, int], Any]] = {
    "ours, auto": partial(ours, backend="auto"),
    "ours, process": partial(ours, backend="process"),
    "ours, recv": by_recv,
    "ours, inline": partial(ours, backend="inline"),
    "Gymnasium sync": partial(gymnasiums, kind=gym.vector.SyncVectorEnv),
    "Gymnasium async": partial(gymnasiums, kind=gym.vector.AsyncVectorEnv),
}


def measure(factory: Factory, num_envs: int, seconds: float, rounds: int) -> dict[str, float]:
    """Return the median rate of each contestant and of the limit, taken in turns."""
    rates: dict[str, list[float]] = {name: [] for name in ("limit", *CONTESTANTS)}
    for _ in range(rounds):
        processes = num_envs if factory is ENVS[SLEEPERS] else available_cores()
        rates["limit"].append(limit(factory, num_envs, seconds, processes))
        for name, contestant in CONTESTANTS.items():
            with contestant(factory, num_envs) as stepper:
                rates[name].append(rate(stepper, seconds))
    return {name: float(np.median(values)) for name, values in rates.items()}
