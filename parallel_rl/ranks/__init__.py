"""Ranks in several processes, on one machine or on several (docs/scale-out.md)."""

import os
from contextlib import AbstractContextManager, nullcontext

from parallel_rl.utils import ALONE, Cluster, RankError


def ranks_of_environment() -> AbstractContextManager[Cluster]:
    """Connect to the ranks that RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT name; without them this one is alone.

    Raises:
        RankError: a variable is missing, or they cannot be reached.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size < 2:
        return nullcontext(ALONE)
    if missing := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise RankError(f"WORLD_SIZE is {size}, but {' and '.join(missing)} {'are' if missing[1:] else 'is'} not set")
    from parallel_rl.ranks.gloo import connect

    return connect()
