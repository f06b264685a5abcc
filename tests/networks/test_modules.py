"""Running statistics, heads and initial weights."""

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from parallel_rl.networks import GaussianHead, Perception, RunningNorm, ValueHead, linear_layer, mlp
from parallel_rl.utils import Features


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_running_norm_statistics_are_those_of_all_rows() -> None:
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


def test_running_norm_clips_and_starts_as_the_identity() -> None:
    norm = RunningNorm(1, clip=5.0)
    torch.testing.assert_close(norm(torch.tensor([[3.0], [7.0], [-9.0]])), torch.tensor([[3.0], [5.0], [-5.0]]))


def test_running_norm_state_dict_holds_the_statistics() -> None:
    norm, other = RunningNorm(2), RunningNorm(2)
    norm.update(torch.randn(10, 2, generator=generator()))
    other.load_state_dict(norm.state_dict())
    assert other(torch.ones(1, 2)).tolist() == norm(torch.ones(1, 2)).tolist()


def test_running_norm_of_small_variance_normalizes_unless_it_is_rounding() -> None:
    sizes = torch.tensor([1e-6, 1e-4, 1.0, 1e8])
    norm, rows = RunningNorm(4), torch.randn(1000, 4, generator=generator()) * sizes
    norm.update(rows)
    assert ((norm(rows).std(dim=0) > 0.6) & (norm(rows).std(dim=0) < 1.01)).all()
    assert torch.equal(norm.std[2:], (norm.var[2:] + 1e-8).sqrt()), "the usual epsilon"

    constant = torch.tensor([0.0, 3.0, 1e-17, 100.0]).repeat(100, 1)
    constant[::2, 3] = torch.tensor(100.0).nextafter(torch.tensor(0.0))
    constant[::2, 1] = torch.tensor(3.0).nextafter(torch.tensor(0.0))
    noise = RunningNorm(4)
    noise.update(constant)
    assert noise(constant).abs().max() < 0.2
    assert noise(constant + 1).isfinite().all()


def test_running_norm_std_follows_loaded_and_rescaled_statistics() -> None:
    norm, other = RunningNorm(2), RunningNorm(2)
    norm.update(torch.randn(50, 2, generator=generator(), dtype=torch.float64) * 1e3)
    other.load_state_dict(norm.state_dict())
    assert set(norm.state_dict()) == {"mean", "var", "count"}
    assert torch.equal(other.std, norm.std)
    other.rescale(0, 2.0)
    torch.testing.assert_close(other.std, norm.std * torch.tensor([2.0, 1.0]))
    torch.testing.assert_close(other.mean, norm.mean * torch.tensor([2.0, 1.0]))


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


def test_to_raw_action_inverts_to_action_within_the_bounds() -> None:
    scale, offset = torch.tensor([2.0, 0.5]).double(), torch.tensor([0.0, 3.5]).double()
    head = GaussianHead(4, offset - scale, offset + scale, True, 0.0, generator())
    raw_action = torch.tensor([[0.3, -1.2], [50.0, -50.0]])
    action = head.to_action(raw_action)
    assert action[1].tolist() == [2.0, 3.0]
    assert (action >= offset - scale).all()
    assert (action <= offset + scale).all()
    torch.testing.assert_close(head.to_raw_action(action)[0], raw_action[0])
    at_bounds = head.to_raw_action(torch.tensor([[2.0, 3.0]]))
    assert at_bounds.isfinite().all()
    assert math.isclose(at_bounds[0, 0], -at_bounds[0, 1], rel_tol=0.1)


STACK = np.random.default_rng(0).integers(0, 256, (5, 4, 40, 36, 3), np.uint8)
GREY = STACK[..., 0]


def features_of(images: np.ndarray, space: spaces.Box) -> torch.Tensor:
    features = Features.of(space)
    assert features.vector == 0
    return Perception(features, generator())(torch.from_numpy(features.flatten(images)))


@pytest.mark.parametrize(
    ("images", "same"),
    [
        (GREY[:, 0], GREY[:, 0, ..., None]),
        (GREY[:, 0], GREY[:, :1]),
        (GREY, np.moveaxis(GREY, 1, 3)),
        (GREY, GREY[..., None]),
        (STACK, np.moveaxis(STACK, 4, 2)),
        (STACK, np.moveaxis(STACK, 4, 2).reshape(5, 12, 40, 36)),
        (STACK[:, 0], np.moveaxis(STACK[:, 0], 3, 1)),
    ],
)
def test_a_picture_is_the_same_in_any_layout_and_type(images: np.ndarray, same: np.ndarray) -> None:
    expected = features_of(images, spaces.Box(0, 255, images.shape[1:], np.uint8))
    assert expected.std(dim=0).max() > 1e-3
    for other, high, dtype in ((same, 255, np.uint8), (same, 255, np.float32), (same / 255, 1, np.float64)):
        found = features_of(other.astype(dtype), spaces.Box(0, high, other.shape[1:], dtype))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_channels_of_a_stack_are_those_of_its_first_picture_then_its_second() -> None:
    space = spaces.Box(0, 255, (2, 6, 8, 3), np.uint8)
    vision = Perception(Features.of(space), generator()).vision[0]
    seen: list[torch.Tensor] = []
    vision[0].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    pictures = np.random.default_rng(0).integers(0, 256, (1, 2, 6, 8, 3), np.uint8)
    vision(torch.from_numpy(pictures.reshape(1, -1)))
    expected = [pictures[0, picture, :, :, channel] / 255 for picture in range(2) for channel in range(3)]
    np.testing.assert_allclose(seen[0][0], expected, rtol=1e-6)
