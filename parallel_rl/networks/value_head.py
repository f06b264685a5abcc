"""ValueHead: from features to values."""

from collections.abc import Mapping

import torch
from torch import nn

from parallel_rl.networks.encoders import linear_layer
from parallel_rl.networks.normalizer import RunningNorm
from parallel_rl.utils import ALONE, Ranks

VALUE_GAIN = 0.01
"""Gain of the last value layer: the first prediction is the mean of the returns."""
SMALLEST_RETURN = 1e-35
"""Standard deviation below which returns count as constant; float32 can represent it."""


class ValueHead(nn.Module):
    """V values for each state (extrinsic, intrinsic, ...), predicted in units of their own running statistics.

    PopArt (van Hasselt et al. 2016, arXiv:1602.07714): the layer learns normalized targets, whatever the scale of the
    rewards. When the statistics change, the layer's weights are rescaled so that no prediction changes. The first
    update of the statistics does not rescale them: it would preserve meaningless predictions, and make the weights huge
    if returns hardly vary.
    """

    def __init__(self, features: int, values: int, generator: torch.Generator) -> None:
        super().__init__()
        self.normal = linear_layer(features, values, VALUE_GAIN, generator)
        self.stats = RunningNorm(values, smallest=SMALLEST_RETURN)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return normalized values: `(B, F)` to `(B, V)`."""
        return self.normal(features)

    @torch.no_grad()
    def update(self, targets: torch.Tensor, values: torch.Tensor, ranks: Ranks = ALONE) -> torch.Tensor:
        """Update the statistics with `targets`; except for the first time, no prediction changes.

        Args:
            targets: `(M, V)`, in units of reward.
            values: `(M, V)`, the predictions for some rows, in units of reward.
            ranks: the statistics are of the targets of all ranks together.

        Returns:
            The new output of `forward` for those rows, `(M, V)`.
        """
        mean, std = self.stats.mean.clone(), self.stats.std.clone()
        first = self.stats(values) if self.stats.count == 0 else None
        self.stats.update(targets, ranks)
        if first is not None:
            return first
        new_mean, new_std = self.stats.mean, self.stats.std
        dtype = self.normal.weight.dtype
        self.normal.weight.mul_((std / new_std).to(dtype).unsqueeze(-1))
        self.normal.bias.copy_((std * self.normal.bias + mean - new_mean) / new_std)
        return self.stats(values)


@torch.no_grad()
def value_head_in_units(
    head: Mapping[str, torch.Tensor], statistics: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return weights and biases with which a `ValueHead` makes the same predictions under other statistics.

    Args:
        head: its `state_dict`.
        statistics: the other `stats.mean`, `stats.var` and `stats.count`.
    """
    old, new = (RunningNorm.of(state, "stats.", smallest=SMALLEST_RETURN) for state in (head, statistics))
    weight, bias = (torch.as_tensor(head[f"normal.{name}"]) for name in ("weight", "bias"))
    return {
        "normal.weight": (weight * (old.std / new.std)[:, None]).to(weight.dtype),
        "normal.bias": ((old.std * bias + old.mean - new.mean) / new.std).to(bias.dtype),
    }
