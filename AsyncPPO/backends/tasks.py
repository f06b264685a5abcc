"""The tasks of processes that have a block of environments; a further one is a function in `TASKS`."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import cloudpickle

from AsyncPPO.backends.apply import Outcomes
from AsyncPPO.backends.base import Infos
from AsyncPPO.backends.block import Block
from AsyncPPO.backends.context import BlockContext
from AsyncPPO.backends.gradients import compute
from AsyncPPO.backends.replicas import roll_out
from AsyncPPO.workers import Pickled, Tasks
from parallel_rl.utils import seed_global_streams

logger = logging.getLogger(__name__)


def reset(context: BlockContext, seeds: Sequence[int | None], options: dict[str, Any] | None) -> Pickled | None:
    """Reset some environments, one seed each."""
    if seeds[0] is not None:
        seed_global_streams(seeds[0])
    return sendable(context, context.block.reset(context.env_ids(), seeds, options))


def step(context: BlockContext, autoreset: int) -> Pickled | None:
    """Step some environments."""
    infos = context.block.step(context.env_ids(), bool(autoreset))
    return sendable(context, infos) if infos else None


def apply(context: BlockContext, function: Callable[[Block], Outcomes]) -> Outcomes:
    """Apply a function to the block."""
    return function(context.block)


def snapshots(context: BlockContext) -> Infos:
    """Return a `Snapshot` of each environment."""
    return context.block.snapshots()


def restore(context: BlockContext, saved: Infos) -> Infos:
    """Restore the environments from snapshots of all."""
    return context.block.restore(saved)


TASKS: Tasks = {task.__name__: task for task in (reset, step, roll_out, compute, apply, snapshots, restore)}


def sendable(context: BlockContext, infos: Infos) -> Pickled | None:
    """Pickle infos without the entries that cannot be pickled; each entry that is left out is logged once."""
    if not infos:
        return None
    try:
        return Pickled(cloudpickle.dumps(infos))
    except Exception:
        return Pickled(
            cloudpickle.dumps(
                {
                    index: {name: value for name, value in info.items() if _can_be_sent(context, index, name, value)}
                    for index, info in infos.items()
                }
            )
        )


def _can_be_sent(context: BlockContext, index: int, name: str, value: Any) -> bool:
    try:
        cloudpickle.dumps(value)
    except Exception as error:
        if name not in context.left_out:
            logger.warning("environment %d: its info %r cannot be pickled: %s", index, name, error)
        context.left_out.add(name)
        return False
    return True
