"""Encoders: from the columns of an observation to features."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import nn

from parallel_rl.utils import Features, Image

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "silu": nn.SiLU}

L = TypeVar("L", bound=nn.Module)

NATURE_SIZE = 36
"""Images of at least this height and width get the large network."""


def linear_layer(inputs: int, outputs: int, gain: float, generator: torch.Generator) -> nn.Linear:
    """Return a linear layer with orthogonal weights and zero biases.

    Source: Saxe et al. 2014 (arXiv:1312.6120). Engstrom et al. 2020 (arXiv:2005.12729) show that it matters for PPO.

    Args:
        inputs: features in.
        outputs: features out.
        gain: factor of the orthogonal matrix.
        generator: of the initial weights.
    """
    return orthogonal(nn.Linear(inputs, outputs, device="meta"), gain, generator)


def convolution(inputs: int, outputs: int, kernel: int, stride: int, generator: torch.Generator) -> nn.Conv2d:
    """Return a convolution with orthogonal weights (with the gain for ReLU) and zero biases."""
    return orthogonal(nn.Conv2d(inputs, outputs, kernel, stride, device="meta"), 2**0.5, generator)


def orthogonal(layer: L, gain: float, generator: torch.Generator) -> L:
    """Give a layer of the meta device, which has drawn no random numbers, orthogonal weights and zero biases.

    `to_empty` and `skip_init` would import sympy.
    """
    for name, meta in [*layer.named_parameters()]:
        parameter = nn.Parameter(torch.empty(meta.shape))
        if parameter.ndim > 1:
            nn.init.orthogonal_(parameter, gain, generator)
        else:
            nn.init.zeros_(parameter)
        setattr(layer, name, parameter)
    return layer


def mlp(inputs: int, hidden_sizes: Sequence[int], activation: str, generator: torch.Generator) -> nn.Sequential:
    """Return linear layers of `hidden_sizes`, each followed by the activation: `(B, inputs)` to `(B, hidden)`.

    Raises:
        ValueError: the activation is not one of `ACTIVATIONS`.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {activation!r}")
    layers: list[nn.Module] = []
    for outputs in hidden_sizes:
        layers += [linear_layer(inputs, outputs, 2**0.5, generator), ACTIVATIONS[activation]()]
        inputs = outputs
    return nn.Sequential(*layers)


class Vision(nn.Sequential):
    """A convolutional network for one image: from pixels `(B, columns)` to features `(B, outputs)`.

    For large images it is that of Mnih et al. 2015 (doi:10.1038/nature14236), for small grids that of MinAtar (Young &
    Tian 2019, arXiv:1903.03176).
    """

    def __init__(self, image: Image, generator: torch.Generator) -> None:
        large = min(image.size[1:]) >= NATURE_SIZE
        layers, width = ([(32, 8, 4), (64, 4, 2), (64, 3, 1)], 512) if large else ([(16, 3, 1)], 128)
        channels, height, breadth = image.size
        modules: list[nn.Module] = []
        for outputs, kernel, stride in layers:
            modules += [convolution(channels, outputs, kernel, stride, generator), nn.ReLU()]
            channels, height, breadth = outputs, (height - kernel) // stride + 1, (breadth - kernel) // stride + 1
        inputs = channels * height * breadth
        super().__init__(*modules, nn.Flatten(), linear_layer(inputs, width, 2**0.5, generator), nn.ReLU())
        self.image, self.outputs = image, width
        self._layout = torch.channels_last if large else torch.contiguous_format

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return features `(B, outputs)`."""
        images = pixels.reshape(-1, *self.image.planes)
        if not self.image.channels_first:
            images = images.permute(0, 1, 4, 2, 3)
        images = images.flatten(1, 2)
        return super().forward(images.contiguous(memory_format=self._layout).float() / self.image.high)


class Perception(nn.Module):
    """A network for each image, whose features follow the plain numbers: `(B, columns)` to `(B, outputs)`."""

    def __init__(self, features: Features, generator: torch.Generator) -> None:
        super().__init__()
        self._widths = [features.vector, *(image.columns for image in features.images)]
        networks = [Vision(image, generator) for image in features.images]
        self.outputs = features.vector + sum(network.outputs for network in networks)
        self.vision = nn.ModuleList(networks)

    def forward(self, columns: torch.Tensor) -> torch.Tensor:
        """Return features `(B, outputs)`."""
        numbers, *images = columns.split(self._widths, dim=1)
        seen = [vision(pixels) for vision, pixels in zip(self.vision, images, strict=True)]
        return torch.cat([numbers.float(), *seen], dim=1)
