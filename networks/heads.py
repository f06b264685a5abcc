"""Heads: from features to a distribution over actions, or to values."""

from typing import Literal

import torch
from torch import nn

from networks.distributions import Categorical, Distribution, TanhGaussian
from networks.encoders import linear_layer
from networks.normalizer import RunningNorm

CHOICE_GAIN = 0.1
MEAN_GAIN = 0.01
"""Of the last policy layer: the first actions hardly depend on the observation (Andrychowicz et al. 2021)."""
VALUE_GAIN = 0.01
"""Of the last value layer: the first prediction is the mean of the returns."""
BOUND_EPSILON = 1e-6
"""How close to its bounds an action that comes without its draw is taken to be."""


class PolicyHead(nn.Module):
    """Turns features into a distribution, and that distribution's draws into actions."""

    noise: Literal["exponential", "normal"]
    """What its distributions are sampled with."""
    outputs: int
    """A: how many such numbers for each draw."""

    def forward(self, features: torch.Tensor) -> Distribution:
        """Return the distribution over actions for features `(B, F)`."""
        raise NotImplementedError

    def to_action(self, draw: torch.Tensor) -> torch.Tensor:
        """Return the actions that the environment takes."""
        return draw

    def to_draw(self, action: torch.Tensor) -> torch.Tensor:
        """Return the draws behind actions."""
        return action


class CategoricalHead(PolicyHead):
    """One of `actions` actions: `offset`, `offset + 1`, ...; draws count from 0."""

    noise = "exponential"

    def __init__(self, features: int, actions: int, offset: int, generator: torch.Generator) -> None:
        """Make the layer of logits."""
        super().__init__()
        self.offset, self.outputs = offset, actions
        self.logits = linear_layer(features, actions, CHOICE_GAIN, generator)

    def forward(self, features: torch.Tensor) -> Categorical:
        """See `PolicyHead.forward`."""
        return Categorical(self.logits(features))

    def to_action(self, draw: torch.Tensor) -> torch.Tensor:
        """See `PolicyHead.to_action`."""
        return draw + self.offset

    def to_draw(self, action: torch.Tensor) -> torch.Tensor:
        """See `PolicyHead.to_draw`."""
        return action.long() - self.offset


class TanhGaussianHead(PolicyHead):
    """Actions within `offset - scale` and `offset + scale`, with a log-std that does not depend on the state."""

    noise = "normal"
    scale: torch.Tensor
    offset: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor

    def __init__(
        self, features: int, scale: torch.Tensor, offset: torch.Tensor, log_std: float, generator: torch.Generator
    ) -> None:
        """Make the layer of means.

        Args:
            features: F.
            scale: float64 `(A,)`, half the width of the bounds.
            offset: float64 `(A,)`, their middle.
            log_std: initial value for every dimension, before squashing.
            generator: of the initial weights.
        """
        super().__init__()
        self.outputs = len(scale)
        self.mean = linear_layer(features, self.outputs, MEAN_GAIN, generator)
        self.log_std = nn.Parameter(torch.full((len(scale),), log_std))
        for name, value in (
            ("scale", scale.float()),
            ("offset", offset.float()),
            ("low", -_round_down(scale.double() - offset.double())),
            ("high", _round_down(offset.double() + scale.double())),
        ):
            self.register_buffer(name, value, persistent=False)

    def forward(self, features: torch.Tensor) -> TanhGaussian:
        """See `PolicyHead.forward`."""
        return TanhGaussian(self.mean(features), self.log_std, self.scale)

    def to_action(self, draw: torch.Tensor) -> torch.Tensor:
        """See `PolicyHead.to_action`."""
        return (self.offset + self.scale * draw.tanh()).clamp(self.low, self.high)

    def to_draw(self, action: torch.Tensor) -> torch.Tensor:
        """See `PolicyHead.to_draw`; an action on its bound is taken to lie just inside."""
        limit = 1.0 - BOUND_EPSILON
        return ((action - self.offset) / self.scale).clamp(-limit, limit).atanh()


def _round_down(exact: torch.Tensor) -> torch.Tensor:
    """Return the largest float32 that is not above a float64."""
    rounded = exact.float()
    return torch.where(rounded.double() > exact, rounded.nextafter(torch.tensor(-torch.inf)), rounded)


class ValueHead(nn.Module):
    """V values for each state (extrinsic, intrinsic, ...), predicted in units of their own running statistics.

    PopArt (van Hasselt et al. 2016, arXiv:1602.07714): the layer learns standardised targets, whatever the size of
    the rewards, and when the statistics move its weights move against them, so that no prediction changes. The first
    statistics come without that: the predictions before them mean nothing, and kept in units of returns that hardly
    vary they would be huge.
    """

    def __init__(self, features: int, values: int, generator: torch.Generator) -> None:
        """Make the layer of values."""
        super().__init__()
        self.normal = linear_layer(features, values, VALUE_GAIN, generator)
        self.stats = RunningNorm(values)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return standardised values: `(B, F)` to `(B, V)`."""
        return self.normal(features)

    @torch.no_grad()
    def update(self, targets: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Take `targets` `(M, V)` into the statistics; but for the first ones, `stats.inverse(forward(.))` stays.

        Returns:
            What `forward` says now where it said `values` `(M, V)`, in units of reward, before.
        """
        mean, std, first = self.stats.mean.clone(), self.stats.std, self.stats.count == 0
        self.stats.update(targets)
        if first:
            return values
        new_mean, new_std = self.stats.mean, self.stats.std
        dtype = self.normal.weight.dtype
        self.normal.weight.mul_((std / new_std).to(dtype).unsqueeze(-1))
        self.normal.bias.copy_((std * self.normal.bias + mean - new_mean) / new_std)
        return self.stats(values)
