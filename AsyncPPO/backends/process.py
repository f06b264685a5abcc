"""Environments in several processes, a block in each: in this one the first, in worker processes the others.

Observations, actions, rewards and flags live in shared memory and are written in place. A step costs a few semaphore
operations for each worker; only what is rare (a reset, an info with something in it, an error) is pickled through a
pipe. Who waits spins for a moment before it sleeps, since waking takes longer than a step of a cheap environment; so
long as no more processes step than there are cores. The shared memory has no name in the file system, so no way of
dying can leave it behind, and a worker whose parent is gone leaves by itself.

Where failures are to be survived, or steps to be timed, all blocks are left to workers: whoever watches must not die or
hang with what is watched.
"""

import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from multiprocessing.util import Finalize
from typing import Any

import cloudpickle
import numpy as np

from AsyncPPO.backends.apply import Outcomes, set_reset_options, unpacked
from AsyncPPO.backends.base import (
    RESTART_LIMIT,
    Backend,
    EnvError,
    EnvFactory,
    FaultPolicy,
    Infos,
    Layout,
    Plan,
    Rollout,
    StepArrays,
)
from AsyncPPO.backends.block import ENV_ERROR, RAISE, Block, EnvBlock
from AsyncPPO.backends.channel import CLOSE_SECONDS, LIVENESS_SECONDS, Channel, Command, Pulse, Reply, acquire
from AsyncPPO.backends.choice import available_cores
from AsyncPPO.backends.handle import Died, Worker, stop
from AsyncPPO.progress import tell_if_long
from parallel_rl.utils import spawn_seeds

logger = logging.getLogger(__name__)


