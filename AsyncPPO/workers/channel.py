"""What a worker process and its parent share."""

import multiprocessing
import os
import time
from collections.abc import Callable, MutableSequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

LIVENESS_SECONDS = 0.05
"""How often a waiting parent checks that its workers are alive."""
CLOSE_SECONDS = 5.0
"""How long workers may take to finish their task and close before they are killed."""
SPIN_SECONDS = 0.0005
"""How long `acquire` polls before it sleeps."""
RESTART_LIMIT = 10
"""How often a worker or an environment is restarted without a task or step in between, before that is an error."""
CLOSE = -1
"""The task number that ends a worker."""
IN_PIPE = -1
"""The number of arguments, where they are pickled in the pipe."""
MAX_NUMBERS = 4
"""How many whole numbers a task takes through shared memory."""


class WorkerError(RuntimeError):
    """A task failed, or the process that ran it died or hung; the message names the worker."""


class Pickled(bytes):
    """A result that a task has pickled by itself."""


class Reply(IntEnum):
    """How a task ended; results and errors are in the pipe."""

    NOTHING = 0
    RESULT = 1
    ERROR = 2


class SharedBuffers:
    """Shared memory for a pool, without a name in the file system, so that no crash leaves it behind."""

    def __init__(self, start_method: str | None = None) -> None:
        """Begin with none, for workers that are started this way."""
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
    """What errors call the worker."""
    envs: range
    """The environments that it serves, if it does."""
    buffers: list[Any]
    """Those of `SharedBuffers`."""
    done: Any
    """Semaphore of the whole pool: some worker has replied."""
    spin: bool
    """Whether waiting may poll, since there is a core for every process."""
    silent: bool
    """Whether the worker makes its context without a reply."""
    control: Any
    """int64 `(3 + MAX_NUMBERS,)`: the task's number, the `Reply`, how many arguments there are, and these."""
    beats: Any
    """int64 `(Pulse.SIZE,)`: those of `pulse`."""
    go: Any = None
    """Semaphore: there is a task. This and what follows is new for every process."""
    replied: Any = None
    """Semaphore: this worker has replied."""
    pipe: Any = None
    """A `Connection`."""

    @property
    def pulse(self) -> "Pulse":
        """Where the worker says what goes on."""
        return Pulse(self.beats)

    def memory(self) -> Callable[[int], Any]:
        """Return what gives the buffers one after the other, in the order in which they were allocated."""
        buffers = iter(self.buffers)
        return lambda size: next(buffers)


class Pulse:
    """What a worker is doing, in integers that the parent may read at any time."""

    SIZE = 4

    def __init__(self, numbers: MutableSequence[int] | None = None) -> None:
        """Take the integers, `SIZE` of them."""
        self._numbers = [0] * self.SIZE if numbers is None else numbers

    def beat(self, env_id: int) -> None:
        """Say which environment the worker turns to."""
        self._numbers[0] += 1
        self._numbers[1] = env_id

    @property
    def last(self) -> tuple[int, int]:
        """How many beats there were, and the environment of the last one."""
        return self._numbers[0], self._numbers[1]

    @property
    def step(self) -> int:
        """How many steps of the present task are complete."""
        return self._numbers[2]

    @step.setter
    def step(self, step: int) -> None:
        self._numbers[2] = step

    @property
    def restarts(self) -> int:
        """How many environments the worker has restarted by itself."""
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
