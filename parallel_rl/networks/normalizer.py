"""Running statistics that are saved with a network's weights."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import nn

from parallel_rl.utils import ALONE, Ranks, merged


class RunningNorm(nn.Module):
    """Normalizes by the mean and the variance of everything it has been updated with.

    Until the first update it is the identity. The statistics are float64 buffers, so they are part of the module's
    `state_dict`. Only `update` and `rescale` change them.
    """

    mean: torch.Tensor
    var: torch.Tensor
    count: torch.Tensor
    std: torch.Tensor
    """`(D,)`, never zero: stored in addition to `var`, since every forward pass needs it."""

    def __init__(self, features: int, clip: float | None = None, smallest: float = 1e-6) -> None:
        """Start with no statistics.

        Args:
            features: D.
            clip: limit on the absolute values that `forward` returns.
            smallest: standard deviation below which differences count as rounding errors.
        """
        super().__init__()
        self.clip, self._smallest = clip, smallest
        self.register_buffer("mean", torch.zeros(features, dtype=torch.float64))
        self.register_buffer("var", torch.ones(features, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("std", torch.ones(features, dtype=torch.float64), persistent=False)
        self._set_std()

    @classmethod
    def of(cls, state: Mapping[str, Any], prefix: str = "", clip: float | None = None, smallest: float = 1e-6) -> Self:
        """Return one with the statistics that a `state_dict` has under `prefix`."""
        moments = {name: torch.as_tensor(state[prefix + name]) for name in ("mean", "var", "count")}
        norm = cls(len(moments["mean"]), clip, smallest).to(moments["mean"].device)
        norm.load_state_dict(moments)
        return norm

    @torch.no_grad()
    def update(self, rows: torch.Tensor, ranks: Ranks = ALONE) -> None:
        """Merge the moments of `rows` `(M, D)`, and of the rows that other ranks have, into the statistics.

        Source: Chan et al. 1979, "Updating formulae and a pairwise algorithm for computing sample variances".
        """
        rows = rows.to(self.mean)
        own = (rows.mean(dim=0), rows.var(dim=0, correction=0)) if len(rows) else (self.mean, self.var)
        new_count, *mean_and_var = merged(ranks.all_gather((len(rows), *own)))
        new_mean, new_var = (torch.as_tensor(moment, device=rows.device) for moment in mean_and_var)
        total = self.count + new_count
        delta = new_mean - self.mean
        mean = self.mean + delta * new_count / total
        square_sum = self.var * self.count + new_var * new_count + delta**2 * self.count * new_count / total
        self.mean.copy_(mean)
        self.var.copy_(square_sum / total)
        self.count.copy_(total)
        self._set_std()

    @torch.no_grad()
    def rescale(self, dimension: int, factor: float) -> None:
        """Rescale the statistics of one dimension, as if its rows had been `factor` times as large."""
        self.mean[dimension] *= factor
        self.var[dimension] *= factor**2
        self._set_std()

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return `(rows - mean) / std`, clipped: `(B, D)` to `(B, D)`."""
        normal = (rows - self.mean.to(rows.dtype)) / self.std.to(rows.dtype)
        return normal if self.clip is None else normal.clamp(-self.clip, self.clip)

    def leading(self, columns: torch.Tensor) -> torch.Tensor:
        """Return columns `(B, C)` as float32, of which the first D are normalized."""
        count = len(self.mean)
        normal = self(columns[:, :count].float())
        return normal if count == columns.shape[1] else torch.cat([normal, columns[:, count:].float()], dim=1)

    def inverse(self, normal: torch.Tensor) -> torch.Tensor:
        """Return `normal * std + mean`: the inverse of `forward`, except for the clipping."""
        return normal * self.std.to(normal.dtype) + self.mean.to(normal.dtype)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._set_std()

    @torch.no_grad()
    def _set_std(self) -> None:
        """Set the square root of the variance plus an epsilon.

        The epsilon is at most 1e-8. For a small variance it is a hundredth of it, plus float32's rounding error.
        """
        epsilon = 0.01 * self.var + 1e-12 * self.mean**2
        self.std.copy_((self.var + epsilon.clamp(self._smallest**2, 1e-8)).sqrt())


@torch.no_grad()
def renormalize_inputs(weight: torch.Tensor, bias: torch.Tensor, old: RunningNorm, new: RunningNorm) -> None:
    """Convert a linear layer, in place, from inputs that `old` normalizes to inputs that `new` normalizes.

    With x = (o - mean) / std and x' = (o - mean') / std', it computes the same:

        W x + b = W std' / std x' + b + W (mean' - mean) / std

    Only where `old` or `new` clips an input the outputs differ. The factor std' / std is at most `old.clip`, so that
    weights of a number that hardly varied under `old` do not become huge.

    Args:
        weight: `(..., inputs, outputs)`; the first inputs are the normalized ones.
        bias: `(..., outputs)`.
        old: the present statistics.
        new: the other statistics.
    """
    own = weight[..., : len(old.mean), :]
    shift = old(new.mean) @ own.double()
    bias += shift.view_as(bias).to(bias.dtype)
    own *= (new.std / old.std).clamp(max=old.clip)[:, None].to(own.dtype)


def merged_statistics(states: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """Return the statistics of all `RunningNorm`s in several `state_dict`s of the same module, merged, by name.

    Mean and variance are those of all rows together. The count is the mean of the counts, not their sum: modules that
    are merged again and again share the rows of the merges before, and a sum would count these several times, so that
    the statistics would soon hardly change.
    """
    statistics: dict[str, torch.Tensor] = {}
    for prefix in [name.removesuffix("count") for name in states[0] if name.endswith("count")]:
        if not {f"{prefix}mean", f"{prefix}var"} <= states[0].keys():
            continue
        counts, means, variances = (
            torch.stack([torch.as_tensor(state[prefix + part]) for state in states])
            for part in ("count", "mean", "var")
        )
        weights = counts if counts.any() else torch.ones_like(counts)
        _, mean, variance = merged([*zip(weights, means, variances, strict=True)])
        statistics |= {f"{prefix}mean": mean, f"{prefix}var": variance, f"{prefix}count": counts.mean()}
    return statistics
