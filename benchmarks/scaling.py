"""The speedup of collection by workers, and their memory: `python -m benchmarks.scaling`."""

import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from tqdm import tqdm

from AsyncPPO import AsyncPPO, EnvVectorizer, VecMemory
from AsyncPPO.backends import Plan
from AsyncPPO.collector import AlternatingCollector, Collector, ReplicaCollector
from benchmarks.throughput.envs import Busy
from PPO import PPO

HORIZON = 64
MEMORY_STEPS = 10_000_000
ASKED_SECONDS = 2.0


class Sleeper(gym.Env):
    """Sleeps for 10 ms in each step: stands for a computation on a core that this machine does not have."""

    observation_space = spaces.Box(-1, 1, (8,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start an episode."""
        return np.zeros(8, np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Sleep."""
        time.sleep(0.01)
        return np.zeros(8, np.float32), 1.0, False, False, {}


def collected_per_second(factory: Any, num_envs: int, workers: int) -> float:
    """Return the environment steps per second that replicas collect."""
    ppo = PPO(False, 8, 2, seed=0)
    replica = ppo.replica()
    assert replica is not None
    with EnvVectorizer(
        factory, num_envs, backend="process", num_workers=workers, autoreset=True, seed=0, plan=Plan(replica, HORIZON)
    ) as env:
        assert env.rollout is not None
        collector = ReplicaCollector(env, ppo, VecMemory(num_envs, env.rollout.rows))
        rates = []
        for _ in range(4):
            start = time.perf_counter()
            steps, _ = collector.collect(HORIZON)
            rates.append(steps / (time.perf_counter() - start))
            collector.buffer.clear()
    return float(np.median(rates[1:]))


class Elsewhere:
    """Inference that takes some time without using this machine's cores, in place of a GPU."""

    def __init__(self, seconds: float) -> None:
        """Store the time of an inference."""
        self.seconds = seconds

    def act(self, states: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Wait."""
        time.sleep(self.seconds)
        return np.zeros(len(states), np.int64), {}

    def get_action(self, states: np.ndarray, *, deterministic: bool = False) -> np.ndarray:
        """Wait."""
        return self.act(states)[0]


def asked_per_second(step_seconds: float, answer_seconds: float) -> tuple[float, float]:
    """Return the environment steps per second with inference for all 32 at once, and for alternating halves."""
    rates = []
    for alternating in (False, True):
        make = partial(EnvVectorizer, partial(Busy, step_seconds), 32, backend="process", autoreset=True, seed=0)
        with make(asynchronous=alternating) as env:
            kind = AlternatingCollector if alternating else Collector
            collector = kind(env, Elsewhere(answer_seconds), VecMemory(32))
            collector.collect(1)
            start, done = time.perf_counter(), 0
            while time.perf_counter() < start + ASKED_SECONDS:
                done += sum(collector.collect(HORIZON)[0] for _ in range(1 if alternating else HORIZON))
                collector.buffer.clear()
            rates.append(done / (time.perf_counter() - start))
    return rates[0], rates[1]


def private_megabytes(pid: int) -> float:
    """Return the private memory of a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def memory() -> str:
    """Train for ten million steps and measure the memory of both processes at each tenth."""
    ppo = PPO(False, 4, 2, batch_size=2048, mini_batch_size=512, k_epochs=1, seed=0)
    lines = ["| steps | main process, MB | its worker, MB |", "| --- | --- | --- |"]
    with AsyncPPO("CartPole-v1", ppo, 32, MEMORY_STEPS, backend="process", num_workers=2, seed=0) as trainer:
        due = MEMORY_STEPS // 10
        children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        for update in trainer.updates():
            if update["steps"] > due - ppo.batch_size:
                sizes = [private_megabytes(os.getpid()), max(private_megabytes(int(pid)) for pid in children)]
                lines.append(f"| {due:,} | {sizes[0]:.0f} | {sizes[1]:.0f} |")
                due += MEMORY_STEPS // 10
    return "\n".join(lines)


def main() -> None:
    """Print the tables."""
    print("| environment | workers | steps/s | of linear scaling |\n| --- | --- | --- | --- |")
    cases: list[tuple[str, Any, list[tuple[int, int]]]] = [
        ("busy 100 us, N = 32", partial(Busy, 100e-6), [(32, 1), (32, 2)]),
        ("busy 1 ms, N = 32", partial(Busy, 1e-3), [(32, 1), (32, 2)]),
        ("asleep 10 ms, one for each worker", Sleeper, [(count, count) for count in (1, 2, 4, 8, 16, 32, 64)]),
    ]
    for name, factory, sizes in cases:
        first = 0.0
        for num_envs, workers in sizes:
            rate = collected_per_second(factory, num_envs, workers)
            first = first or rate
            print(f"| {name} | {workers} | {rate:,.0f} | {rate / first / workers:.0%} |", flush=True)
    print("\n| a step | inference | central, steps/s | alternating, steps/s |\n| --- | --- | --- | --- |")
    for step_us, answer_us in [(20, 1000), (100, 200), (100, 1000), (100, 3000), (1000, 3000)]:
        central, alternating = asked_per_second(step_us * 1e-6, answer_us * 1e-6)
        print(f"| {step_us} us | {answer_us / 1000} ms | {central:,.0f} | {alternating:,.0f} |", flush=True)
    tqdm.write(f"\n{memory()}")


if __name__ == "__main__":
    main()
