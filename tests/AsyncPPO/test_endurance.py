"""Days of a run in minutes: memory that stays flat, and workers that are killed all the time."""

import multiprocessing
import os
import random
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from AsyncPPO import AsyncPPO
from AsyncPPO.callbacks import Callback, Checkpoints, CSVLog, TensorBoard
from AsyncPPO.rollout import Episode
from PPO import PPO

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def resident() -> int:
    """Return the bytes of memory of this process and its children."""
    pids = [os.getpid(), *children()]
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * os.sysconf("SC_PAGE_SIZE")


class Scales(Callback):
    """Weighs the run at a tenth of it, and at its end."""

    def __init__(self) -> None:
        self.weights: list[tuple[int, int]] = []

    def on_update(self, trainer: AsyncPPO, metrics: dict[str, float]) -> None:
        if metrics["steps"] >= trainer.steps * (0.1 + 0.1 * len(self.weights)):
            self.weights.append((int(metrics["steps"]), resident()))

    def on_end(self, trainer: AsyncPPO) -> None:
        self.weights.append((trainer.steps_done, resident()))


def test_twenty_million_steps_in_the_same_memory(tmp_path: Path) -> None:
    scales = Scales()
    ppo = PPO.for_env("CartPole-v1", seed=0, k_epochs=2, batch_size=4096, mini_batch_size=1024)
    logs = [CSVLog(tmp_path), TensorBoard(tmp_path), Checkpoints(tmp_path / "checkpoints", 10.0), scales]
    with AsyncPPO("CartPole-v1", ppo, 32, 20_000_000, seed=0, callbacks=logs) as run:
        run.run()
    print(scales.weights)
    assert scales.weights[-1][1] <= 1.05 * scales.weights[0][1]


class Killer(Callback):
    """Kills a worker about every second."""

    def __init__(self) -> None:
        self.kills, self.rng = 0, random.Random(0)

    def on_rollout(self, trainer: AsyncPPO, steps: int, episodes: Sequence[Episode]) -> None:
        if trainer.seconds > self.kills + 1:
            self.kills += 1
            os.kill(self.rng.choice(children()), signal.SIGKILL)


@pytest.mark.parametrize("acting", ["central", "replicas"])
def test_two_minutes_of_killed_workers(acting: str) -> None:
    killer, before = Killer(), set(os.listdir("/dev/shm"))
    ppo = PPO.for_env("CartPole-v1", seed=0)
    with AsyncPPO(
        "CartPole-v1", ppo, 16, 200_000, acting=acting, backend="process", num_workers=4, on_env_error="restart",
        callbacks=[killer],
    ) as run:  # fmt: skip
        while run.seconds < 120:
            done = run.steps_done
            run.run()
            assert done + 200_000 <= run.steps_done < done + 200_016
        assert killer.kills >= 100
        assert run.history[-1]["restarts"] >= 4 * (killer.kills - 5)
    assert not multiprocessing.active_children()
    assert not children()
    assert set(os.listdir("/dev/shm")) <= before
