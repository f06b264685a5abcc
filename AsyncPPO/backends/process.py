"""Environments in several processes: the first block in this process, the others in worker processes.

Observations, actions, rewards and flags are in shared memory and are written in place. If failed environments are to be
restarted, or the time of steps is limited, workers step all blocks, so that an environment cannot make the main process
die or hang.
"""

import os
import weakref
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from AsyncPPO.backends.apply import set_reset_options
from AsyncPPO.backends.base import Backend, EnvError, EnvFactory, FaultPolicy, Infos, Layout, joined_results
from AsyncPPO.backends.block import ENV_ERROR, RAISE, EnvBlock
from AsyncPPO.backends.choice import available_cores
from AsyncPPO.backends.context import BlockContext, make_context, shared_arrays
from AsyncPPO.backends.rollout import Plan
from AsyncPPO.backends.tasks import TASKS
from AsyncPPO.workers import CLOSE_SECONDS, Job, SharedBuffers, Supervisor, Worker, WorkerError, WorkerPool, WorkerSpec
from parallel_rl.utils import spawn_seeds


class ProcessBackend(Backend, Supervisor):
    """Blocks of consecutive environments, one per process: the main one steps the first, unless `asynchronous`.

    Args:
        factories: one for each environment.
        layout: shapes and types of the rows that they exchange with this process.
        num_workers: how many processes step, this one among them; no more than there are environments.
        start_method: of `multiprocessing`.
        plan: what `Replicas` needs.
        asynchronous: whether workers step all blocks, so that `recv` need not wait for any of them.
        fault_policy: what to do about environments and workers that fail.
        close_timeout: seconds that workers may take to finish their step and close their environments.

    Raises:
        EnvError: an environment could not be made, or a process not be started.
    """

    lost: np.ndarray
    _autoreset = False
    _reset_options: dict[str, Any] | None = None

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
        """Start the workers and wait until all environments are made."""
        count = layout.num_envs
        self.num_workers = min(num_workers, count)
        shared = SharedBuffers(start_method)
        self.arrays, self.rollout, self._stepping = shared_arrays(layout, plan, shared.allocate)
        self._all = np.arange(count)
        self._all.flags.writeable = False
        self._queued = np.zeros(count, dtype=bool)  # environments with an action that has not been sent yet
        self._restarting, self._before = fault_policy.restart, self.arrays.obs.copy()  # observations before the step
        self.lost, self._reason = np.zeros(count, dtype=bool), WorkerError()
        only_workers = asynchronous or fault_policy != RAISE
        spin = self.num_workers <= available_cores() and hasattr(os, "sched_yield")
        blocks = list(pairwise(np.linspace(0, count, self.num_workers + 1).astype(int).tolist()))
        own = (0, 0) if only_workers else blocks.pop(0)
        self.pool = WorkerPool(
            [_spec(factories[first:stop], first, layout, plan, fault_policy) for first, stop in blocks],
            TASKS,
            make_local=partial(self._own_block, factories, *own),
            shared=shared,
            start_method=start_method,
            spin=(spin and not only_workers, spin),
            timeout=fault_policy.timeout,
            close_timeout=close_timeout,
            supervisor=weakref.proxy(self) if fault_policy.restart else None,  # no cycle keeps processes alive
            error=EnvError,
        )
        self._block: EnvBlock = self.pool.local.block
        recover = partial(_recover, weakref.ref(self))
        self._steps = [self.pool.job("step", autoreset, recover=recover) for autoreset in (0, 1)]

    @property
    def restarts(self) -> int:
        """How many environments were restarted."""
        return sum(worker.restarts * len(worker.envs) + worker.pulse.restarts for worker in self.pool.workers)

    def reset(self, env_ids: np.ndarray, seeds: Sequence[int | None], options: dict[str, Any] | None) -> Infos:
        """Reset some environments, one seed each; fills their `obs`."""
        by_id = dict(zip(env_ids.tolist(), seeds, strict=True))

        def seeds_of(envs: range) -> list[int | None]:
            return [by_id[index] for index in envs if index in by_id]

        self._queued[env_ids] = True
        for worker in self.pool.workers:
            self._dispatch(worker, self.pool.job("reset", seeds_of(worker.envs), options, recover=self._recover))
        block, own = self._block, self._take_own()
        return block.reset(own.tolist(), seeds_of(range(len(block.envs))), options) | joined_results(self.pool.wait())

    def send(self, env_ids: np.ndarray, autoreset: bool) -> None:
        """Begin a step of some environments with the actions in their rows of `action`."""
        self._autoreset = autoreset
        self._queued[env_ids] = True
        if self._restarting:
            self._before[:] = self.arrays.obs
        for worker in self.pool.workers:
            if worker.job is None:
                self._dispatch(worker, self._steps[autoreset])

    def recv(self, min_envs: int) -> tuple[np.ndarray, Infos]:
        """Wait until at least `min_envs` of the environments that were sent actions have been stepped."""
        own = self._take_own()
        infos = self._block.step(own.tolist(), self._autoreset)
        ready, count = [own], len(own)
        while (finished := self.pool.next(wait=count < min_envs)) is not None:
            worker, news = finished
            env_ids = self._stepped(worker)
            ready.append(env_ids)
            count += len(env_ids)
            infos |= news or {}
            self._dispatch(worker, self._steps[self._autoreset])
        env_ids = self._all if count == len(self._all) else np.sort(np.concatenate(ready))
        if self.lost.any():
            infos |= self._truncate(np.flatnonzero(self.lost), self._reason)
            self.lost[:] = False
        return env_ids, infos

    def set_reset_options(self, options: dict[str, Any] | None) -> None:
        """Set the options of every reset that has no options of its own, restarts included."""
        super().set_reset_options(options)
        self._reset_options = options

    def restore(self, snapshots: Infos) -> Infos:
        """Restore every environment; each worker gets the snapshots of its own environments."""
        for worker in self.pool.workers:
            own = {index: snapshots[index] for index in worker.envs}
            worker.begin(self.pool.job("restore", own, timed=False, repeatable=False))
        return self._block.restore(snapshots) | joined_results(self.pool.wait())

    def prepare(self, worker: Worker) -> Infos:
        """Reset the environments of a process that replaces another."""
        if self._reset_options is not None:
            worker.begin(self.pool.job("apply", partial(set_reset_options, options=self._reset_options)))
            self.pool.wait_for(worker)
        self._queued[worker.rows] = True
        self._dispatch(worker, self.pool.job("reset", spawn_seeds(None, len(worker.envs)), None))
        return self.pool.wait_for(worker) or {}

    def interrupted(self, worker: Worker, error: WorkerError) -> None:
        """End the episodes of environments that were restarted in a task other than a step or reset."""
        if self.rollout is not None:
            self.rollout.restarted[worker.rows] = True
        else:
            self.lost[worker.rows], self._reason = True, error

    def _own_block(self, factories: Sequence[EnvFactory], first: int, stop: int) -> BlockContext:
        block = EnvBlock(factories[first:stop], first, self.arrays.rows(first, stop))
        rollout = None if self.rollout is None else self.rollout.part(first, stop)
        return BlockContext(0, block, self._stepping[first:stop], rollout)

    def _take_own(self) -> np.ndarray:
        """Return which environments of the own block are queued, and take them out of the queue."""
        own = self._queued[: len(self._block.envs)].nonzero()[0]
        self._queued[own] = False
        return own

    def _dispatch(self, worker: Worker, job: Job) -> None:
        """Begin a reset or step of the queued environments of a worker, if there are any."""
        queued = self._queued[worker.rows]
        if not np.count_nonzero(queued):
            return
        self._stepping[worker.rows] = queued
        queued[:] = False
        worker.begin(job)

    def _stepped(self, worker: Worker) -> np.ndarray:
        """Return the environments of the last reset or step of a worker."""
        return self._stepping[worker.rows].nonzero()[0] + worker.envs.start

    def _recover(self, worker: Worker, error: WorkerError) -> Infos:
        """Restart a worker that died or hung in a reset or step; return infos, as if it had finished."""
        assert worker.job is not None
        stepped = worker.job.task == "step"
        env_ids = self._stepped(worker)
        infos = self.pool.restart(worker, error)
        self._stepping[worker.rows] = 0
        self._stepping[env_ids] = 1
        return infos | self._truncate(env_ids, error) if stepped else infos

    def _truncate(self, env_ids: np.ndarray, error: WorkerError) -> Infos:
        """Truncate the episodes of environments that were restarted; return infos."""
        arrays = self.arrays
        arrays.reward[env_ids], arrays.terminated[env_ids], arrays.truncated[env_ids] = 0.0, False, True
        arrays.failed[env_ids] = True
        arrays.final_obs[env_ids] = self._before[env_ids]
        if not self._autoreset:
            arrays.obs[env_ids] = self._before[env_ids]
        return {index: {ENV_ERROR: str(error)} for index in env_ids.tolist()}


def _recover(backend: Any, worker: Worker, error: WorkerError) -> Infos:
    return backend()._recover(worker, error)


def _spec(
    factories: Sequence[EnvFactory], first: int, layout: Layout, plan: Plan | None, fault_policy: FaultPolicy
) -> WorkerSpec:
    """Return the specification of a worker for these environments."""
    stop = first + len(factories)
    make = partial(make_context, factories, layout, plan, fault_policy)
    return WorkerSpec(f"the worker of environments {first} to {stop - 1}", make, range(first, stop))
