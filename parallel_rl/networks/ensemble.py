"""Ensemble: several MLPs of the same shape, with one stacked matrix product for each layer, and their gradients.

`d_x` is the derivative of the loss by `x`, of the same shape as `x`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

Derivative = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From a gradient, and the tensor that the activation was called with, to the gradient before it, in place."""
aten = torch.ops.aten
FUNCTIONS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], Derivative]] = {
    "tanh": (torch.tanh_, lambda given, output: aten.tanh_backward.grad_input(given, output, grad_input=given)),
    "relu": (torch.relu_, lambda given, output: aten.threshold_backward.grad_input(given, output, 0, grad_input=given)),
    "silu": (F.silu, lambda given, input: aten.silu_backward.grad_input(given, input, grad_input=given)),
}
"""Activations, and their derivatives, which for those in place depend on the output."""


class Trace(NamedTuple):
    """What the gradients of an ensemble need from its forward pass."""

    layers: list[tuple[torch.Tensor, torch.Tensor]]
    """The weights `(K, inputs, outputs)` and biases `(K, 1, outputs)`."""
    inputs: list[torch.Tensor]
    """The inputs of each layer, `(K, B, inputs)`."""
    called: list[torch.Tensor]
    """What the activation was called with, for each hidden layer, `(K, B, units)`."""


class Ensemble(nn.Module):
    """K independent MLPs: `(B, inputs)` to `(K, B, outputs)`.

    Its gradients are computed without autograd, whose bookkeeping takes as long as the arithmetic of small networks.
    """

    def __init__(
        self,
        count: int,
        inputs: int,
        hidden_sizes: Sequence[int],
        outputs: int,
        activation: str,
        generator: torch.Generator,
        gain: float = 1.0,
    ) -> None:
        """Make the layers, with orthogonal weights and zero biases.

        Args:
            count: K.
            inputs: features in.
            hidden_sizes: units of the hidden layers.
            outputs: numbers out.
            activation: of the hidden layers.
            generator: of the initial weights.
            gain: factor of the orthogonal matrix of the last layer; of the others it is sqrt(2).
        """
        super().__init__()
        sizes = [inputs, *hidden_sizes, outputs]
        gains = [2**0.5] * len(hidden_sizes) + [gain]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for rows, columns, factor in zip(sizes, sizes[1:], gains, strict=False):
            weight = torch.empty(count, rows, columns)
            for matrix in weight:
                nn.init.orthogonal_(matrix, factor, generator)
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(torch.zeros(count, 1, columns)))
        self.activation = activation
        self._layers = list(zip(self.weights, self.biases, strict=True))  # a `ParameterList` is slow to iterate over

    @property
    def first_layer(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights `(K, inputs, outputs)` and biases `(K, 1, outputs)`."""
        return self._layers[0]

    def forward(self, rows: torch.Tensor, count: int | None = None) -> torch.Tensor:
        """Return the outputs `(K, B, outputs)` of all MLPs, or of the first `count`."""
        return self.trace(rows, count)[0]

    def trace(self, rows: torch.Tensor, count: int | None = None) -> tuple[torch.Tensor, Trace]:
        """Return what `forward` returns, and what the gradients need."""
        function, _ = FUNCTIONS[self.activation]
        layers = self._layers if count is None else [(weight[:count], bias[:count]) for weight, bias in self._layers]
        inputs, called = [rows.expand(layers[0][0].shape[0], -1, -1)], []
        for weight, bias in layers[:-1]:
            called.append(torch.baddbmm(bias, inputs[-1], weight))
            inputs.append(function(called[-1]))
        weight, bias = layers[-1]
        return products(inputs[-1], weight) + bias, Trace(layers, inputs, called)

    @torch.no_grad()
    def write_gradient(self, trace: Trace, d_outputs: torch.Tensor) -> None:
        """Write the derivatives of the loss by the parameters into their `grad`, given those by all K outputs."""
        for number, d_z in self._backward(trace, d_outputs):
            weight, bias = self._layers[number]
            products(trace.inputs[number].mT, d_z, out=weight.grad)
            torch.sum(d_z, dim=1, keepdim=True, out=bias.grad)

    @torch.no_grad()
    def input_gradient(self, trace: Trace, d_outputs: torch.Tensor, columns: slice = slice(None)) -> torch.Tensor:
        """Return the derivatives of the loss by `columns` of the rows, `(B, C)`, given those by the outputs."""
        *_, (_, d_z) = self._backward(trace, d_outputs)
        return products(d_z, trace.layers[0][0][:, columns].mT).sum(dim=0)

    def _backward(self, trace: Trace, d_z: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield the number of each layer, and the derivatives by what it returns, from the last layer to the first."""
        _, derivative = FUNCTIONS[self.activation]
        for number in reversed(range(1, len(trace.layers))):
            yield number, d_z
            d_z = derivative(products(d_z, trace.layers[number][0].mT), trace.called[number - 1])
        yield 0, d_z


def products(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """Return `left @ right` for stacked matrices: `(K, B, inputs)` and `(K, inputs, outputs)` to `(K, B, outputs)`.

    For vectors, `torch.bmm` is up to seven times as slow as a product for each K.
    """
    if left.shape[2] == 1:
        return torch.mul(left, right, out=out)
    if len(left) == 1 or 1 not in (left.shape[1], right.shape[2]):
        return torch.bmm(left, right, out=out)
    return torch.stack([torch.mm(a, b) for a, b in zip(left, right, strict=True)], out=out)
