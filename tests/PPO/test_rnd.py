"""Random Network Distillation as published."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from parallel_rl.utils import Batch, Features, Trajectory
from PPO import RND, RewardScale, Transitions

NOTHING = spaces.Discrete(2)


def make(**settings: float) -> RND:
    rnd = RND(**settings)
    rnd.build(Features.of(spaces.Box(-1, 1, (2,))), NOTHING, torch.Generator().manual_seed(0))
    return rnd


def batch(seed: int, rows: int = 400) -> torch.Tensor:
    return torch.randn(rows, 2, generator=torch.Generator().manual_seed(seed))


def transitions(next_obs: torch.Tensor, space: spaces.Box | None = None) -> Transitions:
    """Return a trajectory of one environment with these next observations."""
    obs, count = next_obs.numpy(), len(next_obs)
    flags, nothing = np.zeros(count, bool), np.zeros(count, np.float32)
    one = Trajectory(0, np.concatenate([obs[:1], obs[:-1]]), nothing, nothing, flags, flags, obs[-1:])
    return Transitions(Batch.of([one]), Features.of(space or spaces.Box(-1, 1, obs.shape[1:])), torch.zeros(count))


def reward(rnd: RND, obs: torch.Tensor) -> np.ndarray:
    return rnd.reward(transitions(obs))


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
    error = rnd.error(*rnd.targets(transitions(obs))).double().detach().numpy()
    returns, total = [], 0.0
    for value in error:
        total = total * 0.5 + value
        returns.append(total)
    np.testing.assert_allclose(scaled, error / np.std(returns), rtol=1e-4)


def test_rnd_return_continues_in_the_next_trajectory_of_an_environment() -> None:
    whole, parts = RewardScale(0.9), RewardScale(0.9)
    rewards = np.arange(1.0, 9.0)
    ends = np.array([False] * 7 + [True])
    expected = whole.past_returns(rewards, ends, np.array([1]))
    first = parts.past_returns(np.r_[rewards[:4], 50.0], np.array([False] * 3 + [True] * 2), np.array([1, 0]))
    second = parts.past_returns(rewards[4:], np.array([False] * 3 + [True]), np.array([1]))
    np.testing.assert_allclose(np.r_[first[:4], second], expected)


def test_rnd_predictor_learns_and_the_target_does_not() -> None:
    rnd, rng = make(warmup=0, update_proportion=0.5), np.random.default_rng(1)
    seen, new = batch(0) * 0.3, batch(1) * 0.3 + 3
    rnd.whiten.update(torch.cat([seen, new]))
    target = [parameter.clone() for parameter in rnd.target.parameters()]
    optimizer = torch.optim.Adam(rnd.parameters(), 1e-3)
    before = rnd.error(*rnd.targets(transitions(seen))).mean()
    seen_by_predictor = rnd.targets(transitions(seen))
    for _ in range(120):
        optimizer.zero_grad()
        rnd.loss(seen_by_predictor, rng).backward()
        optimizer.step()
    assert rnd.error(*rnd.targets(transitions(seen))).mean() < 0.05 * before
    assert rnd.error(*rnd.targets(transitions(new))).mean() > 5 * rnd.error(*rnd.targets(transitions(seen))).mean()
    for now, then in zip(rnd.target.parameters(), target, strict=True):
        assert torch.equal(now, then)


@pytest.mark.parametrize("proportion", [0.0, 0.25, 1.0])
def test_rnd_loss_is_the_mean_over_a_share_of_the_rows(proportion: float) -> None:
    rnd = make(update_proportion=proportion)
    white, features = rnd.targets(transitions(torch.ones(4000, 2)))
    expected = rnd.error(white, features).mean() if proportion else torch.tensor(0.0)
    white.requires_grad_()
    loss = rnd.loss((white, features), np.random.default_rng(0))
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert white.grad is not None
    touched = (white.grad.abs().sum(dim=1) > 0).float().mean().item()
    assert touched == pytest.approx(proportion, abs=0.03)


def test_rnd_sees_images_by_convolutions() -> None:
    space, rnd = spaces.Box(0, 255, (84, 84, 4), np.uint8), RND(warmup=0)
    rnd.build(Features.of(space), NOTHING, torch.Generator().manual_seed(0))
    kernels = [module for module in rnd.predictor.modules() if isinstance(module, torch.nn.Conv2d)]
    assert [kernel.kernel_size for kernel in kernels] == [(8, 8), (4, 4), (3, 3)]
    images = np.random.default_rng(0).integers(0, 255, (6, 84, 84, 4), np.uint8)
    seen = transitions(torch.from_numpy(images), space)
    assert (rnd.reward(seen) > 0).all()
    white, features = rnd.targets(seen)
    assert white.abs().max() <= 5.0
    assert 0.1 < white.std() < 2.0, "whitened pixels are not divided by 255 as well"
    assert features.std() > 0.05
    rnd.loss((white, features), np.random.default_rng(1)).backward()
    assert all(kernel.weight.grad is not None for kernel in kernels)
