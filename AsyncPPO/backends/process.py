"""Environments in several processes, a block in each: in this one the first, in worker processes the others.

Observations, actions, rewards and flags live in shared memory and are written in place. A step costs two semaphore
operations for each worker; only what is rare (a reset, an info with something in it, an error) is pickled through a
pipe. Who waits spins for a moment before it sleeps, since waking takes longer than a step of a cheap environment; with
a block of its own the caller is busy meanwhile, and there are no more processes than cores to spin on. The shared
memory has no name in the file system, so no way of dying can leave it behind, and a worker whose parent is gone leaves
by itself.
"""

import multiprocessing
import os
import signal
import time
import traceback
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import partial
from itertools import pairwise
from multiprocessing.connection import Connection
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
from utils import blas_threads

LIVENESS_SECONDS = 0.5
"""How often a process that waits looks whether the other side is still there."""
SPIN_SECONDS = 0.0005
"""How long it looks for an answer without sleeping."""
CLOSE_SECONDS = 5.0
"""How long the workers may take to finish their step and close their environments before they are killed."""


def _acquire(semaphore: Any, spin: bool) -> bool:
    """Wait for a semaphore, at most `LIVENESS_SECONDS`; with `spin`, yield the core for a while before sleeping."""
    if spin:
        end = time.perf_counter() + SPIN_SECONDS
        while time.perf_counter() < end:
            if semaphore.acquire(False):
                return True
            os.sched_yield()
    return semaphore.acquire(timeout=LIVENESS_SECONDS)


class Command(IntEnum):
    """What the parent asks of a worker."""

    RESET = 1
    STEP = 2
    STEP_AUTORESET = 3
    PLAY = 4
    COMPUTE = 5
    CLOSE = 6


class Reply(IntEnum):
    """How the worker answered; whatever is not OK has a message in the pipe."""

    OK = 0
    INFOS = 1
    ERROR = 2


@dataclass(frozen=True)
class Channel:
    """What a worker and its parent share."""

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
    go: Any
    done: Any
    pipe: Connection
    parent: int
    spin: bool
    """Whether there is a core for every process, so that waiting may spin."""

    def views(self, layout: Layout, plan: Plan | None) -> tuple[StepArrays, Rollout | None, np.ndarray]:
        """Return this worker's part of the arrays, of the rollout and of `stepping`."""
        buffers = iter(self.arrays)
        arrays = StepArrays.allocate(layout, lambda size: next(buffers)).rows(self.first, self.stop)
        rollout = None
        if plan is not None:
            rollout = Rollout.allocate(layout, plan, lambda size: next(buffers)).part(self.first, self.stop)
        return arrays, rollout, np.frombuffer(self.stepping, np.uint8)[self.first : self.stop]


