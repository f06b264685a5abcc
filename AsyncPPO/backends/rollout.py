"""What a policy needs to act beside environments, and the rows that it fills."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from AsyncPPO.backends.base import Layout, allocate
from parallel_rl.utils import episode_ends


class Player(Protocol):
    """Plays in n environments."""

    def act(self, obs: np.ndarray, noise: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return `action` and further rows to remember, `(n, ...)` by name, and the output `(n, A)` behind them.

        Args:
            obs: `(n, ...)`.
            noise: `(n, A)`.
        """

    def complete(self, rows: dict[str, np.ndarray], outputs: np.ndarray) -> dict[str, np.ndarray]:
        """Return what else is to be remembered of T steps, `(T, n, ...)` by name: no environment has waited for it.

        Args:
            rows: `(T, n, ...)` by name, of the steps.
            outputs: `(T, n, A)`.
        """


Compute = Callable[[int, int, int, int], None]
"""Of the gradient of the minibatch of rows from the first number to the second, compute the part of process n of m."""


class Replica(Protocol):
    """A policy that acts in any process, by weights that lie in a vector; it is pickled once."""

    @property
    def batch_size(self) -> int:
        """How many transitions, of all environments together, are collected by the same weights, at most."""

    @property
    def weights(self) -> int:
        """P, how many weights."""

    @property
    def noise(self) -> int:
        """A, how many random numbers an action takes, and how many of the policy's output."""

    @property
    def fields(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shape and type of what a `Player` says, for one environment."""

    def player(self, weights: np.ndarray) -> Player:
        """Return a policy that reads its weights from `(P,)`."""

    def workspace(self, rows: int) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Return shape and type of the arrays that processes share to learn from that many rows."""

    def learner(self, workspace: dict[str, np.ndarray]) -> Compute:
        """Return what computes a part of the gradient of a minibatch there."""


@dataclass(frozen=True)
class Plan:
    """Which policy plays, and how many steps of each environment there is room for."""

    replica: Replica
    horizon: int
    info_keys: tuple[str, ...] = ()
    """Which numbers of the last infos of episodes are kept, by name."""


@dataclass(frozen=True)
class Rollout:
    """What the processes share to play a trajectory of T steps of N environments."""

    replica: Replica
    weights: np.ndarray
    """float32 `(P,)`, of the policy, written by the caller."""
    noise: np.ndarray
    """float32 `(T, N, A)`, what chance adds to the actions, written by the caller."""
    rows: dict[str, np.ndarray]
    """`(T, N, ...)`, the arrays of `VecMemory`, written by whoever plays."""
    outputs: np.ndarray
    """float32 `(T, N, A)`, what the policy made of the observations, written by whoever plays."""
    workspace: dict[str, np.ndarray]
    """In which gradients are computed."""
    anew: np.ndarray
    """bool `(N,)`, set where an environment was started anew at the first row of a play: what was before is over."""
    infos: np.ndarray
    """float64 `(T, N, K)`: at the last step of an episode the plan's K numbers of its info, otherwise NaN."""
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
                "anew": ((layout.num_envs,), np.bool_),
                "infos": ((*lead, len(plan.info_keys)), np.float64),
                **{name: ((*lead, *shape), dtype) for name, (shape, dtype) in fields.items()},
            },
            memory,
        )
        workspace = allocate(replica.workspace(layout.num_envs * plan.horizon), memory)
        names = "weights", "noise", "outputs", "anew", "infos"
        weights, noise, outputs, anew, infos = (shared.pop(name) for name in names)
        return cls(replica, weights, noise, shared, outputs, workspace, anew, infos, plan.info_keys)

    def part(self, first: int, stop: int) -> "Rollout":
        """Return views of what belongs to environments `first` to `stop`."""
        rows = {name: rows[:, first:stop] for name, rows in self.rows.items()}
        noise, outputs, infos = (array[:, first:stop] for array in (self.noise, self.outputs, self.infos))
        anew = self.anew[first:stop]
        return Rollout(self.replica, self.weights, noise, rows, outputs, self.workspace, anew, infos, self.info_keys)

    def truncate(self, row: int, step: int, start: int, next_obs: np.ndarray) -> None:
        """Note that an environment was restarted before a step: the episode before is truncated.

        Args:
            row: of the environment.
            step: which.
            start: the first step of the present play; what was before, `anew` says.
            next_obs: the last observation of the environment before the restart.
        """
        rows, last = self.rows, (step - 1, row)
        if step and episode_ends(rows["terminated"][last], rows["truncated"][last]):
            return
        if step == start:
            self.anew[row] = True
        else:
            rows["truncated"][last], rows["final_obs"][last] = True, next_obs
