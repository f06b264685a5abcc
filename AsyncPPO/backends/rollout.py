"""The arrays through which replicas of a policy act in worker processes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from AsyncPPO.backends.base import Layout, allocate
from parallel_rl.utils import episode_ends


class ReplicaPolicy(Protocol):
    """A policy that acts in n environments."""

    def act(self, obs: np.ndarray, noise: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return `action` and further rows to store, `(n, ...)` by name, and the outputs of the policy `(n, A)`.

        Args:
            obs: `(n, ...)`.
            noise: `(n, A)`.
        """

    def complete(self, rows: dict[str, np.ndarray], outputs: np.ndarray) -> dict[str, np.ndarray]:
        """Return further rows of T steps, `(T, n, ...)` by name; called after the rollout, so no environment waits.

        Args:
            rows: `(T, n, ...)` by name, of the steps.
            outputs: `(T, n, A)`.
        """


Compute = Callable[[int, int, int, int], None]
"""`(start, stop, n, m)`: compute the shards of process n of m, for the minibatch of rows `start` to `stop`."""


class Replica(Protocol):
    """A policy that acts in any process, with its weights in a vector. It is pickled only once."""

    @property
    def batch_size(self) -> int:
        """The largest number of transitions, over all environments, of a rollout."""

    @property
    def weights(self) -> int:
        """P, the number of weights."""

    @property
    def noise(self) -> int:
        """A, the number of random numbers for an action, and the size of the policy's output."""

    @property
    def fields(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shape and type of the rows that a `ReplicaPolicy` returns, for one environment."""

    def policy(self, weights: np.ndarray) -> ReplicaPolicy:
        """Return a policy that reads its weights from a vector `(P,)`."""

    def workspace(self, rows: int) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Return shape and type of the arrays that gradient workers share for updates of up to `rows` rows."""

    def gradient_worker(self, workspace: dict[str, np.ndarray]) -> Compute:
        """Return the function that computes a part of the gradient of a minibatch in these arrays."""


@dataclass(frozen=True)
class Plan:
    """The policy that acts, and the largest number of steps of each environment in a rollout."""

    replica: Replica
    horizon: int
    info_keys: tuple[str, ...] = ()
    """Names of the numbers to keep from the last infos of episodes."""


@dataclass(frozen=True)
class Rollout:
    """The arrays that processes share to roll out T steps of N environments."""

    replica: Replica
    weights: np.ndarray
    """float32 `(P,)`, of the policy, written by the caller."""
    noise: np.ndarray
    """float32 `(T, N, A)`, the random numbers behind the actions, written by the caller."""
    rows: dict[str, np.ndarray]
    """`(T, N, ...)`, the arrays of `VecMemory`, written by the replicas."""
    outputs: np.ndarray
    """float32 `(T, N, A)`, the policy's outputs, written by the replicas."""
    workspace: dict[str, np.ndarray]
    """Arrays in which gradients are computed."""
    restarted: np.ndarray
    """bool `(N,)`: the environments that were restarted before the first row of a rollout, which ends their episode."""
    failed: np.ndarray
    """bool `(T, N)`: the last steps before a restart of their environment, where its episode is truncated."""
    infos: np.ndarray
    """float64 `(T, N, K)`: at the last step of an episode, K numbers of its info (the plan's keys); otherwise NaN."""
    info_keys: tuple[str, ...]

    @classmethod
    def allocate(cls, layout: Layout, plan: Plan, memory: Callable[[int], Any] = bytearray) -> "Rollout":
        """Allocate zeroed arrays; `memory(bytes)` gives the buffer behind each."""
        replica, lead = plan.replica, (plan.horizon, layout.num_envs)
        obs_dtype = np.float32 if layout.obs_dtype.kind == "f" else layout.obs_dtype
        fields: dict[str, tuple[tuple[int, ...], Any]] = {
            "obs": (layout.obs_shape, obs_dtype),
            "reward": ((), np.float32),
            "terminated": ((), np.bool_),
            "truncated": ((), np.bool_),
            **replica.fields,
            "action": (layout.action_shape, replica.fields["action"][1]),
            "final_obs": (layout.obs_shape, obs_dtype),
        }
        shared = allocate(
            {
                "weights": ((replica.weights,), np.float32),
                "noise": ((*lead, replica.noise), np.float32),
                "outputs": ((*lead, replica.noise), np.float32),
                "restarted": ((layout.num_envs,), np.bool_),
                "failed": (lead, np.bool_),
                "infos": ((*lead, len(plan.info_keys)), np.float64),
                **{name: ((*lead, *shape), dtype) for name, (shape, dtype) in fields.items()},
            },
            memory,
        )
        workspace = allocate(replica.workspace(layout.num_envs * plan.horizon), memory)
        names = "weights", "noise", "outputs", "restarted", "failed", "infos"
        own = {name: shared.pop(name) for name in names}
        return cls(replica=replica, rows=shared, workspace=workspace, info_keys=plan.info_keys, **own)

    def part(self, first: int, stop: int) -> "Rollout":
        """Return views for environments `first` to `stop`."""
        rows = {name: rows[:, first:stop] for name, rows in self.rows.items()}
        own = {name: getattr(self, name)[:, first:stop] for name in ("noise", "outputs", "failed", "infos")}
        return replace(self, rows=rows, restarted=self.restarted[first:stop], **own)

    def truncate(self, row: int, step: int, start: int, next_obs: np.ndarray) -> None:
        """Truncate the episode of an environment that was restarted before a step.

        Args:
            row: the environment.
            step: the first one after the restart, in the rollout.
            start: the first step of the current rollout; `restarted` records a restart there.
            next_obs: the last observation of the environment before the restart.
        """
        rows, last = self.rows, (step - 1, row)
        if step and episode_ends(rows["terminated"][last], rows["truncated"][last]):
            return
        if step == start:
            self.restarted[row] = True
        else:
            rows["truncated"][last], rows["final_obs"][last], self.failed[last] = True, next_obs, True
