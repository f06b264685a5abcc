"""Environments, workers and consumers that fail: one error soon, or a feed that goes on; nothing is left behind."""

import gc
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from AsyncPPO import EnvError
from AsyncPPO.workers import WorkerPool
from Rollouts import BaseActorModule, rollout
from tests.envs import Counter, Faulty
from tests.Rollouts.actors import Chance, Scripted

SECONDS = 5.0
"""In which an error has to come on a machine that has other things to do."""
ANYWHERE = ["raise", "nan_obs", "nan_reward", "exit"]
IN_WORKERS = ["die", "hang"]
PLACES = [(0, 0), (2, 0), (2, 1)]
"""How many workers, and the lag."""
WAYS = [(fault, *place) for fault in ANYWHERE for place in PLACES] + [
    ("die", 2, 0), ("hang", 2, 1), ("die", 2, 1), ("hang", 2, 0)
]  # fmt: skip


class FailsOnce(Faulty):
    """Fails at its second step, if no other has done so before."""

    def __init__(self, fault: str, marker: Path) -> None:
        super().__init__()
        self.at_last, self.marker, self.count = self.FAULTS.index(fault), marker, 0

    def step(self, action: int) -> Any:
        self.count += 1
        fails = self.count == 2 and not self.marker.exists()
        if fails:
            self.marker.touch()
        return super().step(self.at_last if fails else 0)


def faulty_feed(fault: str, num_workers: int, lag: int, marker: Path, **options: Any) -> Any:
    """Return the feed of four environments of which the last fails once."""
    envs = [Faulty, Faulty, Faulty, partial(FailsOnce, fault, marker)]
    timeout = 0.5 if fault == "hang" else None
    return rollout(envs, Scripted(), 3, num_workers=num_workers, lag=lag, step_timeout=timeout, **options)


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    yield
    if multiprocessing.active_children():
        gc.collect()
    assert not multiprocessing.active_children()


@pytest.mark.covering
@pytest.mark.parametrize(("fault", "num_workers", "lag"), WAYS)
def test_a_fault_is_an_error_that_names_the_environment(fault: str, num_workers: int, lag: int, tmp_path: Path) -> None:
    feed = faulty_feed(fault, num_workers, lag, tmp_path / "failed")
    began = time.monotonic()
    with pytest.raises(EnvError, match="environments 2 to 3" if fault == "die" else "environment 3"):
        next(feed)
    assert time.monotonic() < began + SECONDS
    assert next(feed, None) is None, "it is over"


@pytest.mark.covering
@pytest.mark.parametrize(("fault", "num_workers", "lag"), WAYS)
def test_a_fault_with_restart_continues_the_rollout(fault: str, num_workers: int, lag: int, tmp_path: Path) -> None:
    with closing(faulty_feed(fault, num_workers, lag, tmp_path / "failed", on_env_error="restart")) as feed:
        fragment = next(feed)
        failed = [2, 3] if fault in IN_WORKERS else [3]
        stepno = [0, 1, 0, 1]
        if lag and fault in IN_WORKERS:  # the worker begins its fragment again
            failed, stepno = [], [0, 1, 2, 3]
        assert (~fragment.env["valid"]).nonzero().tolist() == [[1, env_id] for env_id in failed]
        assert fragment.env["truncated"].nonzero().tolist() == [[1, env_id] for env_id in failed]
        assert fragment.ends.nonzero().tolist() == [[step, env_id] for step in (0, 1) for env_id in failed]
        assert fragment.state.stepno[:, 3].tolist() == stepno
        assert torch.isfinite(fragment.state.obs).all()
        assert next(feed).env["valid"].all()


class Noisy(gym.Env):
    """Shows random numbers; its process dies in its seventh step, if no other has done so before."""

    observation_space, action_space = gym.spaces.Box(0, 1, (1,)), gym.spaces.Discrete(2)

    def __init__(self, marker: Path) -> None:
        self.marker, self.steps = marker, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.np_random.random(1, np.float32), {}

    def step(self, action: int) -> Any:
        self.steps += 1
        if self.steps == 7 and not self.marker.exists():
            self.marker.touch()
            os._exit(3)
        return self.np_random.random(1, np.float32), 0.0, False, False, {}


def test_a_restarted_worker_does_not_repeat_its_random_streams(tmp_path: Path) -> None:
    env, options = partial(Noisy, tmp_path / "failed"), {"num_workers": 1, "lag": 1, "seed": 0}
    with closing(rollout(env, Chance(), 3, 1, on_env_error="restart", **options)) as feed:  # type: ignore[arg-type]
        obs = torch.cat([next(feed).state.obs[:-1] for _ in range(4)])
    assert (tmp_path / "failed").exists()
    assert len({*obs.flatten().tolist()}) == 12


@pytest.mark.parametrize(("num_workers", "lag"), PLACES)
def test_a_feed_that_is_dropped_ends_its_workers(num_workers: int, lag: int) -> None:
    feed = rollout(Counter, Chance(), 3, 4, num_workers=num_workers, lag=lag)
    next(feed)
    assert bool(multiprocessing.active_children()) == bool(num_workers)
    del feed


def test_a_rollout_without_a_next_makes_no_environment() -> None:
    made = []
    rollout(lambda: made.append(1), Chance(), 3, 4, num_workers=2)
    assert not made


class Interrupted(BaseActorModule):
    """Ctrl-C comes at its fifth step."""

    asked = 0

    def forward(self, obs: Any, **_: Any) -> Any:
        self.asked += 1
        if self.asked == 5:
            signal.raise_signal(signal.SIGINT)
        return torch.zeros(obs.shape[:2], dtype=torch.int64), (), {}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_ctrl_c_while_a_fragment_is_collected_ends_the_feed(num_workers: int) -> None:
    feed = rollout(Counter, Interrupted(), 10, 4, num_workers=num_workers)
    with pytest.raises(KeyboardInterrupt):
        next(feed)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(("num_workers", "lag"), PLACES)
def test_an_actor_that_fails_later_ends_the_feed(num_workers: int, lag: int) -> None:
    actor = Scripted([0], [0], [7])
    feed = rollout(Counter, actor, 10, num_workers=num_workers, lag=lag)
    with pytest.raises(ValueError, match=r"actions of Scripted\.step .*: environment 0 cannot take the action 7"):
        next(feed)


def test_ctrl_c_while_workers_act_ends_the_feed(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(pool: WorkerPool) -> None:
        monkeypatch.undo()
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(WorkerPool, "next", interrupted)
    monkeypatch.setattr("Rollouts.workers.CLOSE_SECONDS", 0.1)
    feed = rollout(Counter, Chance(), 10, 4, num_workers=2, lag=1)
    with pytest.raises(KeyboardInterrupt):
        next(feed)
    assert not multiprocessing.active_children()
