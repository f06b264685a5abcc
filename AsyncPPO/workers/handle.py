"""The parent's side of one worker process."""

import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import cloudpickle

from AsyncPPO.workers.channel import CLOSE, ERROR, IN_PIPE, NOTHING, Channel, WorkerError
from AsyncPPO.workers.processes import close_in_forks, free, kill, post, start_child, undisturbed
from AsyncPPO.workers.worker import work

logger = logging.getLogger(__name__)
DEATH_SECONDS = 5.0
"""Seconds to wait for a process to end once its side of the pipe has closed."""
NO_BEAT = (-1, -1)
Recover = Callable[["Worker", WorkerError], Any]
"""Called if a worker dies or hangs in a task: raises, returns the task's result, or begins a task in the worker."""


class Died(WorkerError):
    """A worker died before its reply was complete."""


class Job(NamedTuple):
    """A task for a worker."""

    task: str
    number: int = 0
    """The place of the task in the worker's table."""
    args: tuple[Any, ...] = ()
    message: bytes | None = None
    """The pickled arguments; None if they are a few integers."""
    timed: bool = True
    """Whether the pool's time limit applies."""
    repeatable: bool = True
    """Whether the task begins again if its worker dies or hangs and is restarted."""
    recover: Recover | None = None
    """If given, called in place of restarting the worker."""


MAKE = Job("make", timed=False, repeatable=False)
"""The first task of a process: to make its context."""


