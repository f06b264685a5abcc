"""The number of threads of torch and NumPy."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

LARGE_NETWORK = 1_000_000
"""With at least this many parameters, torch's overhead is small, and several threads are faster than one."""


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Run the block with torch on `count` threads (None: no change); restore the number afterwards.

    Torch's threads busy-wait for each other. If workers use the other cores, a small network on several threads is many
    times slower than on one.
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
    """Limit the threads of NumPy's matrix products in the block; this costs tens of microseconds."""
    with _blas().limit(limits=count, user_api="blas"):
        yield


@contextmanager
def compute_threads(count: int | None) -> Iterator[None]:
    """Limit the threads of torch and NumPy in the block."""
    with torch_threads(count), blas_threads(count):
        yield


def one_torch_thread() -> None:
    """Set torch to one thread from now on, if it is imported."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):  # another thread may be importing it
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    # A fork has none of torch's threads, so torch in it would wait for them forever.
    os.register_at_fork(after_in_child=one_torch_thread)


@lru_cache
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
