"""What several ranks learn together is what one learns from the rows of all."""

import threading
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from AsyncPPO import EnvVectorizer, VecMemory
from AsyncPPO.collector import Collector
from benchmarks.bits import Dots
from parallel_rl.ranks.gloo import Exchange, Gloo
from parallel_rl.utils import RankError, Ranks, Trajectory
from PPO import PPO
from PPO.fast.shards import LocalWorkers
from tests.ranks import errors_on_ranks, on_ranks

ENVS, STEPS = 5, 24
ROWS = ENVS * STEPS
Env = str | Callable[[], gym.Env]
CASES: dict[str, tuple[Env, dict[str, Any]]] = {
    "analytic": ("CartPole-v1", {}),
    "autograd": ("CartPole-v1", {"learner": "torch", "value_clip": 0.1, "entropy_coef": 0.01}),
    "continuous": ("Pendulum-v1", {"normalize_obs": True, "entropy_coef": 0.01, "max_grad_norm": 1e9}),
    "whole batch": ("Pendulum-v1", {"normalize_advantage": "batch", "squash_actions": False}),
    "returns": ("Pendulum-v1", {"normalize_advantage": "returns"}),
    "none": ("CartPole-v1", {"normalize_advantage": "none", "share_encoder": True}),
    "images": (Dots, {}),
    "recurrent": ("CartPole-v1", {"core": "gru", "core_size": 8}),
    "RND": ("MountainCar-v0", {"use_RND": True, "rnd_warmup": 0, "rnd_update_proportion": 1.0}),
    "ICM": ("Pendulum-v1", {"companions": ("icm",)}),
}


def agent_for(env: Env, **settings: Any) -> PPO:
    made = gym.make(env) if isinstance(env, str) else env()
    sizes = {"batch_size": ROWS, "mini_batch_size": ROWS, "k_epochs": 1}
    return PPO.for_env(made, seed=7, **(sizes | settings))


def experience(env: Env, settings: dict[str, Any], batches: int = 1) -> list[list[Trajectory]]:
    """Return the trajectories of all environments, for each batch."""
    agent = agent_for(env, **settings)
    with EnvVectorizer(env, ENVS, seed=3, autoreset=True, backend="inline") as envs:
        collector = Collector(envs, agent, VecMemory(ENVS))
        taken = []
        for _ in range(batches):
            for _ in range(STEPS):
                collector.collect(1)
            taken.append(collector.buffer.take())
        return taken


def share_of(ranks: Ranks, trajectories: list[Trajectory]) -> list[Trajectory]:
    """Return the trajectories of this rank's environments; the first ranks have more."""
    return trajectories[ENVS * ranks.rank // ranks.world_size : ENVS * (ranks.rank + 1) // ranks.world_size]


def learned(agent: PPO, batches: list[list[Trajectory]], ranks: Ranks | None = None) -> list[dict[str, float]]:
    metrics = []
    for batch in batches:
        if ranks is None:
            agent.observe(batch)
            metrics.append(agent.update(0.5))
        else:
            agent.observe(share_of(ranks, batch))
            metrics.append(agent.update(0.5, None, ranks))
    return metrics


def weights(agent: PPO) -> torch.Tensor:
    return torch.cat(
        [each.double().flatten() for module, _ in agent.modules() for each in module.state_dict().values()]
    )


@pytest.mark.covering
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_gradient_and_statistics_are_those_of_all_rows(case: str, count: int) -> None:
    env, settings = CASES[case]
    batches = experience(env, settings, batches=2)
    whole = agent_for(env, **settings)
    expected = learned(whole, batches)

    def body(ranks: Ranks) -> tuple[PPO, list[dict[str, float]]]:
        agent = agent_for(env, **settings)
        return agent, learned(agent, batches, ranks)

    results = on_ranks(count, body)
    for agent, metrics in results:
        for own, other in zip(agent.optimizers, whole.optimizers, strict=True):
            gradient = other.gradient
            assert (own.gradient - gradient).norm() <= 1e-4 * gradient.norm()
        for name, value in expected[0].items():
            assert metrics[0][name] == pytest.approx(value, rel=1e-4, abs=2e-6), name
        for (own, _), (other, _) in zip(agent.modules(), whole.modules(), strict=True):
            for name in other.state_dict().keys() - dict(other.named_parameters()).keys():  # running statistics
                torch.testing.assert_close(own.state_dict()[name], other.state_dict()[name], rtol=1e-5, atol=1e-6)
    assert len({weights(agent).numpy().tobytes() for agent, _ in results}) == 1


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=() if case in ("analytic", "recurrent", "RND") else pytest.mark.slow) for case in CASES],
)
def test_several_minibatches_and_epochs_leave_all_ranks_alike_and_are_repeatable(case: str) -> None:
    env, settings = CASES[case]
    settings = settings | {"k_epochs": 3, "mini_batch_size": 32, "recompute_advantage": True, "target_kl": 0.05}
    batches = experience(env, settings, batches=2)

    def body(ranks: Ranks) -> bytes:
        agent = agent_for(env, **settings)
        learned(agent, batches, ranks)
        return weights(agent).numpy().tobytes() + np.float64(agent.rng.random()).tobytes()

    assert len({*on_ranks(2, body), *on_ranks(2, body)}) == 1


