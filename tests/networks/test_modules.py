"""Running statistics, heads and initial weights."""

import math

import pytest
import torch

from networks import GaussianHead, RunningNorm, ValueHead, linear_layer, mlp


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_running_statistics_are_those_of_everything_seen() -> None:
    rows = torch.randn(1000, 3, generator=generator()) * torch.tensor([1.0, 10.0, 0.01]) + 5
    norm = RunningNorm(3)
    for part in rows.split([1, 9, 490, 500]):
        norm.update(part)
    torch.testing.assert_close(norm.mean.float(), rows.mean(0))
    torch.testing.assert_close(norm.var.float(), rows.var(0, correction=0))
    assert norm.count == 1000
    normal = norm(rows)
    torch.testing.assert_close(normal.std(0), torch.ones(3), rtol=1e-2, atol=0)
    torch.testing.assert_close(norm.inverse(normal), rows)


def test_running_statistics_clip_and_start_as_the_identity() -> None:
    norm = RunningNorm(1, clip=5.0)
    torch.testing.assert_close(norm(torch.tensor([[3.0], [7.0], [-9.0]])), torch.tensor([[3.0], [5.0], [-5.0]]))


def test_running_statistics_travel_in_the_state_dict() -> None:
    norm, other = RunningNorm(2), RunningNorm(2)
    norm.update(torch.randn(10, 2, generator=generator()))
    other.load_state_dict(norm.state_dict())
    assert other(torch.ones(1, 2)).tolist() == norm(torch.ones(1, 2)).tolist()


def test_popart_moves_the_statistics_and_no_prediction() -> None:
    head, features = ValueHead(8, 2, generator()), torch.randn(20, 8, generator=generator())
    raw = head(features)
    assert torch.equal(head.update(torch.randn(50, 2, generator=generator()), raw), head(features))
    before = head.stats.inverse(head(features))
    for size in (1.0, 100.0, 1e4):
        normal = head.update(size * torch.randn(50, 2, generator=generator()) + size, before)
        torch.testing.assert_close(head.stats.inverse(head(features)), before, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(head(features), normal, rtol=1e-3, atol=1e-3)


def test_weights_are_orthogonal_with_the_gain_and_leave_the_global_random_state_alone() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    layer = linear_layer(16, 8, 2.0, generator())
    mlp(4, [5, 6], "relu", generator())
    torch.testing.assert_close(layer.weight @ layer.weight.T, 4 * torch.eye(8))
    assert not layer.bias.any()
    assert torch.equal(torch.get_rng_state(), state)


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(ValueError, match="one of tanh, relu, silu, not 'gelu'"):
        mlp(2, [3], "gelu", generator())


def test_actions_lie_within_their_bounds_and_lead_back_to_their_draws() -> None:
    scale, offset = torch.tensor([2.0, 0.5]).double(), torch.tensor([0.0, 3.5]).double()
    head = GaussianHead(4, offset - scale, offset + scale, True, 0.0, generator())
    draw = torch.tensor([[0.3, -1.2], [50.0, -50.0]])
    action = head.to_action(draw)
    assert action[1].tolist() == [2.0, 3.0]
    assert (action >= offset - scale).all()
    assert (action <= offset + scale).all()
    torch.testing.assert_close(head.to_draw(action)[0], draw[0])
    at_bounds = head.to_draw(torch.tensor([[2.0, 3.0]]))
    assert at_bounds.isfinite().all()
    assert math.isclose(at_bounds[0, 0], -at_bounds[0, 1], rel_tol=0.1)
