"""All environments in the caller's process: the simplest backend, and the reference for the others."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from AsyncPPO.backends.base import Backend, Infos, Layout, StepArrays
from AsyncPPO.backends.block import Block
from AsyncPPO.backends.context import BlockContext, shared_arrays
from AsyncPPO.backends.rollout import Plan
from AsyncPPO.backends.tasks import TASKS
from AsyncPPO.workers import WorkerPool


class InlineBackend(Backend):
    """One block of all environments."""

    num_workers = 1

    def __init__(self, make_block: Callable[[StepArrays], Block], layout: Layout, plan: Plan | None = None) -> None:
        self.arrays, self.rollout, stepping = shared_arrays(layout, plan, bytearray)
        self._sent = np.empty(0, np.int64)
        self._block = make_block(self.arrays)
        self.waiting = self._block.waiting
        context = BlockContext(0, self._block, stepping, self.rollout)
        self.pool = WorkerPool([], TASKS, make_local=lambda: context)

    @property
    def restarts(self) -> int:
        """The number of restarts of environments that failed."""
        return self._block.restarts

    def reset(self, env_ids: np.ndarray, seeds: Sequence[int | None], options: dict[str, Any] | None) -> Infos:
        """Reset some environments, one seed each."""
        return self._block.reset(env_ids.tolist(), seeds, options)

    def send(self, env_ids: np.ndarray, autoreset: bool) -> None:
        """Record which environments to step."""
        self._sent = np.sort(np.concatenate([self._sent, env_ids]))
        self._autoreset = autoreset

    def recv(self, min_envs: int) -> tuple[np.ndarray, Infos]:
        """Step all environments that were sent actions."""
        env_ids, self._sent = self._sent, self._sent[:0]
        return env_ids, self._block.step(env_ids.tolist(), self._autoreset)
