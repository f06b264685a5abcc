"""The losses against numbers worked out by hand."""

import math

import pytest
import torch

from PPO.losses import approximate_kl, clip_fraction, clipped_surrogate, value_loss

RATIOS = torch.tensor([1.5, 0.5, 1.5, 0.5, 1.1])
ADVANTAGES = torch.tensor([1.0, 1.0, -1.0, -1.0, 2.0])


def test_clipped_surrogate_by_hand() -> None:
    # min(r A, clip(r) A): 1.2, 0.5, -1.5, -0.8, 2.2
    loss = clipped_surrogate(RATIOS.log(), torch.zeros(5), ADVANTAGES, 0.2)
    assert loss.item() == pytest.approx(-(1.2 + 0.5 - 1.5 - 0.8 + 2.2) / 5)


def test_clipped_surrogate_gradient_is_zero_only_beyond_the_clip() -> None:
    log_prob = RATIOS.log().requires_grad_()
    clipped_surrogate(log_prob, torch.zeros(5), ADVANTAGES, 0.2).backward()
    assert log_prob.grad is not None
    torch.testing.assert_close(log_prob.grad, torch.tensor([0.0, -0.5, 1.5, 0.0, -2.2]) / 5)


def test_value_loss_sums_over_heads() -> None:
    value, target = torch.tensor([[1.0, 0.0], [3.0, 2.0]]), torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    assert value_loss(value, target).item() == pytest.approx((1 + 9) / 2 + (0 + 4) / 2)


def test_value_loss_with_clip_is_the_larger_error() -> None:
    old, target = torch.zeros(3, 1), torch.tensor([[2.0], [2.0], [0.0]])
    value = torch.tensor([[1.0], [0.1], [1.0]], requires_grad=True)
    loss = value_loss(value, target, old, 0.5)
    # clipped to 0.5, 0.1, 0.5: errors max(1, 2.25), max(3.61, 3.61), max(1, 0.25)
    assert loss.item() == pytest.approx((2.25 + 3.61 + 1.0) / 3)
    loss.backward()
    assert value.grad is not None
    assert value.grad[0] == 0


def test_approximate_kl_and_clip_fraction_by_hand() -> None:
    old = torch.zeros(2)
    new = torch.tensor([2.0, 0.5]).log()
    assert approximate_kl(new, old).item() == pytest.approx(((1 - math.log(2)) + (-0.5 + math.log(2))) / 2)
    assert approximate_kl(old, old).item() == 0
    assert clip_fraction(torch.tensor([1.1, 1.3, 0.7, 0.9]).log(), torch.zeros(4), 0.2).item() == 0.5
