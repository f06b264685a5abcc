"""Random Network Distillation as published."""

import numpy as np
import pytest
import torch

from PPO import RND


def make(**kwargs: object) -> RND:
    return RND(2, generator=torch.Generator().manual_seed(0), **kwargs)


def batch(seed: int, rows: int = 400) -> torch.Tensor:
    return torch.randn(rows, 2, generator=torch.Generator().manual_seed(seed))


def reward(rnd: RND, obs: torch.Tensor) -> np.ndarray:
    ends = np.zeros(len(obs), bool)
    ends[-1] = True
    return rnd.observe(obs, ends, np.array([0]))


def test_rnd_reward_during_warmup_is_zero() -> None:
    rnd = make(warmup=500)
    assert not reward(rnd, batch(0)).any()
    assert not reward(rnd, batch(1)).any()
    assert (reward(rnd, batch(2)) > 0).all()


def test_rnd_observations_are_whitened_and_clipped_to_five() -> None:
    rnd = make(warmup=0)
    rnd.whiten.update(1000 + 50 * batch(0))
    white = rnd.whiten(torch.tensor([[1000.0, 1100.0], [5000.0, -5000.0]]))
    assert white[1].tolist() == [5.0, -5.0]
    assert white[0].abs().max() < 3


def test_rnd_reward_is_divided_by_the_running_std_of_its_return() -> None:
    rnd = make(warmup=0, gamma=0.5)
    obs = batch(0)
    scaled = reward(rnd, obs)
    error = rnd.error(*rnd.targets(obs)).double().detach().numpy()
    returns, total = [], 0.0
    for value in error:
        total = total * 0.5 + value
        returns.append(total)
    np.testing.assert_allclose(scaled, error / np.std(returns), rtol=1e-4)


def test_rnd_return_continues_in_the_next_trajectory_of_an_environment() -> None:
    whole, parts = make(warmup=0, gamma=0.9), make(warmup=0, gamma=0.9)
    rewards = np.arange(1.0, 9.0)
    ends = np.array([False] * 7 + [True])
    expected = whole._past_returns(rewards, ends, np.array([1]))
    first = parts._past_returns(np.r_[rewards[:4], 50.0], np.array([False] * 3 + [True] * 2), np.array([1, 0]))
    second = parts._past_returns(rewards[4:], np.array([False] * 3 + [True]), np.array([1]))
    np.testing.assert_allclose(np.r_[first[:4], second], expected)


def test_rnd_predictor_learns_and_the_target_does_not() -> None:
    rnd, rng = make(warmup=0, update_proportion=0.5), np.random.default_rng(1)
    seen, new = batch(0) * 0.3, batch(1) * 0.3 + 3
    rnd.whiten.update(torch.cat([seen, new]))
    target = [parameter.clone() for parameter in rnd.target.parameters()]
    optimizer = torch.optim.Adam(rnd.parameters(), 1e-3)
    before = rnd.error(*rnd.targets(seen)).mean()
    for _ in range(300):
        optimizer.zero_grad()
        rnd.loss(*rnd.targets(seen), rng).backward()
        optimizer.step()
    assert rnd.error(*rnd.targets(seen)).mean() < 0.05 * before
    assert rnd.error(*rnd.targets(new)).mean() > 5 * rnd.error(*rnd.targets(seen)).mean()
    for now, then in zip(rnd.target.parameters(), target, strict=True):
        assert torch.equal(now, then)


@pytest.mark.parametrize("proportion", [0.0, 0.25, 1.0])
def test_rnd_loss_is_the_mean_over_a_share_of_the_rows(proportion: float) -> None:
    rnd = make(update_proportion=proportion)
    obs = torch.ones(4000, 2)
    loss = rnd.loss(*rnd.targets(obs), np.random.default_rng(0))
    expected = rnd.error(*rnd.targets(obs)).mean() if proportion else torch.tensor(0.0)
    torch.testing.assert_close(loss, expected)
    obs.requires_grad_()
    rnd.loss(*rnd.targets(obs), np.random.default_rng(0)).backward()
    assert obs.grad is not None
    touched = (obs.grad.abs().sum(dim=1) > 0).float().mean().item()
    assert touched == pytest.approx(proportion, abs=0.03)
