"""The parent's side of a worker process."""

import logging
import os
import signal
import time
from dataclasses import dataclass, field, replace
from typing import Any

import cloudpickle
import numpy as np

from AsyncPPO.backends.base import EnvError, FaultPolicy, Layout, Plan
from AsyncPPO.backends.channel import Channel, Command, Pulse
from AsyncPPO.backends.children import free, kill, post, start_child, undisturbed
from AsyncPPO.backends.worker import work

logger = logging.getLogger(__name__)
DEATH_SECONDS = 5.0
"""How long a process may take to be gone after it has let go of its pipe."""
TIMED = (Command.RESET, Command.STEP, Command.STEP_AUTORESET, Command.PLAY, Command.APPLY)
"""Commands that consist of steps, resets and calls, which may have a time limit."""


class Died(EnvError):
    """A worker was gone before all of its answer had come."""


@dataclass
class Worker:
    """A process, and what it is doing."""

    context: Any
    """Of `multiprocessing`."""
    arguments: tuple[bytes, Layout, Plan | None, FaultPolicy]
    """Of `work`, before the channel."""
    channel: Channel
    process: Any = None
    parent: int = field(default_factory=os.getpid)
    """The process that starts it."""
    busy: bool = False
    command: Command = Command.MAKE
    """The last one."""
    numbers: tuple[int, ...] = ()
    """Which went with it."""
    env_ids: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """The environments of the last reset or step."""
    message: Any = None
    """What it was sent last."""
    failures: int = 0
    """How often it was started anew since it last did what it was told."""

    def start(self) -> None:
        """Start the process, in place of one that is gone, and have it make its environments.

        Raises:
            EnvError: the system gives none, or this process cannot have any.
        """
        context, channel = self.context, self.channel
        name = f"environments-{channel.first}-{channel.stop - 1}"
        with undisturbed():
            mine, theirs = context.Pipe()
            fresh = {"go": context.Semaphore(0), "replied": context.Semaphore(0)}
            self.channel = replace(channel, pipe=mine, **fresh)
            try:
                self.process = start_child(context, name, work, *self.arguments, replace(self.channel, pipe=theirs))
            except BaseException as error:
                mine.close()
                if isinstance(error, OSError | RuntimeError):
                    raise EnvError(f"{channel.name} could not be started: {error}") from error
                raise
            finally:
                theirs.close()
        self.tell(Command.MAKE)

    @property
    def pulse(self) -> Pulse:
        """What goes on in its block."""
        return Pulse(self.channel.pulse)

    @property
    def rows(self) -> slice:
        """Those of its environments among all."""
        return slice(self.channel.first, self.channel.stop)

    def tell(self, command: Command, *numbers: int) -> None:
        """Give a command."""
        self.command, self.numbers, self.busy = command, numbers, True
        self._beat, self._since = (-1, -1), time.monotonic()
        control = self.channel.control
        control[0] = command
        control[2 : 2 + len(numbers)] = numbers
        self.channel.go.release()

    def send(self, message: Any) -> None:
        """Send what goes with a command; if the process is gone, that shows when it is waited for."""
        self.message = message
        post(self.channel.pipe, cloudpickle.dumps(message))

    def receive(self) -> Any:
        """Return what comes with a reply.

        Raises:
            Died: the process is gone.
            EnvError: it sent what cannot be read.
        """
        try:
            return cloudpickle.loads(self.channel.pipe.recv_bytes())
        except (EOFError, OSError):
            raise Died(self._obituary()) from None
        except Exception as error:
            raise EnvError(f"{self.channel.name} sent an info that cannot be read: {error!r}") from error

    def has_replied(self) -> bool:
        """Return whether there is a reply that has not been taken."""
        replied = self.channel.replied.acquire(block=False)
        if replied:
            self.channel.replied.release()
        return replied

    def fault(self, timeout: float | None) -> EnvError | None:
        """Return what is wrong with a busy worker, if anything: it died, or a step, reset or call takes too long."""
        if not self.process.is_alive():
            return None if self.has_replied() else EnvError(self._obituary())
        if timeout is None or self.command not in TIMED:
            return None
        beat, now = self.pulse.last, time.monotonic()
        if beat != self._beat:
            self._beat, self._since = beat, now
        if now <= self._since + timeout:
            return None
        self.kill()
        return EnvError(f"environment {beat[1]} hung: a step, reset or call has taken more than {timeout:g} seconds")

    def kill(self) -> None:
        """End the process, if it could be started, whatever it is doing."""
        if self.process is not None:
            kill(self.process)

    def bury(self) -> None:
        """Free what is held for the process, which is gone."""
        if self.process is not None:
            free(self.process)
            self.process = None
            self.channel.pipe.close()

    def _obituary(self) -> str:
        """Say how it died."""
        self.process.join(DEATH_SECONDS)
        code = self.process.exitcode
        killed = code is not None and code < 0
        cause = f"was killed by {signal.Signals(-code).name}" if killed else f"exited with {code}"
        return f"{self.channel.name} (pid {self.process.pid}) {cause}"


def stop(workers: list[Worker], seconds: float) -> None:
    """End worker processes: ask, and after some seconds kill."""
    if any(worker.parent != os.getpid() for worker in workers):
        return  # a fork of the parent: the workers are not its own
    started = [worker for worker in workers if worker.process is not None]
    for worker in started:
        worker.tell(Command.CLOSE)
        worker.channel.pipe.close()
    deadline = time.monotonic() + seconds
    try:
        for worker in started:
            worker.process.join(max(0.0, deadline - time.monotonic()))
    finally:
        with undisturbed():
            for worker in started:
                _end(worker, seconds)
            workers.clear()


def _end(worker: Worker, seconds: float) -> None:
    if worker.process.is_alive():
        logger.warning(
            "%s took more than %g seconds to finish its step and close its environments: it was killed",
            worker.channel.name,
            seconds,
        )
        worker.kill()
    worker.bury()