def _work(pickled_factory: bytes, layout: Layout, plan: Plan | None, channel: Channel) -> None:
    """Serve one block of environments until told to close, or until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent: Any = multiprocessing.parent_process()
    arrays, rollout, stepping = channel.views(layout, plan)
    control = channel.control
    learner = None if rollout is None else rollout.replica.learner(rollout.workspace)
    block: EnvBlock | None = None

    def answer(action: Callable[[], Infos]) -> None:
        try:
            infos = action()
            message = cloudpickle.dumps(infos) if infos else b""
            control[1] = Reply.INFOS if infos else Reply.OK
        except Exception as error:
            trace = str(error) if isinstance(error, EnvError) else f"{_name(channel)} failed: {traceback.format_exc()}"
            message = cloudpickle.dumps(trace)
            control[1] = Reply.ERROR
        channel.done.release()
        if message:
            channel.pipe.send_bytes(message)

    def make() -> Infos:
        nonlocal block
        factory = cloudpickle.loads(pickled_factory)
        block = EnvBlock([factory] * (channel.stop - channel.first), channel.first, arrays, rollout)
        return {}

    def compute(start: int, stop: int, processes: int) -> Infos:
        assert learner is not None
        learner(start, stop, channel.number, processes)
        return {}

    with suppress(BrokenPipeError, EOFError), blas_threads(1):
        answer(make)
        while True:
            while not _acquire(channel.go, channel.spin):
                if not parent.is_alive():
                    return
            command = control[0]
            if block is None or command == Command.CLOSE:
                break
            env_ids = (np.flatnonzero(stepping) + channel.first).tolist()
            if command == Command.PLAY:
                answer(partial(block.play, *control[2:4]))
            elif command == Command.COMPUTE:
                answer(partial(compute, *control[2:]))
            elif command == Command.RESET:
                seeds, options = cloudpickle.loads(channel.pipe.recv_bytes())
                answer(partial(block.reset, env_ids, seeds, options))
            else:
                answer(partial(block.step, env_ids, command == Command.STEP_AUTORESET))
    if block is not None:
        block.close()


class ProcessBackend(Backend):
    """Blocks of consecutive environments, each stepped by a process: the first by this one."""

    def __init__(
        self,
        factory: EnvFactory,
        layout: Layout,
        num_workers: int,
        start_method: str | None = None,
        plan: Plan | None = None,
    ) -> None:
        """Start the workers and wait until all environments are made.

        Args:
            factory: makes one environment.
            layout: the rows they exchange.
            num_workers: how many processes step, this one among them; no more than there are environments.
            start_method: of `multiprocessing`; by default `fork` where there is one, since it is quick.
            plan: what `play` does.

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
        self._workers: list[tuple[Any, Channel]] = []
        self._close = weakref.finalize(self, _stop, self._workers)
        spin = self.num_workers <= available_cores() and hasattr(os, "sched_yield")
        own, *others = pairwise(np.linspace(0, layout.num_envs, self.num_workers + 1).astype(int).tolist())
        for number, (first, stop) in enumerate(others, 1):
            mine, theirs = context.Pipe()
            parts = (buffers, stepping, context.RawArray("q", 5), context.Semaphore(0), context.Semaphore(0))
            channel = Channel(number, first, stop, *parts, mine, os.getpid(), spin)
            arguments = (cloudpickle.dumps(factory), layout, plan, replace(channel, pipe=theirs))
            process = context.Process(
                target=_work, args=arguments, name=f"environments-{first}-{stop - 1}", daemon=True
            )
            process.start()
            theirs.close()
            self._workers.append((process, channel))
        self._block = EnvBlock([], 0, self.arrays)
        try:
            rollout = None if self.rollout is None else self.rollout.part(*own)
            self._block = EnvBlock([factory] * own[1], 0, self.arrays.rows(*own), rollout)
            self._wait(self._workers)
        except BaseException:
            self.close()
            raise

    def reset(self, env_ids: np.ndarray, seeds: Sequence[int | None], options: dict[str, Any] | None) -> Infos:
        """See `Backend.reset`."""
        by_id = dict(zip(env_ids.tolist(), seeds, strict=True))

        def seeds_from(first: int, stop: int) -> list[int | None]:
            return [by_id[index] for index in range(first, stop) if index in by_id]

        asked = self._ask(Command.RESET, env_ids)
        for process, channel in asked:
            try:
                channel.pipe.send_bytes(cloudpickle.dumps((seeds_from(channel.first, channel.stop), options)))
            except OSError:
                raise EnvError(_obituary(process, channel)) from None
        own = self._own(env_ids)
        infos = self._block.reset(own, seeds_from(0, len(self._block.envs)), options)
        return infos | self._wait(asked)

    def step(self, env_ids: np.ndarray, autoreset: bool) -> Infos:
        """See `Backend.step`."""
        asked = self._ask(Command.STEP_AUTORESET if autoreset else Command.STEP, env_ids)
        infos = self._block.step(self._own(env_ids), autoreset)
        return infos | self._wait(asked)

    def play(self, start: int, stop: int) -> None:
        """See `Backend.play`."""
        for _, channel in self._workers:
            channel.control[2:4] = start, stop
        asked = self._ask(Command.PLAY, np.arange(len(self._stepping)))
        self._block.play(start, stop)
        self._wait(asked)

    def compute(self, start: int, stop: int, processes: int) -> None:
        """See `Backend.compute`."""
        assert self._learner is not None
        processes = min(processes, self.num_workers)
        asked = self._workers[: processes - 1]
        for _, channel in asked:
            channel.control[0] = Command.COMPUTE
            channel.control[2:] = start, stop, processes
            channel.go.release()
        self._learner(start, stop, 0, processes)
        self._wait(asked)

    def close(self) -> None:
        """See `Backend.close`."""
        self._close()
        self._block.close()

    def _own(self, env_ids: np.ndarray) -> list[int]:
        return env_ids[env_ids < len(self._block.envs)].tolist()

    def _ask(self, command: Command, env_ids: np.ndarray) -> list[tuple[Any, Channel]]:
        """Give a command to the workers of some environments; return those workers."""
        self._stepping[:] = 0
        self._stepping[env_ids] = 1
        asked = []
        for process, channel in self._workers:
            if self._stepping[channel.first : channel.stop].any():
                channel.control[0] = command
                channel.go.release()
                asked.append((process, channel))
        return asked

    def _wait(self, workers: list[tuple[Any, Channel]]) -> Infos:
        infos: Infos = {}
        for process, channel in workers:
            while not _acquire(channel.done, channel.spin):
                if not process.is_alive() and not channel.done.acquire(block=False):
                    raise EnvError(_obituary(process, channel))
            reply = channel.control[1]
            if reply == Reply.OK:
                continue
            try:
                message = cloudpickle.loads(channel.pipe.recv_bytes())
            except (EOFError, OSError):
                raise EnvError(_obituary(process, channel)) from None
            except Exception as error:
                raise EnvError(f"{_name(channel)} sent an info that cannot be read: {error!r}") from error
            if reply == Reply.ERROR:
                raise EnvError(message)
            infos.update(message)
        return infos


def _name(channel: Channel) -> str:
    return f"the worker of environments {channel.first} to {channel.stop - 1}"


def _obituary(process: Any, channel: Channel) -> str:
    process.join(CLOSE_SECONDS)
    code = process.exitcode
    cause = f"was killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exited with {code}"
    return f"{_name(channel)} (pid {process.pid}) {cause}"


def _stop(workers: list[tuple[Any, Channel]]) -> None:
    """End the worker processes: ask, then kill."""
    if any(channel.parent != os.getpid() for _, channel in workers):
        return  # a fork of the parent: the workers are not its own
    for _, channel in workers:
        channel.control[0] = Command.CLOSE
        channel.go.release()
        channel.pipe.close()
    deadline = time.monotonic() + CLOSE_SECONDS
    for process, _ in workers:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()
        process.close()
    workers.clear()
