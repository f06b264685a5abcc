"""How collection scales with the number of workers, and their memory: `python -m benchmarks.scaling`."""

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
from AsyncPPO.collector import ReplicaCollector
from benchmarks.throughput.envs import Busy
from PPO import PPO

HORIZON = 64
MEMORY_STEPS = 10_000_000


class Sleeper(gym.Env):
    """Sleeps for 10 ms in each step, in place of a computation on a core that this machine does not have."""

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
    tqdm.write(f"\n{memory()}")


if __name__ == "__main__":
    main()
