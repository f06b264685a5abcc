"""Independent random streams from one seed, and the global random streams of a process."""

import operator
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np


def spawn_seeds(seed: int | None, count: int) -> list[int]:
    """Return `count` seeds, one for each independent stream; the first k do not depend on `count`.

    Args:
        seed: the seed of the seeds; None takes fresh entropy from the operating system.
        count: the number of seeds.

    Raises:
        ValueError: `seed` is negative.
    """
    if seed is not None and seed < 0:
        raise ValueError(f"seed must not be negative, not {seed}")
    return [int(child.generate_state(1)[0]) for child in np.random.SeedSequence(seed).spawn(count)]


def restart_seed(seed: int, restarts: int) -> int:
    """Return the seed of a process that has been restarted `restarts` times, so that it does not repeat its streams."""
    return int(np.random.SeedSequence([seed, restarts]).generate_state(1)[0]) if restarts else seed


def env_seeds(seed: int | Sequence[int] | None, count: int) -> list[int]:
    """Return a seed for each of `count` environments: the given list, or seeds that `spawn_seeds` makes of one.

    Raises:
        TypeError: a seed is not a whole number.
        ValueError: a seed is negative, or the list does not have `count` seeds.
    """
    if seed is None or isinstance(seed, int | np.integer):
        return spawn_seeds(seed, count)
    try:
        seeds = [*map(operator.index, seed)]
    except TypeError:
        raise TypeError(f"seed must be a whole number, or one for each environment, not {seed!r}") from None
    if len(seeds) != count:
        raise ValueError(f"there are {len(seeds)} seeds for {count} environments: give a number, or one for each")
    if min(seeds) < 0:
        raise ValueError(f"seeds must not be negative, not {min(seeds)}")
    return seeds


def seed_global_streams(seed: int | None) -> None:
    """Seed the global random streams of this process: Python's, NumPy's and, where it has been imported, torch's."""
    (number,) = spawn_seeds(seed, 1)
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.manual_seed(number)


@contextmanager
def global_streams_kept() -> Iterator[None]:
    """Restore the global random streams of this process after the block."""
    states = _global_streams()
    try:
        yield
    finally:
        _set_global_streams(states)


class OwnStreams:
    """Gives some blocks of code global random streams of their own; the rest of the process keeps its own."""

    def __init__(self, seed: int | None) -> None:
        self._seed = seed
        self._states: Any = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Use the separate streams during a block."""
        with global_streams_kept():
            if self._states is None:
                seed_global_streams(self._seed)
            else:
                _set_global_streams(self._states)
            try:
                yield
            finally:
                self._states = _global_streams()


def _global_streams() -> tuple[Any, Any, Any]:
    torch = sys.modules.get("torch")
    return random.getstate(), np.random.get_state(), torch and torch.get_rng_state()  # noqa: NPY002


def _set_global_streams(states: tuple[Any, Any, Any]) -> None:
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    if states[2] is not None:
        sys.modules["torch"].set_rng_state(states[2])