class Worker:
    """A process and its current task."""

    def __init__(self, context: Any, setup: bytes, channel: Channel, error: type[WorkerError]) -> None:
        """Store the parts; `start` starts the process.

        Args:
            context: of `multiprocessing`.
            setup: the argument of `worker.work`.
            channel: `start` adds the semaphores and the pipe of the process.
            error: the class of all errors but `Died`.
        """
        self._context, self._setup, self.channel, self._error = context, setup, channel, error
        self._control = channel.numbers
        self.pulse, self.envs = channel.pulse, channel.envs
        self.rows = slice(self.envs.start, self.envs.stop)
        """The rows of its environments in arrays over all environments."""
        self.process: Any = None
        self.parent = os.getpid()
        self.job: Job | None = None
        """Its current task; None if it is idle."""
        self.restarts = 0
        self.failures = 0
        """The number of restarts since it last finished a task."""
        self._beat, self._since = NO_BEAT, 0.0

    def start(self) -> None:
        """Start the process, or another one after its death; its first task is to make its context.

        Raises:
            WorkerError: the system cannot start a process, or this process may not have children.
        """
        context, channel = self._context, self.channel
        with undisturbed():
            mine, theirs = context.Pipe()
            close_in_forks(mine)
            fresh = {"go": context.Semaphore(0), "replied": context.Semaphore(0)}
            self.channel = replace(channel, pipe=mine, restarts=self.restarts, **fresh)
            try:
                self.process = start_child(context, channel.name, work, self._setup, replace(self.channel, pipe=theirs))
            except BaseException as error:
                mine.close()
                if isinstance(error, OSError | RuntimeError):
                    raise self._error(f"{channel.name} could not be started: {error}") from error
                raise
            finally:
                theirs.close()
        if not channel.silent:
            self._note(MAKE)

    def begin(self, job: Job) -> None:
        """Begin a task; if the process is dead, this shows only when its reply is awaited."""
        self._note(job)
        control = self._control
        control[0] = job.number
        if job.message is None:
            control[2] = len(job.args)
            for place, number in enumerate(job.args, 3):
                control[place] = number
            self.channel.go.release()
        else:
            control[2] = IN_PIPE
            self.channel.go.release()
            post(self.channel.pipe, job.message)

    def result(self) -> Any:
        """Receive the reply, which has been signaled, and return the result.

        Raises:
            Died: the process is dead.
            WorkerError: the task failed, or its result cannot be read.
        """
        job, self.job = self.job, None
        reply = self._control[1]
        if reply == NOTHING:
            self.failures = 0
            return None
        try:
            result = self.receive()
        except Died:
            self.job = job
            raise
        if reply == ERROR:
            raise self._error(result)
        self.failures = 0
        return result

    def receive(self) -> Any:
        """Return the object that follows a reply; raises what `result` raises."""
        try:
            return cloudpickle.loads(self.channel.pipe.recv_bytes())
        except (EOFError, OSError):
            raise Died(self._cause_of_death()) from None
        except Exception as error:
            raise self._error(f"{self.channel.name} sent a result that cannot be read: {error!r}") from error

    @property
    def doing(self) -> str:
        """What an error names: the environment that it stepped or reset last, or the worker itself."""
        beats, env_id = self.pulse.last
        return f"environment {env_id}" if beats and self.envs else self.channel.name

    def has_replied(self) -> bool:
        """Return whether there is a reply that has not been received."""
        replied = self.channel.replied.acquire(block=False)
        if replied:
            self.channel.replied.release()
        return replied

    def has_ended(self) -> bool:
        """Return whether its task has ended: there is a reply, or the process is dead."""
        return self.job is not None and (self.has_replied() or not self.process.is_alive())

    @property
    def is_forked(self) -> bool:
        """Whether its process is a fork of this one."""
        return self._context.get_start_method() == "fork"

    def fault(self, timeout: float | None) -> WorkerError | None:
        """Return the error of a worker that has died, or that hangs and is killed now; None if it works.

        Args:
            timeout: seconds that may pass without a beat of its pulse.
        """
        if not self.process.is_alive():
            return None if self.has_replied() else self._error(self._cause_of_death())
        if timeout is None or self.job is None or not self.job.timed:
            return None
        beat, now = self.pulse.last, time.monotonic()
        if beat != self._beat:
            self._beat, self._since = beat, now
        if now <= self._since + timeout:
            return None
        self.kill()
        what = "a step, reset or call" if beat[0] else f"the task {self.job.task!r}"
        return self._error(f"{self.doing} hung: {what} has taken more than {timeout:g} seconds")

    def kill(self) -> None:
        """Kill the process, if it was started."""
        if self.process is not None:
            kill(self.process)

    def free(self) -> None:
        """Free the resources of the process, which has ended."""
        if self.process is not None:
            free(self.process)
            self.process = None
            self.channel.pipe.close()

    def _note(self, job: Job) -> None:
        self.job = job
        self._beat, self._since = NO_BEAT, time.monotonic()

    def _cause_of_death(self) -> str:
        self.process.join(DEATH_SECONDS)
        code = self.process.exitcode
        killed = code is not None and code < 0
        cause = f"was killed by {signal.Signals(-code).name}" if killed else f"exited with {code}"
        return f"{self.channel.name} (pid {self.process.pid}) {cause}"


def stop(workers: list[Worker], seconds: float | None) -> None:
    """Close worker processes; kill those that have not ended after `seconds` (None: kill all at once)."""
    if any(worker.parent != os.getpid() for worker in workers):
        return  # this is a fork of the parent: the workers are not its children
    started = [worker for worker in workers if worker.process is not None]
    try:
        if seconds is not None:
            _ask_to_close(started, seconds)
    finally:
        with undisturbed():
            for worker in started:
                _end(worker, seconds)
            workers.clear()


def _ask_to_close(workers: list[Worker], seconds: float) -> None:
    """Tell workers to close, and wait until they have ended, at most some seconds."""
    for worker in workers:
        worker.begin(Job("close", CLOSE))
        worker.channel.pipe.close()
    deadline = time.monotonic() + seconds
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))


def _end(worker: Worker, seconds: float | None) -> None:
    if worker.process.is_alive():
        if seconds is not None:
            name = worker.channel.name
            logger.warning("%s took more than %g seconds to finish its task and close: it was killed", name, seconds)
        worker.kill()
    worker.free()
