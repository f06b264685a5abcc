"""What worker processes do for PPO: they act with a replica of its policy, and compute shards of its gradients.

A shard has at most `SHARD_ROWS` rows. The gradient of a minibatch is the sum over its shards, in a fixed order, so it
is bit for bit the same for any number of processes. The processes share the arrays of `shared_arrays`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from PPO.fast.distributions import log_slope
from PPO.fast.gradient import METRICS, AnalyticGradient
from PPO.fast.policy import Architecture, Networks, NumpyPolicy
from PPO.memory import Rows
from PPO.objective import Objective

SHARD_ROWS = 256
"""The largest number of rows in a shard; their activations fit the cache."""
SHARED_FIELDS = ("obs", "raw_action", "log_prob", "advantage", "target", "value")
"""The fields of `Rows` that the analytic gradient depends on."""


def shared_arrays(
    architecture: Architecture, rows: int, mini_batch_size: int
) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Return shape and type of each array that the gradient workers share, for M = `rows`."""
    shards, (shape, dtype) = shards_of(mini_batch_size), architecture.raw_action
    return {
        "parameters": ((architecture.parameters,), np.float32),
        "objective": ((len(Objective._fields),), np.float64),
        "gradients": ((shards, architecture.parameters), np.float32),
        "metrics": ((shards, len(METRICS)), np.float64),
        "obs": ((rows, architecture.features.width), np.float32),
        "raw_action": ((rows, *shape), dtype),
        "log_prob": ((rows,), np.float32),
        "advantage": ((rows,), np.float32),
        "target": ((rows, architecture.values), np.float32),
        "value": ((rows, architecture.values), np.float32),
    }


class GradientWorkers(Protocol):
    """Processes that compute the shards of a minibatch together."""

    @property
    def workspace(self) -> dict[str, np.ndarray]:
        """The arrays of `shared_arrays`."""

    def compute(self, start: int, stop: int, processes: int) -> None:
        """Compute the gradient of the minibatch of rows `start` to `stop`, by that many processes at most."""


class LocalWorkers:
    """This process alone."""

    def __init__(self, architecture: Architecture, rows: int, mini_batch_size: int) -> None:
        """Allocate the arrays for up to `rows` rows."""
        shapes = shared_arrays(architecture, rows, mini_batch_size)
        self.workspace = {name: np.zeros(shape, dtype) for name, (shape, dtype) in shapes.items()}
        self._worker = ShardWorker(architecture, self.workspace)

    def compute(self, start: int, stop: int, processes: int) -> None:
        """Compute the gradient of the minibatch of rows `start` to `stop` in this process."""
        self._worker.compute(start, stop, 0, 1)


class ShardWorker:
    """Computes some of the shards of every minibatch; each process has one."""

    def __init__(self, architecture: Architecture, arrays: dict[str, np.ndarray]) -> None:
        self._objective, self._metrics = arrays["objective"], arrays["metrics"]
        self._rows = shared_rows(arrays)
        self._gradients = [
            AnalyticGradient(architecture, arrays["parameters"], gradient) for gradient in arrays["gradients"]
        ]

    def compute(self, start: int, stop: int, number: int, processes: int) -> None:
        """Compute this process's shards of the minibatch of rows `start` to `stop`: write gradients and metrics.

        Each of K processes computes every K-th shard, from shard `number` on. A minibatch with a single shard is split
        by network: one process computes the actor's gradient, another the critic's.
        """
        objective, count = Objective.of(self._objective), stop - start
        shards, networks = shards_of(count), Networks.BOTH
        if shards == 1 and processes > 1:
            number, processes, networks = 0, 1, (Networks.ACTOR, Networks.CRITIC)[number]
        for shard in range(number, shards, processes):
            rows = self._rows.part(start + shard * SHARD_ROWS, min(start + (shard + 1) * SHARD_ROWS, stop))
            self._gradients[shard].compute(objective, rows, count, self._metrics[shard], networks)


class ShardedGradient:
    """The analytic gradients of the minibatches of an update."""

    def __init__(
        self,
        policy: NumpyPolicy,
        gradient: np.ndarray,
        objective: Objective,
        count: int,
        mini_batch_size: int,
        workers: GradientWorkers | None,
    ) -> None:
        """Send the objective to the workers; if there are none, or their arrays are too small, use this process alone.

        Every minibatch reads the parameters `(P,)` of the policy and writes the gradient `(P,)`.
        """
        shards = shards_of(mini_batch_size)
        if workers is None or len(workers.workspace["obs"]) < count or len(workers.workspace["gradients"]) < shards:
            workers = LocalWorkers(policy.architecture, count, mini_batch_size)
        self._policy, self._gradient, self._workers = policy, gradient, workers
        self._arrays, self._shuffled = workers.workspace, shared_rows(workers.workspace)
        self._arrays["objective"][:] = objective.numbers()

    def load(self, rows: Rows) -> None:
        """Store the rows, tensors on the CPU, of which `shuffle` writes a permutation into the shared arrays."""
        self._rows, bounds = rows.numpy(), self._policy.architecture.bounds
        if bounds is not None and bounds.squash:  # log_prob of raw actions: the ratio is the same
            slope = log_slope(self._rows.raw_action, bounds.scale)
            self._rows = self._rows._replace(log_prob=self._rows.log_prob + slope)

    def shuffle(self, order: np.ndarray) -> Rows:
        """Permute the rows by the order `(M,)`; return views of them."""
        for name in SHARED_FIELDS:
            shuffled = getattr(self._shuffled, name)[: len(order)]
            np.take(getattr(self._rows, name), order, axis=0, out=shuffled, mode="clip")
        return self._shuffled.part(0, len(order))

    def compute(self, start: int, stop: int) -> dict[str, Any]:
        """Write the gradient of the minibatch of rows `start` to `stop`; return its metrics."""
        arrays, shards = self._arrays, shards_of(stop - start)
        arrays["parameters"][:] = self._policy.parameters
        self._workers.compute(start, stop, max(shards, 2))
        np.add.reduce(arrays["gradients"][:shards], axis=0, out=self._gradient)
        return dict(zip(METRICS, arrays["metrics"][:shards].sum(axis=0).tolist(), strict=True))


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


def shared_rows(arrays: dict[str, np.ndarray]) -> Rows:
    """Return the rows among the shared arrays."""
    return Rows(**{name: arrays[name] for name in SHARED_FIELDS})


def shards_of(rows: int) -> int:
    """Return the number of shards of a minibatch."""
    return -(-rows // SHARD_ROWS)
