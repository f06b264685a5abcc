"""A fork lacks the threads of its parent; the warnings and errors if something waits for them."""

import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from AsyncPPO import AsyncPPO, EnvVectorizer, evaluate, progress
from AsyncPPO.evaluation import BackgroundEvaluation
from parallel_rl.utils import torch_threads
from PPO import PPO
from tests.envs import Counter
from tests.processes import FORK, SECONDS


@pytest.fixture(autouse=True)
def torch_has_threads() -> Iterator[None]:
    with torch_threads(2):
        yield


class Network(Counter):
    """Runs a torch network in every step."""

    def __init__(self) -> None:
        super().__init__(length=8)
        self.network = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))

    def step(self, action: int) -> Any:
        with torch.no_grad():
            self.network(torch.zeros(1, 64))
            torch.zeros(200, 200) @ torch.zeros(200, 200)  # certainly shared by threads
        return super().step(action)


class Fails(Network):
    """Kills its process in its tenth step, so that another is forked in the middle of a run."""

    steps = 0

    def step(self, action: int) -> Any:
        self.steps += 1
        if self.steps == 10:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


@pytest.mark.parametrize(
    "options", [{}, pytest.param({"acting": "central"}, marks=pytest.mark.slow), {"backend": "process"}], ids=str
)
def test_an_environment_that_runs_torch_does_not_hang(options: dict[str, Any]) -> None:
    ppo = PPO.for_env(Network(), seed=0, batch_size=32, mini_batch_size=32, k_epochs=1)
    background = BackgroundEvaluation(Network, 32, episodes=1)
    with AsyncPPO(Network, ppo, 4, 64, progress=False, callbacks=[background], **options) as run:
        assert len(run.run()) == 2
    assert run.evaluations
    assert len(evaluate(ppo, Network, 4, num_envs=4)) == 4


def test_a_worker_that_is_forked_later_may_run_torch_too() -> None:
    ppo = PPO.for_env(Network(), seed=0, batch_size=32, mini_batch_size=32, k_epochs=1)
    with AsyncPPO(Fails, ppo, 4, 64, progress=False, on_env_error="restart") as run:
        assert run.run()[-1]["restarts"]


def test_agents_are_made_and_learn_in_a_fork() -> None:
    def learn() -> None:
        ppo = PPO.for_env(Counter(), seed=0, hidden_sizes=(256, 256), batch_size=64, mini_batch_size=64)
        with AsyncPPO(Counter, ppo, 2, 64, backend="inline", progress=False) as run:
            run.run()

    learn()
    process = multiprocessing.get_context("fork").Process(target=learn)
    process.start()
    process.join(SECONDS)
    process.kill()
    assert process.exitcode == 0


@pytest.mark.parametrize("backend", ["inline", "process"])
def test_a_long_first_step_gives_a_warning(
    backend: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "LONG_SECONDS", 0.1)

    class Waits(Counter):
        """Takes half a second where its action says so."""

        def step(self, action: int) -> Any:
            if action:
                time.sleep(0.5)
            return super().step(action)

    options = FORK if backend == "process" else {"backend": "inline"}
    with caplog.at_level(logging.WARNING), EnvVectorizer(Waits, 4, **options) as env:
        env.reset()
        env.step([0, 0, 0, 1])
        env.step([0, 0, 0, 1])
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1, "once"
    assert "still waiting, after 0.1 seconds, for environment 3" in messages[0]
    assert ("start_method='spawn'" in messages[0]) is (backend == "process")


@pytest.mark.parametrize("initialized", [True, False])
def test_start_method_auto_is_spawn_where_jax_runs(initialized: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = type(sys)("xla_bridge")
    bridge.backends_are_initialized = lambda: initialized  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "jax._src.xla_bridge", bridge)
    for asked, spawned in [("auto", initialized), ("fork", False)]:
        with EnvVectorizer("CartPole-v1", 2, backend="process", num_workers=2, start_method=asked) as env:  # type: ignore[arg-type]
            env.reset()
            assert (type(multiprocessing.active_children()[0]).__name__ == "SpawnProcess") is spawned
            assert ("start method spawn, since JAX runs in this process" in env.backend_reason) is spawned
