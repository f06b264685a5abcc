"""Ensemble: several MLPs of the same shape, with one stacked matrix product for each layer."""

from collections.abc import Sequence

import torch
from torch import nn

from parallel_rl.networks.encoders import ACTIVATIONS


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
        self.activation = ACTIVATIONS[activation]()

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return outputs `(K, B, outputs)`."""
        *hidden, last = zip(self.weights, self.biases, strict=True)
        features = rows.expand(len(last[0]), *rows.shape)
        for weight, bias in hidden:
            features = self.activation(torch.baddbmm(bias, features, weight))
        return torch.baddbmm(last[1], features, last[0])
