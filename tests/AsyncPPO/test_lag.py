"""lag=1: the next batch is collected during an update, with the weights from before it."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from AsyncPPO import AsyncPPO, AsyncTrainer
from parallel_rl import main
from parallel_rl.utils import Batch
from PPO import PPO
from tests.AsyncPPO.test_checkpoint import check_exact
from tests.covering import rest_slow
from tests.toy_agent import ToyAgent


class Watched(PPO):
    """Stores the batches that it learns from, and a copy of itself from before each update."""

    def update(self, *arguments: Any) -> dict[str, float]:
        self.batches = [*getattr(self, "batches", []), self.memory.batch()]
        self.copies = [*getattr(self, "copies", []), self.actor()]
        return super().update(*arguments)


def log_prob(ppo: PPO, batch: Batch) -> np.ndarray:
    with torch.no_grad():
        distribution = ppo.policy.distribution(ppo.policy.normalize(torch.from_numpy(batch.obs)))
        return distribution.log_prob(torch.from_numpy(batch.action)).numpy()


def trainer(steps: int = 640, kind: type[PPO] = PPO, **options: Any) -> AsyncPPO:
    ppo = kind(False, 4, 2, batch_size=128, mini_batch_size=32, k_epochs=2, lr=1e-2, normalize_obs=True, seed=0)
    defaults = {"lag": 1, "backend": "inline", "seed": 0, "progress": False}
    return AsyncPPO("CartPole-v1", ppo, 4, steps, **(defaults | options))


def test_each_batch_is_collected_with_the_weights_of_one_update_ago() -> None:
    with trainer(kind=Watched) as run:
        history = run.run()
        ppo: Any = run.ppo
    assert [row["steps"] for row in history] == [256, 384, 512, 640, 640]
    assert [row["policy_lag"] for row in history] == [0, 1, 1, 1, 1]
    assert len(ppo.batches) == 5
    assert len(run.buffer) == len(ppo.memory) == 0
    for k, batch in enumerate(ppo.batches):
        lagged = ppo.copies[max(0, k - 1)]
        np.testing.assert_allclose(batch.extras["log_prob"], log_prob(lagged, batch), atol=1e-5)
        if k:
            assert np.abs(batch.extras["log_prob"] - log_prob(ppo.copies[k], batch)).max() > 1e-3


@pytest.mark.parametrize("core", rest_slow("none", "lstm"))
def test_a_resumed_run_equals_one_that_never_stopped(core: str, tmp_path: Path) -> None:
    check_exact(tmp_path, "CartPole-v1", {"lag": 1}, backend="process", core=core, steps=520)


def test_a_run_by_its_steps_ends_without_a_lag_and_can_be_extended() -> None:
    with trainer(256) as run:
        run.run()
        assert [row["policy_lag"] for row in run.run()] == [0, 1, 0, 1]
        assert run.steps_done == 512


def test_a_batch_with_rows_from_an_update_and_from_after_it_has_a_lag() -> None:
    with trainer(160) as run:  # a batch, and 32 rows that are collected during its update and wait for the next run
        run.run()
        assert len(run.buffer) == 32
        assert [row["policy_lag"] for row in run.run()][1:] == [1]


def test_an_error_in_the_update_ends_the_run() -> None:
    with trainer() as run:
        run.ppo.lr = lambda remaining: -1.0 if remaining < 0.5 else 1e-3
        with pytest.raises(ValueError, match="lr"):
            run.run()
        assert run.collector.agent is run.ppo


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lag": 2}, "lag must be 0 or 1, not 2"),
        ({"acting": "replicas"}, "lag=1 needs mode='streaming', acting='central' or 'auto'"),
        ({"mode": "mask"}, "lag=1 needs mode='streaming'"),
    ],
)
def test_lag_with_unsupported_settings_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        trainer(**options)


def test_an_agent_without_behavior_is_refused() -> None:
    with pytest.raises(ValueError, match=r"an on-policy agent with `behavior\(\)`"):
        AsyncTrainer("FrozenLake-v1", ToyAgent(states=16, actions=4), 2, 100, lag=1, backend="inline")


CENTRAL = "the agent acts in this process, in every step: it has no replicas for the workers"
FASTER = "; if steps take 1 ms or more, lag=1 may be a little faster"


@pytest.mark.parametrize(
    ("make_agent", "reason"),
    [
        (lambda: PPO.for_env("FrozenLake-v1", core="gru", seed=0), CENTRAL + FASTER),
        (lambda: ToyAgent(states=16, actions=4), CENTRAL),
    ],
)
def test_the_reason_of_acting_here_names_the_lag_where_it_is_possible(make_agent: Any, reason: str) -> None:
    with AsyncTrainer("FrozenLake-v1", make_agent(), 2, 2_000, backend="inline", progress=False) as run:
        assert run.acting_reason == reason


def test_the_command_line_logs_the_lag(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    flags = ["--env-id", "CartPole-v1", "--batch-size", "128", "--mini-batch-size", "64", "--num-envs", "4"]
    flags += ["--k-epochs", "1", "--hidden-sizes", "8"]
    flags += ["--backend", "inline", "--eval-every", "0", "--eval-episodes", "1", "--run-dir", str(tmp_path / "run")]
    assert main.main([*flags, "--steps", "384", "--lag", "1"]) == 0
    assert "also during updates" in capsys.readouterr().out
    assert main.main(["resume", str(tmp_path / "run"), "--steps", "256"]) == 0
    header, *rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    column = header.split(",").index("policy_lag")
    assert [float(row.split(",")[column]) for row in rows] == [0, 1, 1, 0, 1]