class ProcessBackend(Backend):
    """Blocks of consecutive environments, each stepped by a process: the first by this one, unless `asynchronous`."""

    def __init__(
        self,
        factories: Sequence[EnvFactory],
        layout: Layout,
        num_workers: int,
        start_method: str,
        plan: Plan | None = None,
        asynchronous: bool = False,
        fault_policy: FaultPolicy = RAISE,
        close_timeout: float = CLOSE_SECONDS,
    ) -> None:
        """Start the workers and wait until all environments are made.

        Args:
            factories: one for each environment.
            layout: the rows they exchange.
            num_workers: how many processes step, this one among them; no more than there are environments.
            start_method: of `multiprocessing`.
            plan: what `play` does.
            asynchronous: whether all blocks are left to workers, so that `recv` need not wait for one.
            fault_policy: what to do about environments and workers that fail.
            close_timeout: seconds that workers may take to finish their step and close their environments.

        Raises:
            EnvError: an environment could not be made, or a process not be started.
        """
        self._context: Any = multiprocessing.get_context(start_method)
        self._buffers: list[Any] = []
        self.num_workers = min(num_workers, layout.num_envs)
        self.arrays = StepArrays.allocate(layout, self._shared)
        self.rollout = None if plan is None else Rollout.allocate(layout, plan, self._shared)
        self._learner = None if self.rollout is None else self.rollout.replica.learner(self.rollout.workspace)
        self._stepping_buffer = self._context.RawArray("B", layout.num_envs)
        self._stepping = np.frombuffer(self._stepping_buffer, np.uint8)
        self._all = np.arange(layout.num_envs)
        self._all.flags.writeable = False
        self._step = Command.STEP
        self._looked = time.monotonic()
        self._queued = np.zeros(layout.num_envs, dtype=bool)
        self._done = self._context.Semaphore(0)
        self._fault_policy, self._restarts = fault_policy, 0
        self._begin = b""
        self._before = self.arrays.obs.copy()
        self._lost, self._reason = np.zeros(layout.num_envs, dtype=bool), EnvError()
        alone = asynchronous or fault_policy != RAISE
        spin = self.num_workers <= available_cores() and hasattr(os, "sched_yield")
        self._spin = spin and not alone
        self._patience = (
            LIVENESS_SECONDS if fault_policy.timeout is None else min(LIVENESS_SECONDS, fault_policy.timeout / 4)
        )
        blocks = list(pairwise(np.linspace(0, layout.num_envs, self.num_workers + 1).astype(int).tolist()))
        own = (0, 0) if alone else blocks.pop(0)
        self._workers = [
            Worker(
                self._context,
                (cloudpickle.dumps(factories[first:stop]), layout, plan, fault_policy),
                self._channel(number, first, stop, spin),
            )
            for number, (first, stop) in enumerate(blocks, 1)
        ]
        self._close = Finalize(self, stop, (self._workers, close_timeout), exitpriority=0)
        self._block = EnvBlock([], 0, self.arrays)
        try:
            for worker in self._workers:
                worker.start()
            rollout = None if self.rollout is None else self.rollout.part(*own)
            self._block = EnvBlock(factories[: own[1]], 0, self.arrays.rows(*own), rollout)
            with tell_if_long(self.waits_for):
                self._wait()
        except BaseException:
            self.close()
            raise

    @property
    def restarts(self) -> int:
        """See `Backend.restarts`."""
        return self._restarts + sum(worker.pulse.restarts for worker in self._workers)

    def reset(self, env_ids: np.ndarray, seeds: Sequence[int | None], options: dict[str, Any] | None) -> Infos:
        """See `Backend.reset`."""
        by_id = dict(zip(env_ids.tolist(), seeds, strict=True))

        def seeds_from(first: int, stop: int) -> list[int | None]:
            return [by_id[index] for index in range(first, stop) if index in by_id]

        self._queued[env_ids] = True
        for worker in self._workers:
            message = (seeds_from(worker.channel.first, worker.channel.stop), options)
            self._dispatch(worker, Command.RESET, message)
        own = self._take_own()
        return self._block.reset(own.tolist(), seeds_from(0, len(self._block.envs)), options) | self._wait()

    def send(self, env_ids: np.ndarray, autoreset: bool) -> None:
        """See `Backend.send`."""
        self._step = Command.STEP_AUTORESET if autoreset else Command.STEP
        self._queued[env_ids] = True
        if self._fault_policy.restart:
            self._before[:] = self.arrays.obs
        for worker in self._workers:
            if not worker.busy:
                self._dispatch(worker, self._step)

    def recv(self, min_envs: int) -> tuple[np.ndarray, Infos]:
        """See `Backend.recv`."""
        own = self._take_own()
        infos = self._block.step(own.tolist(), self._step == Command.STEP_AUTORESET)
        ready, count = [own], len(own)
        while (finished := self._next(wait=count < min_envs)) is not None:
            worker, news = finished
            ready.append(worker.env_ids)
            count += len(worker.env_ids)
            infos |= news
            self._dispatch(worker, self._step)
        env_ids = self._all if count == len(self._all) else np.sort(np.concatenate(ready))
        if self._lost.any():
            infos |= self._cut(np.flatnonzero(self._lost), self._reason)
            self._lost[:] = False
        return env_ids, infos

    def play(self, start: int, stop: int) -> None:
        """See `Backend.play`."""
        for worker in self._workers:
            worker.pulse.step = start
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

    def apply(self, function: Callable[[Block], Outcomes]) -> Outcomes:
        """See `Backend.apply`."""
        message = cloudpickle.dumps(function)
        for worker in self._workers:
            worker.tell(Command.APPLY)
            worker.send(message)
        outcomes = function(self._block)
        replies: dict[int, Any] = self._wait()
        return outcomes | {index: unpacked(index, pickled) for index, pickled in replies.items()}

    def set_reset_options(self, options: dict[str, Any] | None) -> None:
        """See `Backend.set_reset_options`."""
        function = partial(set_reset_options, options=options)
        self.apply(function)
        self._begin = cloudpickle.dumps(function)

    def snapshots(self) -> Infos:
        """See `Backend.snapshots`."""
        for worker in self._workers:
            worker.tell(Command.SNAPSHOTS)
        return self._block.snapshots() | self._wait()

    def restore(self, snapshots: Infos) -> Infos:
        """See `Backend.restore`."""
        for worker in self._workers:
            worker.tell(Command.RESTORE)
            worker.send({index: snapshots[index] for index in worker.channel.envs})
        return self._block.restore(snapshots) | self._wait()

    def waits_for(self) -> str:
        """See `Backend.waits_for`."""
        late = [worker for worker in self._workers if worker.busy and not worker.has_replied()]
        if not late:
            return self._block.waits_for()
        who = ", ".join(f"environment {worker.pulse.last[1]} (pid {worker.process.pid})" for worker in late)
        forked = "; should it never come back, try start_method='spawn': a fork lacks the threads of its parent"
        return who + (forked if self._context.get_start_method() == "fork" else "")

    def close(self) -> None:
        """See `Backend.close`."""
        self._close()
        self._block.close()

    def _shared(self, size: int) -> Any:
        self._buffers.append(self._context.RawArray("b", size))
        return self._buffers[-1]

    def _channel(self, number: int, first: int, stop: int, spin: bool) -> Channel:
        """Return the shared parts of a worker; what belongs to its process comes with that."""
        control, pulse = self._context.RawArray("q", 5), self._context.RawArray("q", Pulse.SIZE)
        shared = self._buffers, self._stepping_buffer, control, pulse
        return Channel(number, first, stop, *shared, self._done, spin)

    def _take_own(self) -> np.ndarray:
        """Return which environments of the own block are queued, and take them out of the queue."""
        own = self._queued[: len(self._block.envs)].nonzero()[0]
        self._queued[own] = False
        return own

    def _dispatch(self, worker: Worker, command: Command, message: Any = None) -> None:
        """Give a worker a command for those of its environments that are queued, if any are."""
        mine = slice(worker.channel.first, worker.channel.stop)
        queued = self._queued[mine]
        if not np.count_nonzero(queued):
            return
        worker.env_ids = queued.nonzero()[0] + mine.start
        self._stepping[mine] = queued
        queued[:] = False
        worker.tell(command)
        if message is not None:
            worker.send(message)

    def _wait(self) -> Infos:
        """Wait until no worker is busy."""
        infos: Infos = {}
        while any(worker.busy for worker in self._workers):
            finished = self._next()
            assert finished is not None
            infos |= finished[1]
        return infos

    def _next(self, wait: bool = True) -> tuple[Worker, Infos] | None:
        """Return a worker that has done what it was told, and its infos; None if there is none and `wait` is False.

        Raises:
            EnvError: an environment failed, or a worker died or hung, and is not to be started anew.
        """
        while True:
            told = acquire(self._done, self._spin, self._patience) if wait else self._done.acquire(block=False)
            look = (wait and not told) or time.monotonic() > self._looked + LIVENESS_SECONDS
            if look:
                self._looked = time.monotonic()
            for worker in self._workers:
                fault: EnvError | None = None
                if worker.busy and worker.channel.replied.acquire(block=False):
                    try:
                        return worker, self._answer_of(worker)
                    except Died as died:
                        fault = died
                elif worker.busy and look:
                    fault = worker.fault(self._fault_policy.timeout)
                infos = None if fault is None else self._revive(worker, fault)
                if infos is not None:
                    return worker, infos
            if not wait:
                return None

    def _answer_of(self, worker: Worker) -> Infos:
        worker.busy = False
        reply = worker.channel.control[1]
        message = {} if reply == Reply.OK else worker.receive()
        if reply == Reply.ERROR:
            raise EnvError(message)
        worker.failures = 0
        return message

    def _revive(self, worker: Worker, error: EnvError) -> Infos | None:
        """Start a worker anew whose process died or hung, and with it its environments.

        Returns:
            Infos, as if it had done what it was told: its environments were cut; or None, if it does that now.

        Raises:
            EnvError: that is not asked for, or has been in vain too often.
        """
        command, numbers, env_ids, message = worker.command, worker.numbers, worker.env_ids, worker.message
        if not self._fault_policy.restart or command in (Command.MAKE, Command.RESTORE):
            raise error
        if command == Command.PLAY and worker.pulse.step > numbers[0]:
            worker.failures = 0
        infos = self._make_anew(worker, error)
        worker.env_ids = env_ids
        if command == Command.RESET:
            return infos
        if command in (Command.STEP, Command.STEP_AUTORESET):
            return infos | self._cut(env_ids, error)
        if command == Command.PLAY:
            start, step = numbers[0], worker.pulse.step
            assert self.rollout is not None
            for row in worker.channel.envs:
                self.rollout.truncate(row, step, start, self.rollout.rows["obs"][step, row])
            numbers = step, numbers[1]
        elif self.rollout is not None:
            self.rollout.anew[worker.rows] = True
        else:
            self._lost[worker.rows], self._reason = True, error
        worker.tell(command, *numbers)
        if command == Command.APPLY:
            worker.send(message)
        return None

    def _cut(self, env_ids: np.ndarray, error: EnvError) -> Infos:
        """Say of environments that were started anew that their episodes were truncated; return infos."""
        arrays = self.arrays
        arrays.reward[env_ids], arrays.terminated[env_ids], arrays.truncated[env_ids] = 0.0, False, True
        arrays.failed[env_ids] = True
        arrays.final_obs[env_ids] = self._before[env_ids]
        if self._step == Command.STEP:
            arrays.obs[env_ids] = self._before[env_ids]
        return {index: {ENV_ERROR: str(error)} for index in env_ids.tolist()}

    def _make_anew(self, worker: Worker, error: EnvError) -> Infos:
        """Start a worker's process anew until its environments are made and reset; return their infos."""
        failures = worker.failures
        while True:
            failures += 1
            if failures > RESTART_LIMIT:
                raise EnvError(
                    f"{worker.channel.name} was started anew {RESTART_LIMIT} times and failed at once every time; at "
                    f"last: {error}"
                ) from error
            logger.warning("%s; it is started anew", error)
            self._restarts += len(worker.channel.envs)
            worker.kill()
            worker.bury()
            try:
                worker.start()
                self._wait_for(worker)
                if self._begin:
                    worker.tell(Command.APPLY)
                    worker.send(self._begin)
                    self._wait_for(worker)
                self._queued[worker.rows] = True
                self._dispatch(worker, Command.RESET, (spawn_seeds(None, len(worker.channel.envs)), None))
                infos = self._wait_for(worker)
            except EnvError as another:
                error = another
            else:
                worker.failures = failures
                return infos

    def _wait_for(self, worker: Worker) -> Infos:
        """Wait until one worker has done what it was told."""
        while not acquire(worker.channel.replied, False, self._patience):
            fault = worker.fault(self._fault_policy.timeout)
            if fault is not None:
                raise fault
        return self._answer_of(worker)
