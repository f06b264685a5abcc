"""Helpers of the hand-written loop: which environments still run, and the rows that belong to them.

The mask is a bool array `(N,)` in which True means that the environment has FINISHED its episode. Observations, actions
and rewards have *compacted* rows: only the environments that still run have one, in index order.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from parallel_rl.utils.trajectory import Trajectory


class EnvBuffer(Protocol):
    """Stores the transitions of each environment separately; `AsyncPPO.VecMemory` is one."""

    num_envs: int

    def append(self, env_ids: np.ndarray, *args: Any, **rows: Any) -> None:
        """Append one row by name to the buffer of each environment in `env_ids`, as `VecMemory.append` does."""

    def take(self) -> list[Trajectory]:
        """Return all trajectories, and empty the buffers."""


class TrajectorySink(Protocol):
    """Stores whole trajectories; `PPO.Memory` is one."""

    def append(self, trajectory: Trajectory) -> None:
        """Store one more trajectory."""


def indexes_of_active_environments(mask: np.ndarray) -> np.ndarray:
    """Return the indexes `(n,)`, ascending, of the environments that still run."""
    return (~mask).nonzero()[0]


def number_of_active_environments(mask: np.ndarray) -> int:
    """Return how many environments still run."""
    return int(np.count_nonzero(~mask))


def range_of_active_environments(mask: np.ndarray) -> range:
    """Return `range(n)` over the compacted rows of the environments that still run."""
    return range(number_of_active_environments(mask))


def update_active_environments_list(mask: np.ndarray, finished: ArrayLike) -> np.ndarray:
    """Mark in the mask which of the running environments have just finished.

    Args:
        mask: bool `(N,)`, True for finished; changed in place.
        finished: bool `(n,)`, one for each environment that was running, in index order.

    Returns:
        The same `mask`.

    Raises:
        ValueError: `finished` does not have one entry for each running environment.
    """
    finished = np.asarray(finished, dtype=bool)
    running = number_of_active_environments(mask)
    if finished.shape != (running,):
        raise ValueError(f"finished has shape {finished.shape}, but {running} environments are running: ({running},)")
    mask[~mask] = finished
    return mask


def inactive_states_dropout(states: np.ndarray, finished: ArrayLike) -> np.ndarray:
    """Return the rows of `states` `(n, ...)` whose environments still run, given `finished` `(n,)`."""
    return states[~np.asarray(finished, dtype=bool)]


def buffer_append(
    buffer: EnvBuffer,
    states: ArrayLike,
    actions: ArrayLike,
    rewards: ArrayLike,
    dones: ArrayLike,
    is_env_terminal: np.ndarray,
    num_envs: int,
    *,
    truncates: ArrayLike | None = None,
    next_states: ArrayLike | None = None,
    **extras: ArrayLike,
) -> None:
    """Append one compacted step of the running environments to their buffers.

    Args:
        buffer: a `VecMemory`, or anything with its `num_envs` and `append`.
        states: `(n, ...)`, the observations that the policy acted on.
        actions: `(n, ...)`.
        rewards: `(n,)`.
        dones: `(n,)`, terminated: the episode ended by the rules of the task.
        is_env_terminal: the mask `(N,)` as it was BEFORE this step's update, True for finished.
        num_envs: N.
        truncates: `(n,)`, the episode was truncated (a time limit). Without it only `dones` ends an episode.
        next_states: `(n, ...)`, the next observations, before any reset. An end that is not a termination bootstraps
            from its next observation; without `next_states`, from the last observation in `states` instead.
        extras: further rows for the learner, as `PPO.act` returns them (`log_prob`, ...).

    Raises:
        ValueError: the sizes do not agree.
    """
    if len(is_env_terminal) != num_envs or buffer.num_envs != num_envs:
        raise ValueError(
            f"num_envs={num_envs}, but the mask has {len(is_env_terminal)} entries and the buffer {buffer.num_envs}"
        )
    buffer.append(
        indexes_of_active_environments(is_env_terminal),
        obs=states,
        action=actions,
        reward=rewards,
        terminated=dones,
        truncated=np.zeros(np.shape(dones), dtype=bool) if truncates is None else truncates,
        next_obs=next_states,
        **extras,
    )


def buffer_to_target_buffer_transfer(buffer: EnvBuffer, target_buffer: TrajectorySink) -> None:
    """Move every environment's trajectory from `buffer`, which is then empty, to `target_buffer`."""
    for trajectory in buffer.take():
        target_buffer.append(trajectory)
