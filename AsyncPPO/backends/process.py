"""Environments in several processes, a block in each: in this one the first, in worker processes the others.

Observations, actions, rewards and flags live in shared memory and are written in place. A step costs a few semaphore
operations for each worker; only what is rare (a reset, an info with something in it, an error) is pickled through a
pipe. Who waits spins for a moment before it sleeps, since waking takes longer than a step of a cheap environment; so
long as no more processes step than there are cores. The shared memory has no name in the file system, so no way of
dying can leave it behind, and a worker whose parent is gone leaves by itself.
"""

import multiprocessing
import os
import signal
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import cloudpickle
import numpy as np

from AsyncPPO.backends.base import (
    Backend,
    EnvError,
    EnvFactory,
    Infos,
    Layout,
    Plan,
    Rollout,
    StepArrays,
    available_cores,
)
from AsyncPPO.backends.block import EnvBlock
from AsyncPPO.backends.worker import LIVENESS_SECONDS, Channel, Command, Reply, acquire, work

CLOSE_SECONDS = 5.0
"""How long the workers may take to finish their step and close their environments before they are killed."""


@dataclass
class Worker:
    """A process, and what it is doing."""

    process: Any
    channel: Channel
    parent: int
    """The process that started it."""
    busy: bool = True
    env_ids: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """The environments of its command."""

    def tell(self, command: Command, *numbers: int) -> None:
        """Give a command."""
        control = self.channel.control
        control[0] = command
        control[2 : 2 + len(numbers)] = numbers
        self.busy = True
        self.channel.go.release()

    def obituary(self) -> str:
        """Say how it died."""
        self.process.join(CLOSE_SECONDS)
        code = self.process.exitcode
        killed = code is not None and code < 0
        cause = f"was killed by {signal.Signals(-code).name}" if killed else f"exited with {code}"
        return f"{self.channel.name} (pid {self.process.pid}) {cause}"


