"""The interface of a backend: how N environments are stepped.

A backend holds the environments and one set of arrays with a row for each of them. The caller writes actions into
`arrays.action`, calls `send` and `recv`, and reads the results from the same rows. Whatever the backend, the same seeds
and the same actions give the same rows.
"""

import math
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from AsyncPPO.backends.apply import set_reset_options
from AsyncPPO.workers import WorkerError, WorkerPool
from parallel_rl.utils import reason_of, row_type

if TYPE_CHECKING:
    from AsyncPPO.backends.rollout import Rollout

EnvFactory = Callable[[], gym.Env]
Infos = dict[int, dict[str, Any]]
"""By environment index, without empty ones. They are copies: the environments keep no reference to them."""


class EnvError(WorkerError):
    """An environment failed; the message names its index and carries the traceback."""

    @classmethod
    def of(cls, index: int, what: str, error: BaseException) -> "EnvError":
        """Return the error for an exception of environment `index` in `what`."""
        trace = "".join(traceback.format_exception(error))
        try:
            message = str(error)
        except Exception:
            message = "(its message cannot be read)"
        return cls(f"environment {index} failed in {what}: {type(error).__name__}: {message}\n\n{trace}")

    @classmethod
    def unmade(cls, index: int, error: BaseException) -> "EnvError":
        """Return the error for an exception while environment `index` was made; its message is one line."""
        return cls(f"environment {index} cannot be made: {reason_of(error)}")


@dataclass(frozen=True)
class FaultPolicy:
    """What to do if an environment fails."""

    restart: bool = False
    """Whether to restart them; otherwise a failure is an error."""
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
    """`(N, ...)`, the observations for the next actions."""
    final_obs: np.ndarray
    """`(N, ...)`, for an environment that was reset in the same step: its last observation before the reset."""
    action: np.ndarray
    """`(N, ...)`, written by the caller."""
    reward: np.ndarray
    """float64 `(N,)`."""
    terminated: np.ndarray
    """bool `(N,)`."""
    truncated: np.ndarray
    """bool `(N,)`."""
    failed: np.ndarray
    """bool `(N,)`: the environments that failed in their last step and were restarted."""

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


class Backend(ABC):
    """N environments behind one `reset`, one `send` and one `recv`."""

    pool: WorkerPool
    """The processes that step, with a `BlockContext` in each; this process is among them."""
    arrays: StepArrays
    rollout: "Rollout | None"
    """The arrays that `Replicas` fill; None without a plan."""
    num_workers: int
    """The number of processes that step; 1 if only the caller's does."""
    lost: np.ndarray | None = None
    """Bool `(N,)`: the environments whose worker died outside of a step; the next step truncates their episodes."""
    waiting: np.ndarray | None = None
    """Bool `(N,)`: the environments that the next step will reset, if they are not reset at once."""

    @property
    @abstractmethod
    def restarts(self) -> int:
        """The number of restarts of environments that failed, or whose process did."""

    @abstractmethod
    def reset(self, env_ids: np.ndarray, seeds: Sequence[int | None], options: dict[str, Any] | None) -> Infos:
        """Reset some environments, one seed each; fills their `obs`.

        Raises:
            EnvError: an environment raised or gave an observation that does not fit its space.
        """

    @abstractmethod
    def send(self, env_ids: np.ndarray, autoreset: bool) -> None:
        """Begin a step of some environments with the actions in their rows of `action`.

        With `autoreset`, an environment that finishes is reset at once: then `obs` is the first observation of the new
        episode, `final_obs` the last one of the old episode, and the info has the last info as `final_info`. An
        environment that failed and was restarted is `failed`, and its info has the reason as `env_error`.
        """

    @abstractmethod
    def recv(self, min_envs: int) -> tuple[np.ndarray, Infos]:
        """Wait until at least `min_envs` of the environments that were sent actions have been stepped.

        Returns:
            These environments `(n,)`, ascending, whose rows are filled, and their infos.

        Raises:
            EnvError: as for `reset`; or the process of an environment died.
        """

    def apply(self, function: Callable[[Any], dict[int, Any]]) -> dict[int, Any]:
        """Apply a function of `backends.apply` to every block; none may be in the middle of a step.

        Returns:
            An `Outcome` for each environment that has one.

        Raises:
            TypeError: the function cannot be pickled, and there are other processes.
            EnvError: the process of an environment died.
        """
        return joined_results(self.pool.run("apply", function))

    def set_reset_options(self, options: dict[str, Any] | None) -> None:
        """Set the options of every reset that has no options of its own, restarts included."""
        self.apply(partial(set_reset_options, options=options))

    def snapshots(self) -> Infos:
        """Return a `Snapshot` of every environment; an empty dict if they cannot be read.

        Raises:
            EnvError: as for `recv`.
        """
        return joined_results(self.pool.run("snapshots", timed=False))

    def restore(self, snapshots: Infos) -> Infos:
        """Restore every environment from what `snapshots` returned; `obs` is not changed.

        Returns:
            For environments that could not be restored and must be reset: infos with the reason as `env_error`.

        Raises:
            EnvError: as for `recv`.
        """
        return joined_results(self.pool.run("restore", snapshots, timed=False, repeatable=False))

    def describe_wait(self) -> str:
        """Return, in words, which environments the caller waits for; may be called from another thread."""
        return self.pool.describe_wait()

    def close(self) -> None:
        """Close the environments and leave nothing behind; may be called twice."""
        self.pool.close()


def joined_results(results: dict[int, Any]) -> dict[int, Any]:
    """Join the results of all processes, by environment, in one dict."""
    return {index: value for result in results.values() for index, value in (result or {}).items()}
