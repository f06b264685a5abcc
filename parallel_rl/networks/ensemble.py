"""Ensemble: several MLPs of the same shape, with one stacked matrix product for each layer."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
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


class Ensemble(nn.Module):
    """K independent MLPs: `(B, inputs)` to `(K, B, outputs)`."""

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
            for each in weight:
                nn.init.orthogonal_(each, factor, generator)
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(torch.zeros(count, 1, columns)))
        self.activation = activation
        self._parameters_in_order = [*self.weights, *self.biases]  # a `ParameterList` is slow to iterate over

    def forward(self, rows: torch.Tensor, count: int | None = None) -> torch.Tensor:
        """Return outputs `(K, B, outputs)`, or those of the first `count` MLPs."""
        parameters = self._parameters_in_order
        if count is not None:
            parameters = [parameter[:count] for parameter in parameters]
        return _Layers.apply(rows, self.activation, *parameters)


class _Layers(torch.autograd.Function):
    """The layers of an `Ensemble` as one node of autograd's graph: fewer operations than layer by layer."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, activation: str, *parameters: torch.Tensor) -> torch.Tensor:
        """Return the outputs, from rows, weights and then biases."""
        weights, biases = parameters[: len(parameters) // 2], parameters[len(parameters) // 2 :]
        function, ctx.derivative = FUNCTIONS[activation]
        features, called = [rows.expand(len(weights[0]), *rows.shape)], []
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            called.append(torch.baddbmm(bias, features[-1], weight))
            features.append(function(called[-1]))
        ctx.save_for_backward(*weights, *features, *called)
        return torch.baddbmm(biases[-1], features[-1], weights[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients, layer by layer from the last one."""
        count = (len(ctx.saved_tensors) + 1) // 3
        weights, features, called = (ctx.saved_tensors[start : start + count] for start in (0, count, 2 * count))
        rows_learn, _, weights_learn, *_ = ctx.needs_input_grad
        of_weight: list[torch.Tensor | None] = [None] * count
        of_bias = of_weight.copy()
        for layer in reversed(range(count)):
            if weights_learn:
                of_weight[layer] = features[layer].transpose(1, 2).bmm(gradient)
                of_bias[layer] = gradient.sum(dim=1, keepdim=True)
            if layer or rows_learn:
                gradient = gradient.bmm(weights[layer].transpose(1, 2))
            if layer:
                gradient = ctx.derivative(gradient, called[layer - 1])
        return gradient.sum(dim=0) if rows_learn else None, None, *of_weight, *of_bias
