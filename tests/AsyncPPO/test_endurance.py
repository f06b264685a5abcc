"""Endurance: memory that does not grow, and workers that are killed again and again."""

import multiprocessing
import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from AsyncPPO import AsyncPPO
from AsyncPPO.callbacks import Callback, Checkpoints, CSVLog, TensorBoard
from PPO import PPO

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def resident() -> int:
    """Return the bytes of memory of this process and its children."""
    pids = [os.getpid(), *children()]
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * os.sysconf("SC_PAGE_SIZE")


class Scales(Callback):
    """Measures the memory after a tenth of the run, and at its end."""

    def __init__(self) -> None:
        self.weights: list[tuple[int, int]] = []

    def on_update(self, trainer: AsyncPPO, metrics: dict[str, float]) -> None:
        if metrics["steps"] >= trainer.steps * (0.1 + 0.1 * len(self.weights)):
            self.weights.append((int(metrics["steps"]), resident()))

    def on_end(self, trainer: AsyncPPO) -> None:
        self.weights.append((trainer.steps_done, resident()))


def test_memory_over_twenty_million_steps_does_not_grow(tmp_path: Path) -> None:
    scales = Scales()
    ppo = PPO.for_env("CartPole-v1", seed=0, k_epochs=2, batch_size=4096, mini_batch_size=1024)
    logs = [CSVLog(tmp_path), TensorBoard(tmp_path), Checkpoints(tmp_path / "checkpoints", 10.0), scales]
    with AsyncPPO("CartPole-v1", ppo, 32, 20_000_000, seed=0, callbacks=logs) as run:
        run.run()
    print(scales.weights)
    assert scales.weights[-1][1] <= 1.05 * scales.weights[0][1]


class Talkative(gym.Wrapper):
    """Returns infos in every step, which are sent through a pipe."""

    def step(self, action: Any) -> Any:
        *step, _ = self.env.step(action)
        return (*step, {"much": "to say" * 1000})


@contextmanager
def killer() -> Iterator[list[int]]:
    """Kill a worker about every second, whatever it is doing; yield the list of killed workers."""
    killed: list[int] = []
    rng, over = random.Random(0), threading.Event()

    def kill() -> None:
        while not over.wait(rng.expovariate(1.0)):
            with suppress(IndexError, ProcessLookupError):
                killed.append(rng.choice(children()))
                os.kill(killed[-1], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("acting", ["central", "replicas"])
@pytest.mark.parametrize("wrapper", [None, Talkative])
def test_training_survives_two_minutes_of_killed_workers(acting: Any, wrapper: Any) -> None:
    before, ppo = set(os.listdir("/dev/shm")), PPO.for_env("CartPole-v1", seed=0)

    def make() -> gym.Env:
        env = gym.make("CartPole-v1")
        return env if wrapper is None else wrapper(env)

    with AsyncPPO(
        make, ppo, 16, 20_000, acting=acting, backend="process", num_workers=4, on_env_error="restart"
    ) as run:  # fmt: skip
        with killer() as killed:
            while run.seconds < 120:
                done = run.steps_done
                run.run()
                assert done + 20_000 <= run.steps_done < done + 20_016
        assert len(killed) >= 60
        assert run.history[-1]["restarts"] >= 4 * (len(set(killed)) - 5)
    assert not multiprocessing.active_children()
    assert not children()
    assert set(os.listdir("/dev/shm")) <= before
