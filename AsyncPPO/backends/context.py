"""The state of a process that has a block of environments."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from AsyncPPO.backends.base import EnvFactory, FaultPolicy, Layout, StepArrays
from AsyncPPO.backends.block import Block, EnvBlock
from AsyncPPO.backends.rollout import Plan, Rollout
from AsyncPPO.workers import Channel


@dataclass
class BlockContext:
    """A block of environments, and the replica and gradient worker of its process."""

    number: int
    """The number of the process."""
    block: Block
    stepping: np.ndarray
    """uint8 `(n,)`: the environments that the next reset or step is for."""
    rollout: Rollout | None = None
    """The rollout of these environments; None without a plan."""
    left_out: set[str] = field(default_factory=set)
    """Entries of infos that could not be pickled."""

    def __post_init__(self) -> None:
        """Make the replica and the gradient worker, if there is a plan."""
        if self.rollout is not None:
            replica = self.rollout.replica
            self.policy = replica.policy(self.rollout.weights)
            self.gradient_worker = replica.gradient_worker(self.rollout.workspace)

    def env_ids(self) -> list[int]:
        """Return the environments that the next reset or step is for."""
        return (self.stepping.nonzero()[0] + self.block.first).tolist()

    def describe_wait(self) -> str:
        """Return which environment was stepped or reset last, as far as is known."""
        return self.block.describe_wait()

    def close(self) -> None:
        """Close the environments."""
        self.block.close()


def make_context(
    factories: Sequence[EnvFactory], layout: Layout, plan: Plan | None, fault_policy: FaultPolicy, channel: Channel
) -> BlockContext:
    """Make the environments of a worker; their rows are in shared memory."""
    arrays, rollout, stepping = shared_arrays(layout, plan, channel.memory())
    first, stop = channel.envs.start, channel.envs.stop
    block = EnvBlock(factories, first, arrays.rows(first, stop), fault_policy, channel.pulse)
    part = None if rollout is None else rollout.part(first, stop)
    return BlockContext(channel.number, block, stepping[first:stop], part)


def shared_arrays(
    layout: Layout, plan: Plan | None, memory: Callable[[int], Any]
) -> tuple[StepArrays, Rollout | None, np.ndarray]:
    """Return the arrays that processes share; `memory(bytes)` gives the buffer behind each.

    Returns:
        The rows of the environments, the rollout, and uint8 `(N,)`: the environments that the next step is for.
    """
    arrays = StepArrays.allocate(layout, memory)
    rollout = None if plan is None else Rollout.allocate(layout, plan, memory)
    return arrays, rollout, np.frombuffer(memory(layout.num_envs), np.uint8)
