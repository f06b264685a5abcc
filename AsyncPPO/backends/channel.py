"""What a worker process and its parent share."""

import os
import time
from collections.abc import MutableSequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from AsyncPPO.backends.base import Layout, Plan, Rollout, StepArrays

LIVENESS_SECONDS = 0.05
"""How often a parent that waits looks whether its workers are still there."""
CLOSE_SECONDS = 5.0
"""How long workers may take to finish their step and close their environments before they are killed."""
SPIN_SECONDS = 0.0005
"""How long it looks for an answer without sleeping."""


class Command(IntEnum):
    """What the parent asks of a worker."""

    MAKE = 0
    RESET = 1
    STEP = 2
    STEP_AUTORESET = 3
    PLAY = 4
    COMPUTE = 5
    SNAPSHOTS = 6
    RESTORE = 7
    APPLY = 8
    CLOSE = 9


class Reply(IntEnum):
    """How the worker answered; infos and errors have a message in the pipe."""

    OK = 0
    INFOS = 1
    ERROR = 2


@dataclass(frozen=True)
class Channel:
    """The shared parts; the arrays are the same for all workers."""

    number: int
    """Of the process among all that step; the parent is 0."""
    first: int
    stop: int
    arrays: Any
    """Raw shared buffers of the `StepArrays` of all environments and of the `Rollout`, in the order of their fields."""
    stepping: Any
    """uint8 `(N,)`: the environments that the next step is for."""
    control: Any
    """int64 `(5,)`: the `Command`, the `Reply`, and numbers that go with the command."""
    pulse: Any
    """int64 `(4,)`: see `Pulse`."""
    done: Any
    """Semaphore: some worker has replied; one for all of them."""
    spin: bool
    """Whether waiting may spin, since there is a core for every process that steps."""
    go: Any = None
    """Semaphore: there is a command. This and what follows is made for every process anew."""
    replied: Any = None
    """Semaphore: this worker has replied."""
    pipe: Any = None
    """A `Connection`."""

    @property
    def envs(self) -> range:
        """Its environments."""
        return range(self.first, self.stop)

    @property
    def name(self) -> str:
        """What errors call the worker."""
        return f"the worker of environments {self.first} to {self.stop - 1}"

    def views(self, layout: Layout, plan: Plan | None) -> tuple[StepArrays, Rollout | None, np.ndarray]:
        """Return this worker's part of the arrays, of the rollout and of `stepping`."""
        buffers = iter(self.arrays)
        arrays = StepArrays.allocate(layout, lambda size: next(buffers)).rows(self.first, self.stop)
        rollout = None
        if plan is not None:
            rollout = Rollout.allocate(layout, plan, lambda size: next(buffers)).part(self.first, self.stop)
        return arrays, rollout, np.frombuffer(self.stepping, np.uint8)[self.first : self.stop]


class Pulse:
    """What goes on in a block, in integers that another process may watch."""

    SIZE = 4

    def __init__(self, numbers: MutableSequence[int] | None = None) -> None:
        """Keep the integers."""
        self._numbers = [0] * self.SIZE if numbers is None else numbers

    def beat(self, env_id: int) -> None:
        """Say which environment comes next."""
        self._numbers[0] += 1
        self._numbers[1] = env_id

    @property
    def last(self) -> tuple[int, int]:
        """How many steps and resets were begun, and in which environment the last."""
        return self._numbers[0], self._numbers[1]

    @property
    def step(self) -> int:
        """Up to which step a play is complete; what the environments saw then is in the rows."""
        return self._numbers[2]

    @step.setter
    def step(self, step: int) -> None:
        self._numbers[2] = step

    @property
    def restarts(self) -> int:
        """How many environments were started anew."""
        return self._numbers[3]

    @restarts.setter
    def restarts(self, restarts: int) -> None:
        self._numbers[3] = restarts


def acquire(semaphore: Any, spin: bool, seconds: float | None) -> bool:
    """Wait for a semaphore, at most some seconds (None: for ever); with `spin`, yield the core before sleeping."""
    if spin:
        end = time.perf_counter() + SPIN_SECONDS
        while time.perf_counter() < end:
            if semaphore.acquire(False):
                return True
            os.sched_yield()
    return semaphore.acquire(timeout=seconds)
