"""Environments, workers and consumers that fail: one error soon, or a feed that goes on; nothing is left behind."""

import gc
import multiprocessing
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import torch

from AsyncPPO import EnvError
from Rollouts import BaseActorModule, rollout
from tests.envs import Counter, Faulty
from tests.Rollouts.actors import Chance, Scripted

SECONDS = 5.0
"""In which an error has to come on a machine that has other things to do."""
ANYWHERE = ["raise", "nan_obs", "nan_reward", "exit"]
IN_WORKERS = ["die", "hang"]
WAYS = [(fault, number) for fault in ANYWHERE for number in (0, 2)] + [(fault, 2) for fault in IN_WORKERS]


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    yield
    gc.collect()
    assert not multiprocessing.active_children()


def options(fault: str, num_workers: int) -> dict[str, Any]:
    return {"num_workers": num_workers, "step_timeout": 0.5 if fault == "hang" else None}


@pytest.mark.parametrize(("fault", "num_workers"), WAYS)
def test_a_fault_is_an_error_that_names_the_environment(fault: str, num_workers: int) -> None:
    script = [0, 0, 0, Faulty.FAULTS.index(fault)]
    feed = rollout(Faulty, Scripted([0] * 4, script), 3, 4, **options(fault, num_workers))
    began = time.monotonic()
    with pytest.raises(EnvError, match="environments 2 to 3" if fault == "die" else "environment 3"):
        next(feed)
    assert time.monotonic() < began + SECONDS
    assert next(feed, None) is None, "it is over"


@pytest.mark.parametrize(("fault", "num_workers"), WAYS)
def test_a_feed_goes_on_where_that_is_asked_for(fault: str, num_workers: int) -> None:
    script = [0, 0, 0, Faulty.FAULTS.index(fault)]
    feed = rollout(
        Faulty, Scripted([0] * 4, script), 3, 4, on_env_error="restart", **options(fault, num_workers)
    )  # fmt: skip
    with closing(feed):  # type: ignore[type-var]
        fragment = next(feed)
        failed = [2, 3] if fault in IN_WORKERS else [3]
        assert (~fragment.env["valid"]).nonzero().tolist() == [[1, env_id] for env_id in failed]
        assert fragment.env["truncated"][1].nonzero().flatten().tolist() == failed
        assert fragment.state.stepno[:, 3].tolist() == [0, 1, 0, 1]
        assert torch.isfinite(fragment.state.obs).all()
        assert next(feed).env["valid"].all()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_feed_that_is_dropped_ends_its_workers(num_workers: int) -> None:
    feed = rollout(Counter, Chance(), 3, 4, num_workers=num_workers)
    next(feed)
    assert bool(multiprocessing.active_children()) == bool(num_workers)
    del feed


def test_a_feed_that_is_never_asked_makes_no_environment() -> None:
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


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_actor_that_fails_later_ends_the_feed(num_workers: int) -> None:
    actor = Scripted([0] * 4, [0] * 4, [7] * 4)
    feed = rollout(Counter, actor, 10, 4, num_workers=num_workers)
    with pytest.raises(ValueError, match="environment 0 cannot take the action 7"):
        next(feed)
