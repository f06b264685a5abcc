"""Replica: a policy but for its weights, for worker processes: they act by it and compute gradients."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from PPO.fast.policy import Architecture, NumpyPolicy
from PPO.fast.shards import ShardWorker, shared_arrays


@dataclass(frozen=True)
class Replica:
    """Pickled once. Its weights lie in a vector: the parameters, then the statistics of observations.

    `PPO.replica` makes one; `PPO.replica_weights` gives the vector.
    """

    architecture: Architecture
    batch_size: int
    mini_batch_size: int

    @property
    def weights(self) -> int:
        """How many."""
        return self.architecture.parameters + 2 * self.architecture.normalized

    @property
    def noise(self) -> int:
        """A, how many random numbers an action takes."""
        return self.architecture.outputs

    @property
    def fields(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shape and type of the action of one environment, and of what learning needs to know of it."""
        if self.architecture.bounds is None:
            return {"action": ((), np.int64), "log_prob": ((), np.float32)}
        wide = ((self.architecture.outputs,), np.float32)
        return {"action": wide, "log_prob": ((), np.float32), "raw_action": wide}

    def player(self, weights: np.ndarray) -> NumpyPolicy:
        """Return a policy that acts by the weights, float32, that are there at every call."""
        parameters, statistics = np.split(weights, [self.architecture.parameters])
        return NumpyPolicy(self.architecture, parameters, statistics.reshape(2, -1))

    def workspace(self, rows: int) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Return shape and type of the arrays that gradient workers share for that many rows."""
        return shared_arrays(self.architecture, rows, self.mini_batch_size)

    def learner(self, workspace: dict[str, np.ndarray]) -> Callable[[int, int, int, int], None]:
        """Return `ShardWorker.compute`."""
        return ShardWorker(self.architecture, workspace).compute