def test_minibatches_are_standardized_over_all_ranks() -> None:
    env, settings = CASES["analytic"]
    batches = experience(env, settings)
    settings = settings | {"mini_batch_size": ROWS // 2, "lr": 1e-12}
    expected = agent_for(env, **settings).config

    def body(ranks: Ranks) -> dict[str, float]:
        return learned(agent_for(env, **settings), batches, ranks)[0]

    assert expected.normalize_advantage == "minibatch"
    for metrics in on_ranks(3, body):  # the mean of standardized advantages is 0, and so is the loss where r is 1
        assert metrics["policy_loss"] == pytest.approx(0, abs=1e-6)


def test_gradient_workers_of_a_rank_change_no_bit() -> None:
    env, settings = CASES["continuous"]
    batches = experience(env, settings)

    def body(with_workers: bool, ranks: Ranks) -> bytes:
        agent = agent_for(env, **settings)
        assert agent.numpy_policy is not None
        workers = LocalWorkers(agent.numpy_policy.architecture, ROWS, ROWS) if with_workers else None
        agent.observe(share_of(ranks, batches[0]))
        agent.update(0.0, workers, ranks)
        return weights(agent).numpy().tobytes()

    alone, together = (on_ranks(2, lambda ranks, way=way: body(way, ranks)) for way in (False, True))  # type: ignore[misc]
    assert len({*alone, *together}) == 1


def test_a_minibatch_smaller_than_the_number_of_ranks_learns() -> None:
    env, settings = CASES["analytic"]
    batches = experience(env, settings)

    def body(ranks: Ranks) -> tuple[bytes, dict[str, float]]:
        agent = agent_for(env, mini_batch_size=1)
        return weights(agent).numpy().tobytes(), learned(agent, batches, ranks)[0]

    for _, metrics in on_ranks(3, body):
        assert np.isfinite([*metrics.values()]).all()


def test_too_few_rows_on_all_ranks_together_teach_nothing() -> None:
    batches = experience("CartPole-v1", {})
    settings = {"batch_size": ROWS + 1}
    assert on_ranks(2, lambda ranks: learned(agent_for("CartPole-v1", **settings), batches, ranks)[0]) == [{}, {}]


def test_bytes_of_an_update_are_those_of_its_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    sent, swap = threading.local(), Gloo._swap

    def counted(self: Gloo, exchange: Exchange, own: torch.Tensor, received: torch.Tensor) -> None:
        sent.bytes = getattr(sent, "bytes", 0) + own.nbytes * len(exchange.to)
        swap(self, exchange, own, received)

    monkeypatch.setattr(Gloo, "_swap", counted)
    settings = {"k_epochs": 4, "mini_batch_size": ROWS // 4}
    batches = experience("CartPole-v1", settings)

    def body(ranks: Ranks) -> tuple[int, int]:
        agent, before = agent_for("CartPole-v1", **settings), sent.bytes
        learned(agent, batches, ranks)
        return sent.bytes - before, len(agent.optimizers[0].vector)

    for count, parameters in on_ranks(4, body):
        assert count <= 1.05 * 16 * 4 * (parameters + 4) * 2  # steps, bytes, numbers, log2 of 4


class Raises:
    """Ranks of which one fails at its nth message."""

    def __init__(self, ranks: Ranks, failing: int) -> None:
        self.ranks, self.rank, self.world_size, self.left = ranks, ranks.rank, ranks.world_size, failing

    def _count(self) -> None:
        if self.rank == 1 and not self.left:
            raise ValueError("the pole broke")
        self.left -= 1

    def all_reduce(self, vector: torch.Tensor) -> torch.Tensor:
        self._count()
        return self.ranks.all_reduce(vector)

    def all_gather(self, tree: Any) -> list[Any]:
        self._count()
        return self.ranks.all_gather(tree)

    def gather(self, tree: Any) -> list[Any] | None:
        self._count()
        return self.ranks.gather(tree)


@pytest.mark.parametrize("failing", range(0, 18, 3))
def test_a_rank_that_fails_within_an_update_is_named_on_all_others(failing: int) -> None:
    batches = experience("CartPole-v1", {})

    def body(ranks: Ranks) -> None:
        learned(agent_for("CartPole-v1", mini_batch_size=12), batches, Raises(ranks, failing))

    errors = errors_on_ranks(3, body)
    assert str(errors[1]) == "the pole broke"
    for error in (errors[0], errors[2]):
        assert isinstance(error, RankError)
        assert "rank 1 on " in str(error)
