"""Ranks: processes that train one agent together, each in its own environments.

What they exchange in an update is its gradients, summed, and the moments of its rows, merged: DD-PPO (Wijmans et al.
2020, arXiv:1911.00357). So all of them have the same weights and statistics.
"""

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any, Protocol

import numpy as np

Moments = tuple[Any, Any, Any]
"""The number of some rows, their mean and their variance: numbers, or arrays of them."""


class Ranks(Protocol):
    """The ranks of a run, as one of them sees them. All of them call the same methods in the same order."""

    number: int
    """Of this rank, from 0."""
    count: int
    """Of all ranks."""

    def total(self, vector: np.ndarray) -> np.ndarray:
        """Return the sum `(P,)` of the vectors of all ranks: on every rank the same to the last bit.

        Raises:
            RankError: a rank failed or was lost; the message names it.
        """

    def gather(self, tree: Any) -> list[Any]:
        """Return what every rank gave, in their order: numbers, strings, arrays, and lists and dicts of these.

        Raises:
            RankError: a rank failed or was lost; the message names it.
        """


class Alone:
    """The ranks of a run in one process: this one."""

    number, count = 0, 1

    def total(self, vector: np.ndarray) -> np.ndarray:
        """Return the vector itself."""
        return vector

    def gather(self, tree: Any) -> list[Any]:
        """Return a list of the tree itself."""
        return [tree]


ALONE = Alone()


class RankError(RuntimeError):
    """Another rank failed or was lost."""


def merged(moments: Sequence[Moments]) -> Moments:
    """Return the moments of the rows of all together; those of one are returned to the last bit.

    Source: Chan et al. 1979, "Updating formulae and a pairwise algorithm for computing sample variances".
    """
    count = reduce(add, (each for each, _, _ in moments))
    shares = [each / count for each, _, _ in moments]
    mean = reduce(add, (share * each for share, (_, each, _) in zip(shares, moments, strict=True)))
    variance = reduce(
        add, (share * (var + (each - mean) ** 2) for share, (_, each, var) in zip(shares, moments, strict=True))
    )
    return count, mean, variance


def mean_metrics(ranks: Ranks, rows: int, metrics: dict[str, float]) -> dict[str, float]:
    """Return the means of metrics, of which each rank has those of `rows` rows."""
    _, mean, _ = merged(ranks.gather((rows, np.array([*metrics.values()]), 0.0)))
    return dict(zip(metrics, mean.tolist(), strict=True))


def stream_of(ranks: Ranks, rng: np.random.Generator) -> np.random.Generator:
    """Return a random stream of this rank, from a generator that is the same on all; alone that generator itself."""
    return rng if ranks.count == 1 else np.random.default_rng([*rng.integers(2**63, size=4), ranks.number])
