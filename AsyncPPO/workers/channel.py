"""The memory, semaphores and pipe that a worker process and its parent share."""

import multiprocessing
import os
import time
from collections.abc import Callable, MutableSequence
from dataclasses import dataclass
from typing import Any

LIVENESS_SECONDS = 0.05
"""Seconds between checks of a waiting parent that its workers are alive."""
CLOSE_SECONDS = 5.0
"""Seconds that workers may take to finish their task and close before they are killed."""
SPIN_SECONDS = 0.0005
"""Seconds that `acquire` polls before it sleeps."""
RESTART_LIMIT = 10
"""Restarts of a worker or environment without a task or step in between; one more is an error."""
CLOSE = -1
"""The task number that ends a worker."""
IN_PIPE = -1
"""Stands for the number of arguments if they are pickled in the pipe."""
MAX_NUMBERS = 4
"""The largest number of integer arguments that a task takes through shared memory."""


class WorkerError(RuntimeError):
    """A task failed, or the process that ran it died or hung; the message names the worker."""


class Pickled(bytes):
    """A result that a task has already pickled."""


NOTHING, RESULT, ERROR = range(3)
"""The replies of a worker; a result or an error is in the pipe."""


class SharedBuffers:
    """Shared memory for a pool, without a name in the file system, so that no crash leaves it behind."""

    def __init__(self, start_method: str | None = None) -> None:
        """Start without buffers, for workers that are started with this method."""
        self._context: Any = multiprocessing.get_context(start_method)
        self.buffers: list[Any] = []

    def allocate(self, size: int) -> Any:
        """Return a zeroed buffer of that many bytes; workers find them in this order."""
        self.buffers.append(self._context.RawArray("b", size))
        return self.buffers[-1]


@dataclass(frozen=True)
class Channel:
    """The shared parts of one worker."""

    number: int
    """Of the process; the parent is 0."""
    name: str
    """The worker's name in errors."""
    envs: range
    """The environments that it steps, if any."""
    buffers: list[Any]
    """Those of `SharedBuffers`."""
    done: Any
    """Semaphore of the whole pool: a worker has replied."""
    spin: bool
    """Whether to poll while waiting, since there is a core for every process."""
    silent: bool
    """Whether the worker makes its context without a reply."""
    control: Any
    """int64 `(3 + MAX_NUMBERS,)`: the task's number, the reply, the number of arguments, and the arguments."""
    beats: Any
    """int64 `(Pulse.SIZE,)`: those of `pulse`."""
    go: Any = None
    """Semaphore: there is a task. This field and the following are new for every process."""
    replied: Any = None
    """Semaphore: this worker has replied."""
    pipe: Any = None
    """A `Connection`."""

    @property
    def numbers(self) -> memoryview:
        """The integers of `control`; access to a view is faster."""
        return memoryview(self.control).cast("B").cast("q")

    @property
    def pulse(self) -> "Pulse":
        """The worker's report of its progress."""
        return Pulse(self.beats)

    def memory(self) -> Callable[[int], Any]:
        """Return a function that returns the buffers one after the other, in the order of their allocation."""
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
        """The number of beats, and the environment of the last one."""
        return self._numbers[0], self._numbers[1]

    @property
    def step(self) -> int:
        """The number of complete steps of the current task."""
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
