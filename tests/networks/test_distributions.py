"""Our lean distributions against torch's, against numerical integration, and at the edges."""

import math

import torch
from torch import distributions as td

from parallel_rl.networks import Categorical, Gaussian, MultiCategoricalHead, TanhGaussian

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(50, 7, dtype=torch.float64, generator=GENERATOR)
MEAN = torch.randn(50, 3, dtype=torch.float64, generator=GENERATOR)
LOG_STD = torch.tensor([-1.0, 0.0, 0.5], dtype=torch.float64)
SCALE = torch.tensor([1.0, 2.0, 0.4], dtype=torch.float64)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=GENERATOR, dtype=torch.float64)


def exponential(*shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.float64).exponential_(generator=GENERATOR)


def squashed(mean: torch.Tensor = MEAN, log_std: torch.Tensor = LOG_STD) -> td.TransformedDistribution:
    transforms = [td.TanhTransform(), td.AffineTransform(0.0, SCALE)]
    return td.TransformedDistribution(td.Normal(mean, log_std.exp()), transforms)


def test_categorical_equals_torch() -> None:
    ours, theirs = Categorical(LOGITS), td.Categorical(logits=LOGITS)
    raw_action = ours.sample(exponential(50, 7))
    assert raw_action.dtype == torch.int64
    torch.testing.assert_close(ours.log_prob(raw_action), theirs.log_prob(raw_action), rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.entropy(), theirs.entropy(), rtol=0, atol=1e-12)
    assert ours.mode().tolist() == LOGITS.argmax(-1).tolist()


def test_categorical_samples_by_its_probabilities() -> None:
    logits = torch.tensor([[0.0, 1.0, -1.0, -torch.inf]]).expand(100_000, 4)
    counts = torch.bincount(Categorical(logits).sample(exponential(100_000, 4)), minlength=4) / 100_000
    torch.testing.assert_close(counts, logits[0].softmax(-1), rtol=0, atol=0.01)
    assert counts[3] == 0


def test_tanh_gaussian_density_equals_torch() -> None:
    """The mistake: the Gaussian's own density at the squashed action, without atanh and Jacobian."""
    ours = TanhGaussian(MEAN, LOG_STD, SCALE)
    raw_action = ours.sample(normal(50, 3))
    action = SCALE * raw_action.tanh()
    torch.testing.assert_close(ours.log_prob(raw_action), squashed().log_prob(action).sum(-1), rtol=0, atol=1e-6)


def test_tanh_gaussian_density_integrates_to_one() -> None:
    one = torch.ones(1, dtype=torch.float64)
    action = torch.linspace(-2, 2, 400_001, dtype=torch.float64)[1:-1, None]
    distribution = TanhGaussian(0.3 * one, -0.2 * one, 2 * one)
    density = distribution.log_prob((action / 2).atanh()).exp()
    assert abs(torch.trapezoid(density, action[:, 0]).item() - 1) < 1e-6


def test_tanh_gaussian_entropy_is_that_of_the_actions() -> None:
    """Against numerical integration of -p log p over the bounded action."""
    one = torch.ones(1, dtype=torch.float64)
    action = torch.linspace(-2, 2, 400_001, dtype=torch.float64)[1:-1, None]
    for mean, log_std in [(0.0, -1.0), (0.5, 0.0), (-1.0, 0.3)]:
        distribution = TanhGaussian((mean * one).unsqueeze(0), log_std * one, 2 * one)
        log_density = distribution.log_prob((action / 2).atanh())
        expected = -torch.trapezoid(log_density.exp() * log_density, action[:, 0])
        assert abs(distribution.entropy().item() - expected.item()) < 5e-4


def test_tanh_gaussian_density_where_tanh_saturates_is_finite() -> None:
    raw_action = torch.tensor([[-100.0, 30.0, 1e4]])
    mean = raw_action.clone().requires_grad_()
    distribution = TanhGaussian(mean, LOG_STD.float(), SCALE.float())
    log_prob = distribution.log_prob(raw_action)
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert mean.grad is not None
    assert mean.grad.isfinite().all()


