"""How many threads torch and NumPy use."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Run the block with torch on `count` threads (None: as many as it has); leave the setting as it was found.

    Torch's threads spin while they wait for each other: beside workers that use the other cores, a small network on
    several threads is many times slower than on one.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def blas_threads(count: int | None) -> Iterator[None]:
    """Do the same for the matrix products of NumPy; this costs tens of microseconds."""
    with _blas().limit(limits=count, user_api="blas"):
        yield


@contextmanager
def compute_threads(count: int | None) -> Iterator[None]:
    """Do both."""
    with torch_threads(count), blas_threads(count):
        yield


@lru_cache
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
