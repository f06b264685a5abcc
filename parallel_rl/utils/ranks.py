"""Ranks: processes that train one agent together, each in its own environments.

What they exchange in an update is its gradients, summed, and the moments of its rows, merged: DD-PPO (Wijmans et al.
2020, arXiv:1911.00357). So all of them have the same weights and statistics.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from parallel_rl.utils.state import State

if TYPE_CHECKING:
    from torch import Tensor

Result = TypeVar("Result")
Moments = tuple[Any, Any, Any]
"""The number of some rows, their mean and their variance: numbers, or arrays of them."""


class Ranks(Protocol):
    """The ranks of a run, as one of them sees them. All of them call the same methods in the same order."""

    rank: int
    """The number of this rank, from 0."""
    world_size: int
    """The number of ranks."""

    def all_reduce(self, vector: "Tensor") -> "Tensor":
        """Return the sum `(P,)` of the vectors of all ranks: on every rank the same to the last bit.

        Raises:
            RankError: a rank failed or was lost; the message names it.
        """

    def all_gather(self, tree: Any) -> list[Any]:
        """Return what every rank gave, in their order: numbers, strings, arrays, and lists and dicts of these.

        Raises:
            RankError: a rank failed or was lost; the message names it.
        """

    def gather(self, tree: Any) -> list[Any] | None:
        """Return on rank 0 what `all_gather` returns on all, and None on the others, to which nothing is sent.

        Raises:
            RankError: a rank failed or was lost; the message names it.
        """


class Cluster(Ranks):
    """The ranks of a run, as its trainer sees them: here the same ones until its end.

    Those of an `Elastic` change: between two updates some may be lost, and others may join.
    """

    rank = node = 0
    """`node` is which share of the environments this rank has; node 0 also writes the files."""
    world_size = nodes = 1
    """`nodes` is the number of shares."""
    elastic = False
    """Whether the ranks may change."""
    joined = 0
    """0 for the ranks of the beginning, another number for each that joined later."""
    preempt: float | None = None
    """Once this fraction of the ranks has collected its share, the others stop collecting; None: all wait."""

    def join(self) -> State | None:
        """Connect to the others; return the state of the run that they gave, or None if it begins now.

        Raises:
            RankError: the run is over.
        """
        return None

    def enough_have_collected(self, *, own: bool = False) -> bool:
        """Return whether the fraction `preempt` of the ranks has collected its share; with `own`, so has this rank."""
        return False

    def attempt(self, work: Callable[[Ranks], Result], savepoint: Callable[[], Callable[[], None]]) -> Result:
        """Do work that all ranks do, or none: if one is lost, those that are left undo it, and repeat it.

        Here a lost rank is an error.

        Args:
            work: is called with the ranks.
            savepoint: returns a function that undoes the work.

        Returns:
            What `work` returns.
        """
        return work(self)

    def candidates(self) -> list[Any]:
        """Return what this rank knows of ranks that are ready to join."""
        return []

    def admit(self, candidates: list[list[Any]], state: Callable[[], State]) -> bool:
        """Let ranks in that are ready, or wait if there are too few; return whether the ranks should ask again.

        Args:
            candidates: what `candidates` returned on each rank.
            state: returns the state of the run.
        """
        return False


class Alone(Cluster):
    """The ranks of a run in one process: this one."""

    def __repr__(self) -> str:
        """Return the name of the only one, which signatures show as a default."""
        return "ALONE"

    def all_reduce(self, vector: "Tensor") -> "Tensor":
        """Return the vector itself."""
        return vector

    def all_gather(self, tree: Any) -> list[Any]:
        """Return a list of the tree itself."""
        return [tree]

    def gather(self, tree: Any) -> list[Any]:
        """Return a list of the tree itself."""
        return [tree]


ALONE = Alone()


class RankError(RuntimeError):
    """Another rank failed or was lost."""


def merged(moments: Sequence[Moments]) -> Moments:
    """Return the moments of all rows together; a single entry is returned bit for bit.

    Source: Chan et al. 1979, "Updating formulae and a pairwise algorithm for computing sample variances".
    """
    count = reduce(add, (each for each, _, _ in moments))
    shares = [each / count for each, _, _ in moments]
    mean = reduce(add, (share * each for share, (_, each, _) in zip(shares, moments, strict=True)))
    variance = reduce(
        add, (share * (var + (each - mean) ** 2) for share, (_, each, var) in zip(shares, moments, strict=True))
    )
    return count, mean, variance


def mean_metrics(ranks: Ranks, rows: float, metrics: dict[str, float]) -> dict[str, float]:
    """Return the means of metrics over all ranks; each rank's count as `rows`, a number or a fraction of all rows."""
    _, mean, _ = merged(ranks.all_gather((rows, np.array([*metrics.values()]), 0.0)))
    return dict(zip(metrics, mean.tolist(), strict=True))


def stream_of(ranks: Ranks, rng: np.random.Generator) -> np.random.Generator:
    """Return a random stream of this rank, from a generator that is the same on all; alone that generator itself."""
    return rng if ranks.world_size == 1 else np.random.default_rng([*rng.integers(2**63, size=4), ranks.rank])


@contextmanager
def own_stream(ranks: Ranks, rng: np.random.Generator) -> Iterator[None]:
    """Let a generator that is the same on all ranks be `stream_of` this rank within the block."""
    if ranks.world_size == 1:
        yield
        return
    own, common = stream_of(ranks, rng).bit_generator.state, rng.bit_generator.state
    rng.bit_generator.state = own
    try:
        yield
    finally:
        rng.bit_generator.state = common
