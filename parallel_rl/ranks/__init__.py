"""Ranks in several processes, on one machine or on several (docs/scale-out.md)."""

import os
from contextlib import AbstractContextManager, nullcontext

from parallel_rl.utils import ALONE, Cluster


def ranks_of_environment() -> AbstractContextManager[Cluster]:
    """Connect to the ranks that RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT name; without them this one is alone.

    Raises:
        RankError: they cannot be reached.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "MASTER_ADDR" not in os.environ:
        return nullcontext(ALONE)
    from parallel_rl.ranks.gloo import connect

    return connect()
