"""Minibatches: how rows are cut and standardized, also on several ranks; gradients by autograd, and by companions."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from parallel_rl.networks import average_vectors
from parallel_rl.utils import Ranks, merged
from parallel_rl.utils.shapes import in_shapes
from PPO.base import PPOBase
from PPO.companions import Companion
from PPO.losses import LossMetrics
from PPO.memory import Array, Rows

Targets = tuple[torch.Tensor, ...]
"""What a companion's `targets` returns."""


class Minibatch(NamedTuple):
    """The data of a gradient step."""

    rows: Rows
    targets: list[Targets]
    """The targets of each companion, for these rows."""

    def __repr__(self) -> str:
        """Return the fields as text, with shapes in place of numbers."""
        return in_shapes(self)


LossOfMinibatch = Callable[[Minibatch], tuple[torch.Tensor, LossMetrics]]


class Autograd:
    """The gradients of the minibatches of an update; `fast.shards.ShardedGradient` is its counterpart."""

    def __init__(
        self, loss: LossOfMinibatch, gradients: Sequence[torch.Tensor], targets: Sequence[Targets] = ()
    ) -> None:
        """Store the loss, the vectors to write its gradients into, and the targets of companions that it includes."""
        self._loss, self._gradients, self._targets = loss, gradients, targets

    def load(self, rows: Rows) -> None:
        """Store the rows."""
        self._rows = rows

    def shuffle(self, order: np.ndarray) -> Rows:
        """Permute the rows by the order `(M,)`; return them."""
        self._order, self._shuffled = order, self._rows.take(torch.from_numpy(order).to(self._rows.obs.device))
        return self._shuffled

    def compute(self, start: int, stop: int) -> LossMetrics:
        """Write the gradient of the minibatch of rows `start` to `stop`; return its metrics.

        Raises:
            TypeError: the loss is not what `PPO.loss` returns.
        """
        for gradient in self._gradients:
            gradient.zero_()
        targets = select_rows(self._targets, self._order[start:stop])
        result = self._loss(Minibatch(self._shuffled.part(start, stop), targets))
        if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], dict):
            raise TypeError(f"loss() must return a loss and a dict of metrics, not {type(result).__name__}")
        loss, metrics = result
        loss.backward()
        return {name: metric.detach() if torch.is_tensor(metric) else metric for name, metric in metrics.items()}


def minibatch_count(rows: int, mini_batch_size: int) -> int:
    """Return the number of minibatches, of at most that size."""
    return -(-rows // mini_batch_size)


def shuffled(rows: Rows, parts: int, rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
    """Return a random order `(M,)` of the rows, and the bounds of equal parts.

    For a recurrent policy, sequences stay whole, so parts are only about equal, and fewer if there are few sequences.
    """
    count = len(rows.obs)
    if rows.starts is None:
        return rng.permutation(count), sorted({count * part // parts for part in range(parts + 1)})
    sequences = np.split(np.arange(count), np.flatnonzero(rows.starts.cpu())[1:])
    sequences = [sequences[index] for index in rng.permutation(len(sequences))]
    ends = np.cumsum([0, *map(len, sequences)])
    # the bounds are the ends of sequences that are nearest to those of equal parts
    nearest = np.abs(ends - np.linspace(0, count, parts + 1)[:, None]).argmin(axis=1)
    return np.concatenate(sequences), sorted({*ends[nearest].tolist()})


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


def select_rows(targets: Sequence[Targets], index: np.ndarray) -> list[Targets]:
    """Return the rows `index` `(k,)` of the targets of each companion."""
    return [tuple(tensor[index] for tensor in own) for own in targets]


def add_companion_gradients(
    ppo: PPOBase, targets: list[Targets], index: np.ndarray, rng: np.random.Generator
) -> LossMetrics:
    """Compute the gradients of the companions' losses on some rows, added to the policy's own; return the losses."""
    for optimizer in ppo.optimizers[1:]:
        optimizer.gradient.zero_()
    losses = companion_losses(ppo, select_rows(targets, index), rng)
    for companion, loss in losses.items():
        if not loss.requires_grad:
            raise TypeError(f"the loss of {companion.name} has no gradient: none of its parameters is in it")
        loss.backward()
    return {loss_name(companion): loss.detach() for companion, loss in losses.items()}


def companion_losses(ppo: PPOBase, targets: list[Targets], rng: np.random.Generator) -> dict[Companion, torch.Tensor]:
    """Return the loss of each companion that has one, for the targets of a minibatch.

    It has a gradient for the policy only if the companion `shares`.

    Raises:
        TypeError: it is not a tensor with one number.
    """
    losses = {}
    for companion, own in zip(ppo.companions, targets, strict=True):
        if not companion.learns:
            continue
        with nullcontext() if companion.shares else frozen(ppo.policy):
            loss = losses[companion] = companion.loss(own, rng, ppo.policy)
        if not torch.is_tensor(loss) or loss.numel() != 1:
            what = f"a tensor {tuple(loss.shape)}" if torch.is_tensor(loss) else f"{loss!r:.100}"
            raise TypeError(f"the loss of {companion.name} must be a tensor with one number, not {what}")
    return losses


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Let what is computed within the block have no gradient for the parameters of a module."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def loss_name(companion: Companion) -> str:
    """Return the name of the metric for a companion's loss."""
    return f"{companion.name.lower()}_loss"


def average_over_ranks(
    ranks: Ranks, gradients: Sequence[torch.Tensor], metrics: LossMetrics, share: float
) -> LossMetrics:
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


def means(steps: Sequence[LossMetrics]) -> dict[str, float]:
    """Return the mean of each metric over the steps; if one is infinite or NaN, the metrics of the first such step."""
    values = {name: [step[name] for step in steps] for name in steps[0]}
    result = {
        name: float(torch.stack(each).mean() if torch.is_tensor(each[0]) else np.mean(each))
        for name, each in values.items()
    }
    if np.isfinite([*result.values()]).all():
        return result
    numbers = [{name: float(value) for name, value in step.items()} for step in steps]
    return next((step for step in numbers if not np.isfinite([*step.values()]).all()), result)
