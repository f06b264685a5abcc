"""What ranks that learn together share in an update: the cuts of minibatches, their moments and mean gradients."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch

from parallel_rl.networks import average_vectors
from parallel_rl.utils import Ranks, merged
from PPO.losses import LossMetrics
from PPO.memory import Array


def common_bounds(ranks: Ranks, bounds: list[int]) -> tuple[list[int], list[float]]:
    """Return bounds of as many minibatches as every rank has, and this rank's share of the rows of each.

    A rank that has cut its rows into more joins some of them.
    """
    cuts = ranks.all_gather(bounds)
    parts = min(map(len, cuts)) - 1
    joined = np.array([[cut[(len(cut) - 1) * part // parts] for part in range(parts + 1)] for cut in cuts])
    sizes = np.diff(joined)
    return joined[ranks.rank].tolist(), (sizes[ranks.rank] / sizes.sum(axis=0)).tolist()


def standardize(ranks: Ranks, advantage: Array, bounds: list[int]) -> None:
    """Standardize advantages in place, by the mean and the standard deviation of their minibatch on all ranks.

    Args:
        ranks: the ranks.
        advantage: `(M,)`, shuffled.
        bounds: of the minibatches.
    """
    if ranks.world_size == 1:
        for start, stop in pairwise(bounds):
            advantage[start:stop] = standardized(advantage[start:stop])
        return
    tensor = torch.as_tensor(advantage)  # of an array: a view
    values, sizes = tensor.double().cpu().numpy(), np.diff(bounds)
    own = np.array([(len(part), part.mean(), part.var()) for part in np.split(values, bounds[1:-1])]).T
    count, mean, variance = merged(ranks.all_gather(own))
    std = np.sqrt(variance * count / (count - 1)) + 1e-8
    tensor.copy_(torch.from_numpy((values - mean.repeat(sizes)) / std.repeat(sizes)))


def standardized(advantage: Array) -> Array:
    """Return `(advantage - mean) / std`; a single row is returned unchanged, since it would become 0."""
    if len(advantage) < 2:
        return advantage
    if torch.is_tensor(advantage):
        return (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    centered = advantage - advantage.sum() / len(advantage)  # three times as fast as NumPy's mean and std
    return centered / (np.sqrt(centered @ centered / (len(centered) - 1)) + 1e-8)


def average(ranks: Ranks, gradients: Sequence[torch.Tensor], metrics: LossMetrics, share: float) -> LossMetrics:
    """Turn gradients and metrics, means over this rank's rows of a minibatch, into those over the rows of all ranks.

    Args:
        ranks: the ranks.
        gradients: vectors, changed in place.
        metrics: of this rank's rows.
        share: of this rank in the rows.
    """
    if ranks.world_size == 1:
        return metrics
    numbers = torch.tensor([float(metric) for metric in metrics.values()], device=gradients[0].device)
    average_vectors(ranks, [*gradients, numbers], share)
    return dict(zip(metrics, numbers.tolist(), strict=True))
