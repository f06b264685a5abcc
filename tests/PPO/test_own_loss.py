"""A subclass of PPO that overrides `loss`."""

from typing import Any

import pytest
import torch

from AsyncPPO import AsyncPPO
from PPO import PPO, RND


class Same(PPO):
    """Its loss is PPO's."""

    def loss(self, minibatch: Any, progress: float = 0.0) -> Any:
        loss, metrics = super().loss(minibatch, progress)
        return loss, metrics | {"mine": loss}


class Twice(PPO):
    """Its loss is twice PPO's, without metrics of its own."""

    def loss(self, minibatch: Any, progress: float = 0.0) -> Any:
        loss, metrics = super().loss(minibatch, progress)
        return 2 * loss, metrics


class Bare(PPO):
    """Returns no metrics."""

    def loss(self, minibatch: Any, progress: float = 0.0) -> Any:
        return super().loss(minibatch, progress)[0]


def trained(kind: type[PPO], **settings: Any) -> tuple[PPO, dict[str, float]]:
    ppo = kind.for_env("CartPole-v1", batch_size=64, mini_batch_size=32, k_epochs=2, seed=0, **settings)
    with AsyncPPO("CartPole-v1", ppo, 4, 128, backend="inline", seed=0, progress=False) as trainer:
        return trainer.ppo, trainer.run()[-1]


def weights(ppo: PPO) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in ppo.parameters()])


@pytest.mark.parametrize("settings", [{}, {"core": "gru"}, {"companions": [RND()]}], ids=["", "gru", "rnd"])
def test_a_loss_that_adds_nothing_learns_what_autograd_learns_to_the_bit(settings: Any) -> None:
    ppo, row = trained(Same, **settings)
    expected, _ = trained(PPO, learner="torch", **settings)
    assert torch.equal(weights(ppo), weights(expected))
    assert row["mine"] == pytest.approx(
        row["policy_loss"] + 0.5 * row["value_loss"] + row.get("rnd_loss", 0.0), abs=1e-2
    )
    assert ppo.learner_reason == "autograd of Same.loss"


def test_a_loss_that_is_overridden_is_the_one_that_is_minimized() -> None:
    assert trained(Twice)[1]["grad_norm"] > 1.5 * trained(Same)[1]["grad_norm"]


def test_a_loss_that_is_assigned_to_an_agent_is_minimized_too() -> None:
    ppo = PPO.for_env("CartPole-v1", batch_size=64, mini_batch_size=32, k_epochs=2, seed=0)
    ppo.loss = lambda minibatch, progress: (2 * PPO.loss(ppo, minibatch, progress)[0], {})
    with AsyncPPO("CartPole-v1", ppo, 4, 128, backend="inline", seed=0, progress=False) as trainer:
        trainer.run()
    assert torch.equal(weights(ppo), weights(trained(Twice)[0]))


def test_a_loss_without_metrics_is_one_clear_error() -> None:
    with pytest.raises(TypeError, match=r"loss\(\) must return a loss and a dict of metrics, not Tensor"):
        trained(Bare)
