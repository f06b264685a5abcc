"""All environments in the caller's process: the simplest backend, and the oracle for the others."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from AsyncPPO.backends.base import Backend, EnvFactory, Infos, Layout, Plan, Rollout, StepArrays
from AsyncPPO.backends.block import EnvBlock


class InlineBackend(Backend):
    """A plain loop over the environments."""

    num_workers = 1

    def __init__(self, factory: EnvFactory, layout: Layout, plan: Plan | None = None) -> None:
        """Make `layout.num_envs` environments with `factory`."""
        self.arrays = StepArrays.allocate(layout)
        self.rollout = None if plan is None else Rollout.allocate(layout, plan)
        self._block = EnvBlock([factory] * layout.num_envs, 0, self.arrays, self.rollout)

    def reset(self, env_ids: np.ndarray, seeds: Sequence[int | None], options: dict[str, Any] | None) -> Infos:
        """See `Backend.reset`."""
        return self._block.reset(env_ids.tolist(), seeds, options)

    def step(self, env_ids: np.ndarray, autoreset: bool) -> Infos:
        """See `Backend.step`."""
        return self._block.step(env_ids.tolist(), autoreset)

    def play(self, start: int, stop: int) -> None:
        """See `Backend.play`."""
        self._block.play(start, stop)

    def close(self) -> None:
        """See `Backend.close`."""
        self._block.close()