class ProcessBackend(Backend):
    """Blocks of consecutive environments, each stepped by a process: the first by this one, unless `asynchronous`."""

    def __init__(
        self,
        factory: EnvFactory,
        layout: Layout,
        num_workers: int,
        start_method: str | None = None,
        plan: Plan | None = None,
        asynchronous: bool = False,
    ) -> None:
        """Start the workers and wait until all environments are made.

        Args:
            factory: makes one environment.
            layout: the rows they exchange.
            num_workers: how many processes step, this one among them; no more than there are environments.
            start_method: of `multiprocessing`; by default `fork` where there is one, since it is quick.
            plan: what `play` does.
            asynchronous: whether all blocks are left to workers, so that `recv` need not wait for one.

        Raises:
            EnvError: an environment could not be made.
        """
        methods = multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context(start_method or ("fork" if "fork" in methods else "spawn"))
        buffers: list[Any] = []

        def shared(size: int) -> Any:
            buffers.append(context.RawArray("b", size))
            return buffers[-1]

        self.num_workers = min(num_workers, layout.num_envs)
        self.arrays = StepArrays.allocate(layout, shared)
        self.rollout = None if plan is None else Rollout.allocate(layout, plan, shared)
        self._learner = None if self.rollout is None else self.rollout.replica.learner(self.rollout.workspace)
        stepping = context.RawArray("B", layout.num_envs)
        self._stepping = np.frombuffer(stepping, np.uint8)
        self._all = np.arange(layout.num_envs)
        self._all.flags.writeable = False
        self._step = Command.STEP
        self._looked = time.monotonic()
        self._queued = np.zeros(layout.num_envs, dtype=bool)
        self._done = context.Semaphore(0)
        self._workers: list[Worker] = []
        self._close = weakref.finalize(self, _stop, self._workers)
        spin = self.num_workers <= available_cores() and hasattr(os, "sched_yield")
        self._spin = spin and not asynchronous
        blocks = list(pairwise(np.linspace(0, layout.num_envs, self.num_workers + 1).astype(int).tolist()))
        own = (0, 0) if asynchronous else blocks.pop(0)
        for number, (first, stop) in enumerate(blocks, 1):
            mine, theirs = context.Pipe()
            parts = (
                buffers,
                stepping,
                context.RawArray("q", 5),
                context.Semaphore(0),
                context.Semaphore(0),
                self._done,
            )
            channel = Channel(number, first, stop, *parts, mine, spin)
            arguments = (cloudpickle.dumps(factory), layout, plan, replace(channel, pipe=theirs))
            process = context.Process(target=work, args=arguments, name=f"environments-{first}-{stop - 1}", daemon=True)
            process.start()
            theirs.close()
            self._workers.append(Worker(process, channel, os.getpid()))
        self._block = EnvBlock([], 0, self.arrays)
        try:
            rollout = None if self.rollout is None else self.rollout.part(*own)
            self._block = EnvBlock([factory] * own[1], 0, self.arrays.rows(*own), rollout)
            self._wait()
        except BaseException:
            self.close()
            raise

    def reset(self, env_ids: np.ndarray, seeds: Sequence[int | None], options: dict[str, Any] | None) -> Infos:
        """See `Backend.reset`."""
        by_id = dict(zip(env_ids.tolist(), seeds, strict=True))

        def seeds_from(first: int, stop: int) -> list[int | None]:
            return [by_id[index] for index in range(first, stop) if index in by_id]

        self._queued[env_ids] = True
        for worker in self._workers:
            if self._dispatch(worker, Command.RESET):
                channel = worker.channel
                try:
                    channel.pipe.send_bytes(cloudpickle.dumps((seeds_from(channel.first, channel.stop), options)))
                except OSError:
                    raise EnvError(worker.obituary()) from None
        own = self._take_own()
        return self._block.reset(own.tolist(), seeds_from(0, len(self._block.envs)), options) | self._wait()

    def send(self, env_ids: np.ndarray, autoreset: bool) -> None:
        """See `Backend.send`."""
        self._step = Command.STEP_AUTORESET if autoreset else Command.STEP
        self._queued[env_ids] = True
        for worker in self._workers:
            if not worker.busy:
                self._dispatch(worker, self._step)

    def recv(self, min_envs: int) -> tuple[np.ndarray, Infos]:
        """See `Backend.recv`."""
        own = self._take_own()
        infos = self._block.step(own.tolist(), self._step == Command.STEP_AUTORESET)
        ready, count = [own], len(own)
        while (worker := self._finished(wait=count < min_envs)) is not None:
            ready.append(worker.env_ids)
            count += len(worker.env_ids)
            infos |= self._answer_of(worker)
            self._dispatch(worker, self._step)
        return self._all if count == len(self._all) else np.sort(np.concatenate(ready)), infos

    def play(self, start: int, stop: int) -> None:
        """See `Backend.play`."""
        for worker in self._workers:
            worker.tell(Command.PLAY, start, stop)
        self._block.play(start, stop)
        self._wait()

    def compute(self, start: int, stop: int, processes: int) -> None:
        """See `Backend.compute`."""
        assert self._learner is not None
        processes = min(processes, self.num_workers)
        for worker in self._workers[: processes - 1]:
            worker.tell(Command.COMPUTE, start, stop, processes)
        self._learner(start, stop, 0, processes)
        self._wait()

    def close(self) -> None:
        """See `Backend.close`."""
        self._close()
        self._block.close()

    def _take_own(self) -> np.ndarray:
        """Return which environments of the own block are queued, and take them out of the queue."""
        own = self._queued[: len(self._block.envs)].nonzero()[0]
        self._queued[own] = False
        return own

    def _dispatch(self, worker: Worker, command: Command) -> bool:
        """Give a worker a command for those of its environments that are queued, if any are."""
        mine = slice(worker.channel.first, worker.channel.stop)
        queued = self._queued[mine]
        if not np.count_nonzero(queued):
            return False
        worker.env_ids = queued.nonzero()[0] + mine.start
        self._stepping[mine] = queued
        queued[:] = False
        worker.tell(command)
        return True

    def _wait(self) -> Infos:
        """Wait until no worker is busy."""
        infos: Infos = {}
        while any(worker.busy for worker in self._workers):
            worker = self._finished()
            assert worker is not None
            infos |= self._answer_of(worker)
        return infos

    def _finished(self, wait: bool = True) -> Worker | None:
        """Return a worker that has replied, or None if there is none and the caller does not want to wait.

        Raises:
            EnvError: a busy worker has died.
        """
        while True:
            told = acquire(self._done, self._spin) if wait else self._done.acquire(block=False)
            if (wait and not told) or time.monotonic() > self._looked + LIVENESS_SECONDS:
                self._check_alive()
            for worker in self._workers:
                if worker.busy and worker.channel.replied.acquire(block=False):
                    return worker
            if not wait:
                return None

    def _check_alive(self) -> None:
        self._looked = time.monotonic()
        dead = [worker for worker in self._workers if worker.busy and not worker.process.is_alive()]
        for worker in dead:
            if worker.channel.replied.acquire(block=False):
                worker.channel.replied.release()
            else:
                raise EnvError(worker.obituary())

    def _answer_of(self, worker: Worker) -> Infos:
        worker.busy = False
        reply = worker.channel.control[1]
        if reply == Reply.OK:
            return {}
        try:
            message = cloudpickle.loads(worker.channel.pipe.recv_bytes())
        except (EOFError, OSError):
            raise EnvError(worker.obituary()) from None
        except Exception as error:
            raise EnvError(f"{worker.channel.name} sent an info that cannot be read: {error!r}") from error
        if reply == Reply.ERROR:
            raise EnvError(message)
        return message


def _stop(workers: list[Worker]) -> None:
    """End the worker processes: ask, then kill."""
    if any(worker.parent != os.getpid() for worker in workers):
        return  # a fork of the parent: the workers are not its own
    for worker in workers:
        worker.tell(Command.CLOSE)
        worker.channel.pipe.close()
    deadline = time.monotonic() + CLOSE_SECONDS
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.process.close()
    workers.clear()
