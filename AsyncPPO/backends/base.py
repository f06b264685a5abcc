"""The contract of a backend: how N environments are stepped.

A backend holds the environments and one set of arrays with a row for each of them. The caller writes actions into
`arrays.action`, calls `send` and `recv`, and reads the results from the same rows. Whatever the backend, the same seeds
and the same actions give the same rows.
"""

import math
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from AsyncPPO.workers import WorkerError
from parallel_rl.utils import episode_ends, row_type

EnvFactory = Callable[[], gym.Env]
Infos = dict[int, dict[str, Any]]
"""By environment index; only those with something in them. They are the receiver's own, not the environments'."""


class EnvError(WorkerError):
    """An environment failed; the message names its index and carries the traceback."""

    @classmethod
    def of(cls, index: int, what: str, error: BaseException) -> "EnvError":
        """Describe what environment `index` raised in `what`."""
        trace = "".join(traceback.format_exception(error))
        try:
            said = str(error)
        except Exception:
            said = "what it says cannot be told"
        return cls(f"environment {index} failed in {what}: {type(error).__name__}: {said}\n\n{trace}")


@dataclass(frozen=True)
class FaultPolicy:
    """What to do about environments that fail."""

    restart: bool = False
    """Whether to start them anew; otherwise a failure is an error."""
    timeout: float | None = None
    """Seconds that a reset or a step may take."""


@dataclass(frozen=True)
class Layout:
    """Shapes and types of the rows that N environments exchange."""

    num_envs: int
    obs_shape: tuple[int, ...]
    obs_dtype: np.dtype
    action_shape: tuple[int, ...]
    action_dtype: np.dtype

    @classmethod
    def of(cls, num_envs: int, obs_space: gym.Space, action_space: gym.Space) -> "Layout":
        """Derive the layout from an environment's spaces.

        Raises:
            TypeError: a space whose elements are not arrays of one shape.
        """
        return cls(num_envs, *row_type(obs_space), *row_type(action_space))


def allocate(
    shapes: dict[str, tuple[tuple[int, ...], Any]], memory: Callable[[int], Any] = bytearray
) -> dict[str, np.ndarray]:
    """Allocate zeroed arrays of some shapes and types by name; `memory(bytes)` gives the buffer behind each."""
    arrays = {}
    for name, (shape, dtype) in shapes.items():
        count = math.prod(shape)
        buffer = memory(max(count * np.dtype(dtype).itemsize, 1))
        arrays[name] = np.frombuffer(buffer, dtype, count).reshape(shape)
    return arrays


@dataclass(frozen=True)
class StepArrays:
    """One row for each of the N environments."""

    obs: np.ndarray
    """`(N, ...)`, what the next action answers."""
    final_obs: np.ndarray
    """`(N, ...)`, where an environment was reset in the same step: its last observation before that."""
    action: np.ndarray
    """`(N, ...)`, written by the caller."""
    reward: np.ndarray
    """float64 `(N,)`."""
    terminated: np.ndarray
    """bool `(N,)`."""
    truncated: np.ndarray
    """bool `(N,)`."""
    failed: np.ndarray
    """bool `(N,)`, whose last step only says that they failed and were restarted."""

    @classmethod
    def allocate(cls, layout: Layout, memory: Callable[[int], Any] = bytearray) -> "StepArrays":
        """Allocate zeroed arrays; `memory(bytes)` gives the buffer behind each."""
        lead = layout.num_envs
        shapes: dict[str, tuple[tuple[int, ...], Any]] = {
            "obs": ((lead, *layout.obs_shape), layout.obs_dtype),
            "final_obs": ((lead, *layout.obs_shape), layout.obs_dtype),
            "action": ((lead, *layout.action_shape), layout.action_dtype),
            "reward": ((lead,), np.float64),
            "terminated": ((lead,), np.bool_),
            "truncated": ((lead,), np.bool_),
            "failed": ((lead,), np.bool_),
        }
        return cls(**allocate(shapes, memory))

    def rows(self, start: int, stop: int) -> "StepArrays":
        """Return views of the rows of environments `start` to `stop`."""
        return StepArrays(*(getattr(self, field.name)[start:stop] for field in fields(self)))


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


class Backend(ABC):
    """N environments behind one `reset`, one `send` and one `recv`."""

    arrays: StepArrays
    rollout: Rollout | None
    """What `play` fills; None without a plan."""
    num_workers: int
    """How many processes step; 1 when it is the caller's own."""

    @property
    @abstractmethod
    def restarts(self) -> int:
        """How many environments were started anew because they, or their process, failed."""

    @abstractmethod
    def reset(self, env_ids: np.ndarray, seeds: Sequence[int | None], options: dict[str, Any] | None) -> Infos:
        """Reset some environments, one seed each; fills their `obs`.

        Raises:
            EnvError: an environment raised or gave an observation that does not fit its space.
        """

    @abstractmethod
    def send(self, env_ids: np.ndarray, autoreset: bool) -> None:
        """Have some environments stepped by their rows of `action`.

        With `autoreset`, an environment that finishes is reset at once: `obs` is that of the new episode,
        `final_obs` that of the old one, and its info holds the last info as `final_info`. One that fails and is
        started anew is `failed`, and its info says why as `env_error`.
        """

    @abstractmethod
    def recv(self, min_envs: int) -> tuple[np.ndarray, Infos]:
        """Wait until at least `min_envs` of the environments that were sent have been stepped; their rows are filled.

        Returns:
            The environments that have, `(n,)`, ascending, and infos.

        Raises:
            EnvError: as for `reset`; or the process of an environment died.
        """

    @abstractmethod
    def play(self, start: int, stop: int) -> None:
        """Let the policy of the plan play all environments, and fill the rows `start` to `stop` of `rollout`.

        Raises:
            EnvError: as for `recv`.
        """

    @abstractmethod
    def compute(self, start: int, stop: int, processes: int) -> None:
        """Compute the gradient of a minibatch in `rollout.workspace`, by that many processes at most."""

    @abstractmethod
    def apply(self, function: Callable[[Any], Any]) -> dict[int, Any]:
        """Apply a function of `backends.apply` to every block, wherever it is; none may be in the middle of a step.

        Returns:
            An `Outcome` of each environment that it has one of.

        Raises:
            TypeError: the function cannot be pickled, and there are other processes.
            EnvError: the process of an environment died.
        """

    @abstractmethod
    def set_reset_options(self, options: dict[str, Any] | None) -> None:
        """Set what every reset is handed that has no options of its own; also where environments start anew."""

    @abstractmethod
    def snapshots(self) -> Infos:
        """Return a `Snapshot` of every environment; of none if they cannot be looked into.

        Raises:
            EnvError: as for `recv`.
        """

    @abstractmethod
    def restore(self, snapshots: Infos) -> Infos:
        """Make every environment what `snapshots` returned; `obs` is not changed.

        Returns:
            Of those that cannot go on from there, but have to be reset, why, as `env_error`.

        Raises:
            EnvError: as for `recv`.
        """

    @abstractmethod
    def waits_for(self) -> str:
        """Say which environments the caller waits for, as far as is known; may be called from another thread."""

    @abstractmethod
    def close(self) -> None:
        """Close the environments and leave nothing behind; may be called twice."""
