"""Replica: a policy's structure, from which worker processes make a policy to act and to compute gradients."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from PPO.fast.policy import Architecture, NumpyPolicy
from PPO.fast.shards import ShardWorker, shared_arrays


@dataclass(frozen=True)
class Replica:
    """A policy without weights, which is pickled only once.

    The weights are in a vector: the parameters, then the statistics of observations. `PPO.replica` makes a replica, and
    `PPO.replica_weights` returns the vector.
    """

    architecture: Architecture
    batch_size: int
    mini_batch_size: int

    @property
    def weights(self) -> int:
        """The number of weights."""
        return self.architecture.parameters + 2 * self.architecture.normalized

    @property
    def noise(self) -> int:
        """A, the number of random numbers for an action."""
        return self.architecture.noise

    @property
    def fields(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shape and type of the action of one environment, and of the further rows that learning needs."""
        raw_action = self.architecture.raw_action
        rows = {"action": raw_action, "log_prob": ((), np.float32)}
        return rows if self.architecture.bounds is None else rows | {"raw_action": raw_action}

    def policy(self, weights: np.ndarray) -> NumpyPolicy:
        """Return a policy that reads its weights, float32, from a vector at every call."""
        parameters, statistics = np.split(weights, [self.architecture.parameters])
        return NumpyPolicy(self.architecture, parameters, statistics.reshape(2, -1))

    def workspace(self, rows: int) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Return shape and type of the arrays that gradient workers share for updates of up to `rows` rows."""
        return shared_arrays(self.architecture, rows, self.mini_batch_size)

    def gradient_worker(self, workspace: dict[str, np.ndarray]) -> Callable[[int, int, int, int], None]:
        """Return the `compute` of a new `ShardWorker`."""
        return ShardWorker(self.architecture, workspace).compute
