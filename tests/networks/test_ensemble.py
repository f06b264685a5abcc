"""The gradients of an ensemble are those that autograd finds."""

import pytest
import torch
from torch import nn

from parallel_rl.networks import Ensemble, TanhGaussian

REFERENCE = {"relu": torch.relu, "tanh": torch.tanh, "silu": nn.functional.silu}


def plain(ensemble: Ensemble, rows: torch.Tensor, activation: str) -> torch.Tensor:
    """The same function, one MLP and one operation at a time."""
    outputs = []
    for k in range(len(ensemble.weights[0])):
        features = rows
        for weight, bias in zip(ensemble.weights[:-1], ensemble.biases[:-1], strict=True):
            features = REFERENCE[activation](features @ weight[k] + bias[k])
        outputs.append(features @ ensemble.weights[-1][k] + ensemble.biases[-1][k])
    return torch.stack(outputs)


@pytest.mark.parametrize("activation", REFERENCE)
@pytest.mark.parametrize("hidden_sizes", [(), (5,), (7, 5)])
@pytest.mark.parametrize("outputs", [1, 2])
def test_outputs_and_gradients_equal_those_of_autograd(
    activation: str, hidden_sizes: tuple[int, ...], outputs: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    ensemble = Ensemble(3, 4, hidden_sizes, outputs, activation, generator).double()
    for bias in ensemble.biases:
        bias.data.normal_(generator=generator)
    rows = torch.randn(6, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    factors = torch.randn(3, 6, outputs, generator=generator, dtype=torch.float64)
    inputs = [rows, *ensemble.parameters()]

    for parameter in ensemble.parameters():
        parameter.grad = torch.full_like(parameter, 9.0)  # is overwritten

    ours, trace = ensemble.trace(rows)
    theirs = plain(ensemble, rows, activation)
    ensemble.write_gradient(trace, factors.clone())

    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(ensemble(rows, 2), theirs[:2])
    of_rows, *of_parameters = torch.autograd.grad((factors * theirs).sum(), inputs, retain_graph=True)
    for parameter, expected in zip(ensemble.parameters(), of_parameters, strict=True):
        torch.testing.assert_close(parameter.grad, expected)
    torch.testing.assert_close(ensemble.input_gradient(trace, factors), of_rows)
    torch.testing.assert_close(ensemble.input_gradient(trace, factors, slice(-1, None)), of_rows[:, -1:])
    _, first = ensemble.trace(rows, 1)
    of_first = torch.autograd.grad((factors[:1] * theirs[:1]).sum(), rows)[0]
    torch.testing.assert_close(ensemble.input_gradient(first, factors[:1]), of_first)


def test_a_sample_has_the_log_density_of_its_raw_action_and_the_same_gradient() -> None:
    mean = torch.tensor([[0.3, -1.0]], dtype=torch.float64, requires_grad=True)
    log_std = torch.tensor([[-0.5, 0.2]], dtype=torch.float64, requires_grad=True)
    noise = torch.tensor([[1.5, -0.7]], dtype=torch.float64)
    policy = TanhGaussian(mean, log_std, torch.tensor([2.0, 1.0], dtype=torch.float64))

    raw_action, log_prob = policy.sample_with_log_prob(noise)

    torch.testing.assert_close(raw_action, policy.sample(noise))
    torch.testing.assert_close(log_prob, policy.log_prob(raw_action))
    gradients = torch.autograd.grad(log_prob.sum(), [mean, log_std])
    others = torch.autograd.grad(policy.log_prob(policy.sample(noise)).sum(), [mean, log_std])
    torch.testing.assert_close(gradients, others)
