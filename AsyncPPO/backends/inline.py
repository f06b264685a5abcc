"""All environments in the caller's process: the simplest backend, and the oracle for the others."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from AsyncPPO.backends.apply import Outcomes
from AsyncPPO.backends.base import Backend, Infos, Layout, Plan, Rollout, StepArrays
from AsyncPPO.backends.block import Block


class InlineBackend(Backend):
    """One block of all environments."""

    num_workers = 1

    def __init__(
        self, make_block: Callable[[StepArrays, Rollout | None], Block], layout: Layout, plan: Plan | None = None
    ) -> None:
        """Make the arrays, and with them the block."""
        self.arrays = StepArrays.allocate(layout)
        self._sent = np.empty(0, np.int64)
        self.rollout = None if plan is None else Rollout.allocate(layout, plan)
        self._block = make_block(self.arrays, self.rollout)
        self._learner = None if self.rollout is None else self.rollout.replica.learner(self.rollout.workspace)

    @property
    def restarts(self) -> int:
        """See `Backend.restarts`."""
        return self._block.restarts

    def reset(self, env_ids: np.ndarray, seeds: Sequence[int | None], options: dict[str, Any] | None) -> Infos:
        """See `Backend.reset`."""
        return self._block.reset(env_ids.tolist(), seeds, options)

    def send(self, env_ids: np.ndarray, autoreset: bool) -> None:
        """See `Backend.send`."""
        self._sent = np.sort(np.concatenate([self._sent, env_ids]))
        self._autoreset = autoreset

    def recv(self, min_envs: int) -> tuple[np.ndarray, Infos]:
        """See `Backend.recv`; all that were sent are stepped now."""
        env_ids, self._sent = self._sent, self._sent[:0]
        return env_ids, self._block.step(env_ids.tolist(), self._autoreset)

    def play(self, start: int, stop: int) -> None:
        """See `Backend.play`."""
        self._block.play(start, stop)

    def compute(self, start: int, stop: int, processes: int) -> None:
        """See `Backend.compute`."""
        assert self._learner is not None
        self._learner(start, stop, 0, 1)

    def apply(self, function: Callable[[Block], Outcomes]) -> Outcomes:
        """See `Backend.apply`."""
        return function(self._block)

    def set_reset_options(self, options: dict[str, Any] | None) -> None:
        """See `Backend.set_reset_options`."""
        self._block.reset_options = options

    def snapshots(self) -> Infos:
        """See `Backend.snapshots`."""
        return self._block.snapshots()

    def restore(self, snapshots: Infos) -> Infos:
        """See `Backend.restore`."""
        return self._block.restore(snapshots)

    def waits_for(self) -> str:
        """See `Backend.waits_for`."""
        return self._block.waits_for()

    def close(self) -> None:
        """See `Backend.close`."""
        self._block.close()
