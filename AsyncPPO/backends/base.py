"""The contract of a backend: how N environments are stepped.

A backend holds the environments and one set of arrays with a row for each of them. The caller writes actions into
`arrays.action`, calls `step`, and reads the results from the same rows. Whatever the backend, the same seeds and the
same actions give the same rows.
"""

import os
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import gymnasium as gym
import numpy as np

EnvFactory = Callable[[], gym.Env]
Infos = dict[int, dict[str, Any]]
"""By environment index; only those with something in them."""


def available_cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class EnvError(RuntimeError):
    """An environment failed; the message names its index and carries the traceback."""

    @classmethod
    def of(cls, index: int, what: str, error: BaseException) -> "EnvError":
        """Describe what environment `index` raised in `what`."""
        trace = "".join(traceback.format_exception(error))
        return cls(f"environment {index} failed in {what}: {type(error).__name__}: {error}\n\n{trace}")


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
        arrays = (gym.spaces.Box, gym.spaces.Discrete, gym.spaces.MultiDiscrete, gym.spaces.MultiBinary)
        for what, space in (("observation", obs_space), ("action", action_space)):
            if not isinstance(space, arrays):
                supported = ", ".join(kind.__name__ for kind in arrays)
                raise TypeError(f"the {what} space {space} is not supported; supported are {supported}")
        return cls(
            num_envs,
            tuple(obs_space.shape or ()),
            np.dtype(obs_space.dtype),
            tuple(action_space.shape or ()),
            np.dtype(action_space.dtype),
        )


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

    @classmethod
    def allocate(cls, layout: Layout, memory: Callable[[int], Any] = bytearray) -> "StepArrays":
        """Allocate zeroed arrays; `memory(bytes)` gives the buffer behind each."""
        shapes: dict[str, tuple[tuple[int, ...], Any]] = {
            "obs": (layout.obs_shape, layout.obs_dtype),
            "final_obs": (layout.obs_shape, layout.obs_dtype),
            "action": (layout.action_shape, layout.action_dtype),
            "reward": ((), np.float64),
            "terminated": ((), np.bool_),
            "truncated": ((), np.bool_),
        }
        arrays = {}
        for name, (shape, dtype) in shapes.items():
            size = layout.num_envs * int(np.prod(shape)) * np.dtype(dtype).itemsize
            arrays[name] = np.frombuffer(memory(max(size, 1)), dtype, size // np.dtype(dtype).itemsize).reshape(
                layout.num_envs, *shape
            )
        return cls(**arrays)

    def rows(self, start: int, stop: int) -> "StepArrays":
        """Return views of the rows of environments `start` to `stop`."""
        return StepArrays(*(getattr(self, field.name)[start:stop] for field in fields(self)))


class Backend(ABC):
    """N environments behind one `reset` and one `step`."""

    arrays: StepArrays
    num_workers: int
    """How many processes step; 1 when it is the caller's own."""

    @abstractmethod
    def reset(self, env_ids: np.ndarray, seeds: Sequence[int | None], options: dict[str, Any] | None) -> Infos:
        """Reset some environments, one seed each; fills their `obs`.

        Raises:
            EnvError: an environment raised or gave an observation that does not fit its space.
        """

    @abstractmethod
    def step(self, env_ids: np.ndarray, autoreset: bool) -> Infos:
        """Step some environments by their rows of `action`; fills their other rows.

        With `autoreset`, an environment that finishes is reset at once: `obs` is that of the new episode,
        `final_obs` that of the old one, and its info holds the last info as `final_info`.

        Raises:
            EnvError: as for `reset`; or the process of an environment died.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the environments and leave nothing behind; may be called twice."""
