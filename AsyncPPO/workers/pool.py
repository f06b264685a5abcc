"""A pool of worker processes that run tasks. All child processes but those of whole runs are workers of such a pool.

A worker makes a context (environments, a policy, a member of a population) and then runs tasks on it. A task is a
function `(context, *arguments) -> result` in a table by name. A task costs a few semaphore operations. A few integer
arguments are passed in shared memory; only other arguments, results other than None and errors are pickled through a
pipe. If there is a core for every process, a waiting process polls for a moment before it sleeps, since waking up takes
longer than a step of a cheap environment. A worker ends by itself when its parent has died.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.util import Finalize
from typing import Any

import cloudpickle

from AsyncPPO.progress import warn_if_long
from AsyncPPO.workers.channel import (
    CLOSE_SECONDS,
    LIVENESS_SECONDS,
    MAX_NUMBERS,
    RESTART_LIMIT,
    Channel,
    Pulse,
    SharedBuffers,
    WorkerError,
    acquire,
)
from AsyncPPO.workers.contexts import context_of
from AsyncPPO.workers.handle import Died, Job, Recover, Worker, stop
from parallel_rl.utils import Closeable

logger = logging.getLogger(__name__)
Tasks = Mapping[str, Callable[..., Any]]
"""Functions `(context, *arguments) -> result` by name."""


@dataclass(frozen=True)
class WorkerSpec:
    """The arguments for a worker."""

    name: str
    """Its name in errors."""
    make_context: Callable[[Channel], Any]
    """Makes the context for its tasks; a context with a `close` is closed at the end."""
    envs: range = range(0)
    """The environments that it steps, if any."""


class Supervisor:
    """Restores workers that died or hung; this one does no more than let them begin their task again."""

    def prepare(self, worker: Worker) -> Any:
        """Prepare a new process, which replaces a dead one, for its tasks; `restart` returns the result."""

    def interrupted(self, worker: Worker, error: WorkerError) -> None:
        """Note that a worker was restarted during a task; the pool then begins this task again."""


class WorkerPool(Closeable):
    """Worker processes, optionally together with this process, that run tasks.

    with WorkerPool([WorkerSpec("the adder", make_context)], {"add": add}) as pool:
        pool.begin(pool.job("add", 2, 3))
        ...                     # the worker computes
        sums = pool.wait()      # {1: 5}

    Args:
        specs: one for each worker; their numbers begin at 1.
        tasks: the functions that can be run.
        make_local: makes a context for this process, which then takes part in the tasks as number 0.
        shared: memory that the workers reach through their `Channel`.
        start_method: of `multiprocessing`.
        wait_for_contexts: whether to wait until all contexts are made. If not, a context that cannot be made is an
            error of the first task.
        spin: whether this process and the workers poll while they wait.
        timeout: seconds that a task may take, or that may pass between two beats of the worker's pulse.
        close_timeout: seconds that workers may take to close before they are killed; None kills at once.
        supervisor: restores workers that died or hung; without it, a dead or hung worker is an error.
        error: the class of all errors.

    Raises:
        WorkerError: a process could not be started, or a context not be made.
    """

    def __init__(
        self,
        specs: Sequence[WorkerSpec],
        tasks: Tasks,
        *,
        make_local: Callable[[], Any] | None = None,
        shared: SharedBuffers | None = None,
        start_method: str | None = None,
        wait_for_contexts: bool = True,
        spin: tuple[bool, bool] = (False, False),
        timeout: float | None = None,
        close_timeout: float | None = CLOSE_SECONDS,
        supervisor: Supervisor | None = None,
        error: type[WorkerError] = WorkerError,
    ) -> None:
        self._numbers, self._tasks = {name: number for number, name in enumerate(tasks)}, tasks
        self._spin, self._timeout, self._error, self._supervisor = spin[0], timeout, error, supervisor
        self._checked = time.monotonic()
        self._local_job: Job | None = None
        self.local: Any = None
        """The context of this process, if it has one."""
        self.closed = False
        self.workers, self._done = _workers(specs, tasks, start_method, shared, spin[1], not wait_for_contexts, error)
        self._stop = Finalize(self, stop, (self.workers, close_timeout), exitpriority=0)
        try:
            for worker in self.workers:
                worker.start()
            self.local = None if make_local is None else make_local()
            if self.workers:
                with warn_if_long(self.describe_wait):
                    self.wait()
        except BaseException:
            self.close()
            raise

    def run(self, task: str, *args: Any, processes: int | None = None, **options: Any) -> dict[int, Any]:
        """Run a task in every process (this one too, if it has a context): `job`, `begin` and `wait` in one call."""
        self.begin(self.job(task, *args, **options), processes)
        return self.wait()

    def job(
        self, task: str, *args: Any, timed: bool = True, repeatable: bool = True, recover: Recover | None = None
    ) -> Job:
        """Return a task with its arguments, for `begin`; it may be begun many times.

        Args:
            task: its name.
            args: of the task.
            timed: whether the time limit applies.
            repeatable: whether the task begins again if its worker dies or hangs and is restarted.
            recover: if given, called in place of restarting the worker.

        Raises:
            ValueError: there is no such task.
            TypeError: an argument cannot be pickled.
        """
        if task not in self._tasks:
            raise ValueError(f"there is no task {task!r}, but {', '.join(self._tasks)}")
        small = len(args) <= MAX_NUMBERS and all(type(arg) is int and -(2**63) <= arg < 2**63 for arg in args)
        message = None if small or not self.workers else cloudpickle.dumps(args)
        return Job(task, self._numbers[task], args, message, timed, repeatable, recover)

    def begin(self, job: Job, processes: int | None = None) -> None:
        """Begin a task in every worker, without waiting for it; this process does its part in `wait`.

        Args:
            job: the task.
            processes: how many processes run it at most; by default all.

        Raises:
            RuntimeError: the pool is closed, or the task before has not been waited for.
        """
        if self.closed or self._local_job is not None or self._busy:
            raise RuntimeError("the worker pool is closed" if self.closed else "the workers are busy: wait() first")
        workers = self.workers
        if self.local is not None:
            self._local_job = job
            workers = workers if processes is None else workers[: processes - 1]
        elif processes is not None:
            workers = workers[:processes]
        for worker in workers:
            worker.begin(job)

    def wait(self) -> dict[int, Any]:
        """Wait until the task is done in every process; if it fails in one, the pool is closed.

        Returns:
            The results by the number of the process.

        Raises:
            WorkerError: a task failed, or a worker died or hung.
        """
        results = {}
        try:
            if self._local_job is not None:
                job, self._local_job = self._local_job, None
                results[0] = self._tasks[job.task](self.local, *job.args)
            while self._busy:
                finished = self.next()
                assert finished is not None
                results[finished[0].channel.number] = finished[1]
        except BaseException:
            self.close()
            raise
        return results

    def next(self, wait: bool = True) -> tuple[Worker, Any] | None:
        """Return a worker that has finished, and its result; wait for one, unless `wait` is False.

        Returns:
            None if there are no workers, or if none has finished and `wait` is False.

        Raises:
            WorkerError: its task failed, or it died or hung.
        """
        while self.workers:
            signaled = acquire(self._done, self._spin, self._patience) if wait else self._done.acquire(block=False)
            check = (wait and not signaled) or time.monotonic() > self._checked + LIVENESS_SECONDS
            if check:
                self._checked = time.monotonic()
            for worker in self.workers:
                fault: WorkerError | None = None
                if worker.job is not None and worker.channel.replied.acquire(block=False):
                    try:
                        return worker, worker.result()
                    except Died as died:
                        fault = self._error(str(died))
                elif worker.job is not None and check:
                    fault = worker.fault(self._timeout)
                if fault is not None:
                    result = self._recover(worker, fault)
                    if worker.job is None:
                        return worker, result
            if not wait:
                return None
        return None

    def ready(self, seconds: float = 0.0) -> bool:
        """Return whether a worker finishes or dies within some seconds."""
        deadline = time.monotonic() + seconds
        while True:
            if any(worker.has_ended() for worker in self.workers):
                self._done.release()  # so that `next` finds it
                return True
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            self._done.acquire(timeout=min(LIVENESS_SECONDS, remaining))

    def wait_for(self, worker: Worker) -> Any:
        """Wait for one worker and return its result; if it dies or hangs, it is not restarted.

        Raises:
            WorkerError: as for `next`.
        """
        while not acquire(worker.channel.replied, False, self._patience):
            fault = worker.fault(self._timeout)
            if fault is not None:
                raise fault
        try:
            return worker.result()
        except Died as died:
            raise self._error(str(died)) from None

    def restart(self, worker: Worker, error: WorkerError) -> Any:
        """Replace the process of a worker that died or hung, and let the supervisor prepare the new one.

        Returns:
            The result of `Supervisor.prepare`.

        Raises:
            WorkerError: there is no supervisor, or the restarts fail.
        """
        if self._supervisor is None:
            raise error
        failures = worker.failures
        while True:
            failures += 1
            if failures > RESTART_LIMIT:
                raise self._error(
                    f"{worker.channel.name} was restarted {RESTART_LIMIT} times and failed at once every time; at "
                    f"last: {error}"
                ) from error
            logger.warning("%s; it is restarted", error)
            worker.restarts += 1
            worker.kill()
            worker.free()
            try:
                worker.start()
                self.wait_for(worker)
                result = self._supervisor.prepare(worker)
            except self._error as another:
                error = another
            else:
                worker.failures = failures
                return result

    def describe_wait(self) -> str:
        """Return, in words, which workers the pool waits for; may be called from another thread."""
        late = [worker for worker in self.workers if worker.job is not None and not worker.has_replied()]
        if not late:
            return self.local.describe_wait() if hasattr(self.local, "describe_wait") else "the workers"
        who = ", ".join(f"{worker.doing} (pid {worker.process.pid})" for worker in late)
        forked = "; if it never replies, try start_method='spawn': a forked process lacks the threads of its parent"
        return who + (forked if late[0].is_forked else "")

    def close(self) -> None:
        """Close all contexts and end the processes; may be called twice."""
        self.closed = True
        self._stop()
        local, self.local = self.local, None
        if hasattr(local, "close"):
            local.close()

    @property
    def _busy(self) -> bool:
        return any(worker.job for worker in self.workers)

    @property
    def _patience(self) -> float:
        return LIVENESS_SECONDS if self._timeout is None else min(LIVENESS_SECONDS, self._timeout / 4)

    def _recover(self, worker: Worker, error: WorkerError) -> Any:
        """Recover from a death or hang; return the task's result, or None if the worker is busy again."""
        job = worker.job
        assert job is not None
        if job.recover is not None:
            return job.recover(worker, error)
        if self._supervisor is None or not job.repeatable:
            raise error
        self.restart(worker, error)
        self._supervisor.interrupted(worker, error)
        worker.begin(job)
        return None


def _workers(
    specs: Sequence[WorkerSpec],
    tasks: Tasks,
    start_method: str | None,
    shared: SharedBuffers | None,
    spin: bool,
    silent: bool,
    error: type[WorkerError],
) -> tuple[list[Worker], Any]:
    """Return workers to start, and the semaphore by which they signal that they have replied."""
    if not specs:
        return [], None
    context = context_of(start_method)
    done, buffers = context.Semaphore(0), [] if shared is None else shared.buffers
    workers = []
    for number, spec in enumerate(specs, 1):
        control, pulse = context.RawArray("q", 3 + MAX_NUMBERS), context.RawArray("q", Pulse.SIZE)
        channel = Channel(number, spec.name, spec.envs, buffers, done, spin, silent, control, pulse)
        setup = cloudpickle.dumps((spec.make_context, tasks))
        workers.append(Worker(context, setup, channel, error))
    return workers, done
