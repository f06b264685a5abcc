"""What workers do with a block of environments."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import cloudpickle
import numpy as np

from AsyncPPO.backends.apply import Outcomes
from AsyncPPO.backends.base import Compute, EnvFactory, FaultPolicy, Infos, Layout, Plan, Rollout, StepArrays
from AsyncPPO.backends.block import Block, EnvBlock
from AsyncPPO.workers import Channel, Pickled, Tasks
from parallel_rl.utils import seed_global_streams

logger = logging.getLogger(__name__)


@dataclass
class BlockContext:
    """A block of environments, and what is computed beside it."""

    number: int
    """Of the process."""
    block: Block
    learner: Compute | None
    stepping: np.ndarray
    """uint8 `(n,)`: the environments that the next reset or step is for."""
    left_out: set[str] = field(default_factory=set)
    """Entries of infos that could not be sent."""

    def env_ids(self) -> list[int]:
        """Return the environments that the next reset or step is for."""
        return (self.stepping.nonzero()[0] + self.block.first).tolist()

    def waits_for(self) -> str:
        """Say which environment was begun last, as far as is known."""
        return self.block.waits_for()

    def close(self) -> None:
        """Close the environments."""
        self.block.close()


def make_context(
    factories: Sequence[EnvFactory], layout: Layout, plan: Plan | None, fault_policy: FaultPolicy, channel: Channel
) -> BlockContext:
    """Make the environments of a worker; their rows are in the shared memory of `allocate`."""
    arrays, rollout, stepping = allocate(layout, plan, channel.memory())
    first, stop = channel.envs.start, channel.envs.stop
    rollout = None if rollout is None else rollout.part(first, stop)
    block = EnvBlock(factories, first, arrays.rows(first, stop), rollout, fault_policy, channel.pulse)
    return BlockContext(channel.number, block, learner(rollout), stepping[first:stop])


def allocate(
    layout: Layout, plan: Plan | None, memory: Callable[[int], Any]
) -> tuple[StepArrays, Rollout | None, np.ndarray]:
    """Return the arrays that the processes share; `memory(bytes)` gives the buffer behind each."""
    arrays = StepArrays.allocate(layout, memory)
    rollout = None if plan is None else Rollout.allocate(layout, plan, memory)
    return arrays, rollout, np.frombuffer(memory(layout.num_envs), np.uint8)


def learner(rollout: Rollout | None) -> Compute | None:
    """Return what computes gradients in the workspace of a rollout."""
    return None if rollout is None else rollout.replica.learner(rollout.workspace)


def reset(context: BlockContext, seeds: Sequence[int | None], options: dict[str, Any] | None) -> Pickled | None:
    """Reset some environments, one seed each."""
    if seeds[0] is not None:
        seed_global_streams(seeds[0])
    return sendable(context, context.block.reset(context.env_ids(), seeds, options))


def step(context: BlockContext, autoreset: int) -> Pickled | None:
    """Step some environments."""
    return sendable(context, context.block.step(context.env_ids(), bool(autoreset)))


def play(context: BlockContext, start: int, stop: int) -> None:
    """Have the replica play."""
    context.block.play(start, stop)


def compute(context: BlockContext, start: int, stop: int, processes: int) -> None:
    """Compute this process's shards of a gradient."""
    assert context.learner is not None
    context.learner(start, stop, context.number, processes)


def apply(context: BlockContext, function: Callable[[Block], Outcomes]) -> Outcomes:
    """Apply a function to the block."""
    return function(context.block)


def snapshots(context: BlockContext) -> Infos:
    """Return a `Snapshot` of each environment."""
    return context.block.snapshots()


def restore(context: BlockContext, saved: Infos) -> Infos:
    """Restore the environments from snapshots of all."""
    return context.block.restore(saved)


TASKS: Tasks = {task.__name__: task for task in (reset, step, play, compute, apply, snapshots, restore)}


def sendable(context: BlockContext, infos: Infos) -> Pickled | None:
    """Pickle infos, without what cannot leave this process; each entry that is left out is logged once."""
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
            logger.warning("environment %d: its info %r cannot leave its process: %s", index, name, error)
        context.left_out.add(name)
        return False
    return True
