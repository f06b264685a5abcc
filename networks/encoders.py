"""Encoders: from an observation to features."""

from collections.abc import Sequence

import torch
from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "silu": nn.SiLU}


def linear_layer(inputs: int, outputs: int, gain: float, generator: torch.Generator) -> nn.Linear:
    """Return a linear layer with orthogonal weights and zero biases.

    Source: Saxe et al. 2014 (arXiv:1312.6120); that it matters for PPO: Engstrom et al. 2020 (arXiv:2005.12729).

    Args:
        inputs: features in.
        outputs: features out.
        gain: factor of the orthogonal matrix.
        generator: where its randomness comes from.
    """
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain, generator)
    nn.init.zeros_(layer.bias)
    return layer


def mlp(inputs: int, hidden_sizes: Sequence[int], activation: str, generator: torch.Generator) -> nn.Sequential:
    """Return linear layers of `hidden_sizes`, each followed by the activation: `(B, inputs)` to `(B, hidden)`.

    Raises:
        ValueError: an activation that is not one of `ACTIVATIONS`.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {activation!r}")
    layers: list[nn.Module] = []
    for outputs in hidden_sizes:
        layers += [linear_layer(inputs, outputs, 2**0.5, generator), ACTIVATIONS[activation]()]
        inputs = outputs
    return nn.Sequential(*layers)