def test_gaussian_entropy_has_a_gradient() -> None:
    log_std = LOG_STD.clone().requires_grad_()
    TanhGaussian(MEAN, log_std, SCALE).entropy().sum().backward()
    assert log_std.grad is not None
    assert (log_std.grad.abs() > 0).all()


def test_tanh_gaussian_raw_actions_are_gaussian() -> None:
    raw_actions = TanhGaussian(MEAN[:1].expand(100_000, 3), LOG_STD, SCALE).sample(normal(100_000, 3))
    torch.testing.assert_close(raw_actions.mean(0), MEAN[0], rtol=0, atol=0.03)
    torch.testing.assert_close(raw_actions.std(0), LOG_STD.exp(), rtol=0.02, atol=0)
    assert math.isclose(raw_actions[:, 0].unique().numel(), 100_000)


def test_gaussian_equals_torch() -> None:
    ours, theirs = Gaussian(MEAN, LOG_STD), td.Normal(MEAN, LOG_STD.exp())
    raw_action = ours.sample(normal(50, 3))
    torch.testing.assert_close(ours.log_prob(raw_action), theirs.log_prob(raw_action).sum(-1), rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.entropy(), theirs.entropy().sum(-1), rtol=0, atol=1e-12)
    assert torch.equal(ours.mode(), MEAN)


def test_categorical_of_several_choices_equals_as_many_categoricals() -> None:
    """Of 3, 2 and 4 choices. The mistake: probability for the padding, or for a neighbor's choices."""
    choices = (3, 2, 4)
    head = MultiCategoricalHead(5, choices, (0, 1, -2), torch.Generator().manual_seed(0))
    features = torch.randn(1000, 5, generator=GENERATOR)
    with torch.no_grad():
        head.logits.weight.mul_(10)
        ours, logits = head(features), head.logits(features)
    theirs = [td.Categorical(logits=part) for part in logits.split(choices, dim=1)]
    raw_action = ours.sample(torch.empty(1000, head.noise_size).exponential_(generator=GENERATOR))
    log_prob = sum(one.log_prob(raw_action[:, k]) for k, one in enumerate(theirs))
    torch.testing.assert_close(ours.log_prob(raw_action), log_prob, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.entropy(), sum(one.entropy() for one in theirs), rtol=0, atol=1e-5)
    assert raw_action.amax(0).tolist() == [2, 1, 3]
    action = head.to_action(raw_action)
    assert action.amin(0).tolist() == [0, 1, -2]
    assert torch.equal(head.to_raw_action(action), raw_action)


def test_categorical_never_samples_masked_choices() -> None:
    """With 10^5 raw actions nothing becomes NaN, even if only one choice is allowed."""
    head = MultiCategoricalHead(5, (3, 2), (0, 0), torch.Generator().manual_seed(0))
    mask = torch.tensor([[0, 1, 1, 0, 1]]).expand(100_000, 5)
    features = 10 * torch.randn(100_000, 5, generator=GENERATOR)
    ours = head(features, mask)
    raw_action = ours.sample(torch.empty(100_000, head.noise_size).exponential_(generator=GENERATOR))
    assert set(raw_action[:, 0].tolist()) == {1, 2}
    assert set(raw_action[:, 1].tolist()) == {1}
    assert set(ours.mode()[:, 0].tolist()) == {1, 2}
    (ours.log_prob(raw_action).sum() + ours.entropy().sum()).backward()
    assert head.logits.weight.grad is not None
    assert head.logits.weight.grad.isfinite().all()
    only = head(features, torch.tensor([[0, 1, 0, 0, 1]]).expand(100_000, 5))
    torch.testing.assert_close(only.entropy(), torch.zeros(100_000))
