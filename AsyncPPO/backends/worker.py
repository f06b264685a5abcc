"""A worker process: it serves one block of environments until it is told to close, or until its parent is gone."""

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle
import numpy as np

from AsyncPPO.backends.base import EnvError, Infos, Layout, Plan, Rollout, StepArrays
from AsyncPPO.backends.block import EnvBlock
from utils import blas_threads

LIVENESS_SECONDS = 0.5
"""How often a process that waits looks whether the other side is still there."""
SPIN_SECONDS = 0.0005
"""How long it looks for an answer without sleeping."""


def acquire(semaphore: Any, spin: bool) -> bool:
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
    """How the worker answered; infos and errors have a message in the pipe."""

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
    """Semaphore: there is a command."""
    replied: Any
    """Semaphore: this worker has replied."""
    done: Any
    """Semaphore: some worker has replied; one for all of them."""
    pipe: Connection
    spin: bool
    """Whether waiting may spin, since there is a core for every process that steps."""

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


def work(pickled_factory: bytes, layout: Layout, plan: Plan | None, channel: Channel) -> None:
    """Be a worker process."""
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
            trace = str(error) if isinstance(error, EnvError) else f"{channel.name} failed: {traceback.format_exc()}"
            message = cloudpickle.dumps(trace)
            control[1] = Reply.ERROR
        channel.replied.release()
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
            while not acquire(channel.go, channel.spin):
                if not parent.is_alive():
                    return
            command = control[0]
            if block is None or command == Command.CLOSE:
                break
            if command == Command.PLAY:
                answer(partial(block.play, *control[2:4]))
                continue
            if command == Command.COMPUTE:
                answer(partial(compute, *control[2:]))
                continue
            env_ids = (stepping.nonzero()[0] + channel.first).tolist()
            if command == Command.RESET:
                seeds, options = cloudpickle.loads(channel.pipe.recv_bytes())
                answer(partial(block.reset, env_ids, seeds, options))
            else:
                answer(partial(block.step, env_ids, command == Command.STEP_AUTORESET))
    if block is not None:
        block.close()
