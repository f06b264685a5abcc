"""The memory, semaphores and pipe that a worker process and its parent share."""

import os
import time
from collections.abc import Callable, MutableSequence
from dataclasses import dataclass
from typing import Any

from AsyncPPO.workers.contexts import context_of

LIVENESS_SECONDS = 0.05
"""Seconds between the checks of a waiting parent whether its workers are alive."""
CLOSE_SECONDS = 5.0
"""Seconds that workers may take to finish their task and close before they are killed."""
SPIN_SECONDS = 0.0005
"""Seconds that `acquire` polls before it sleeps."""
RESTART_LIMIT = 10
"""How often a worker is restarted without finishing a task, or an environment without a step, before it is an error."""
CLOSE = -1
"""The task number that ends a worker."""
IN_PIPE = -1
"""In place of the number of arguments: they are pickled in the pipe."""
MAX_NUMBERS = 4
"""The largest number of integer arguments that a task takes through shared memory."""


class WorkerError(RuntimeError):
    """A task failed, or the process that ran it died or hung; the message names the worker."""


class Pickled(bytes):
    """A result that a task has already pickled."""


NOTHING, RESULT, ERROR = range(3)
"""The replies of a worker: the task returned None, or a result or an error follows in the pipe."""


class SharedBuffers:
    """Shared memory of a pool. It has no name in the file system, so a crash leaves nothing behind."""

    def __init__(self, start_method: str | None = None) -> None:
        """Start without buffers; `start_method` is that of the workers."""
        self._context = context_of(start_method)
        self.buffers: list[Any] = []

    def allocate(self, size: int) -> Any:
        """Return a zeroed buffer of `size` bytes; workers get the buffers in the order of allocation."""
        self.buffers.append(self._context.RawArray("b", size))
        return self.buffers[-1]


@dataclass(frozen=True)
class Channel:
    """The shared parts of one worker."""

    number: int
    """The number of the process; the parent is 0."""
    name: str
    """The worker's name in errors."""
    envs: range
    """The environments that it steps, if any."""
    buffers: list[Any]
    """The buffers of the pool's `SharedBuffers`."""
    done: Any
    """Semaphore of the whole pool, released when a worker has replied."""
    spin: bool
    """Whether to poll while waiting; true if every process has a core."""
    silent: bool
    """Whether the worker makes its context without replying."""
    control: Any
    """int64 `(3 + MAX_NUMBERS,)`: the task's number, the reply, the number of arguments, and the arguments."""
    beats: Any
    """int64 `(Pulse.SIZE,)`: the integers of `pulse`."""
    go: Any = None
    """Semaphore, released when there is a task. A new process gets a new one, and new ones of the next two."""
    replied: Any = None
    """Semaphore, released when this worker has replied."""
    pipe: Any = None
    """The `Connection` to the other process."""
    restarts: int = 0
    """The number of earlier processes of this worker, which died or hung."""

    @property
    def numbers(self) -> memoryview:
        """The integers of `control`, as a view, which is faster to access."""
        return memoryview(self.control).cast("B").cast("q")

    @property
    def pulse(self) -> "Pulse":
        """The worker's report of its progress."""
        return Pulse(self.beats)

    def memory(self) -> Callable[[int], Any]:
        """Return a function whose calls return the buffers, in the order of allocation."""
        buffers = iter(self.buffers)
        return lambda size: next(buffers)


class Pulse:
    """A worker's progress, in integers that the parent may read at any time."""

    SIZE = 4

    def __init__(self, numbers: MutableSequence[int] | None = None) -> None:
        """Take the integers, `SIZE` of them."""
        self._numbers = [0] * self.SIZE if numbers is None else numbers

    def beat(self, env_id: int) -> None:
        """Report which environment the worker steps or resets now."""
        self._numbers[0] += 1
        self._numbers[1] = env_id

    @property
    def last(self) -> tuple[int, int]:
        """The number of beats, and the environment of the last beat."""
        return self._numbers[0], self._numbers[1]

    @property
    def step(self) -> int:
        """How far the worker is: the row of the rollout that it fills, or the steps that its member has done."""
        return self._numbers[2]

    @step.setter
    def step(self, step: int) -> None:
        self._numbers[2] = step

    @property
    def restarts(self) -> int:
        """The number of environments that the worker has restarted."""
        return self._numbers[3]

    @restarts.setter
    def restarts(self, restarts: int) -> None:
        self._numbers[3] = restarts


def acquire(semaphore: Any, spin: bool, seconds: float | None) -> bool:
    """Wait for a semaphore, at most some seconds (None: without limit); with `spin`, poll before sleeping."""
    if spin:
        end = time.perf_counter() + SPIN_SECONDS
        while time.perf_counter() < end:
            if semaphore.acquire(False):
                return True
            os.sched_yield()
    return semaphore.acquire(timeout=seconds)
