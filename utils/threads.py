"""How many threads torch uses."""

from collections.abc import Iterator
from contextlib import contextmanager


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
