"""Demonstrations: trajectories from a dataset of Minari, or from an `.npz` file. Nothing in a file is executed."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
from gymnasium import spaces

from OffPolicy.her import ACHIEVED, DESIRED, GoalFunctions
from parallel_rl.utils import Trajectory, row_type

MINARI = "minari:"
"""The prefix of the name of a Minari dataset."""
ROUNDING = 1e-4
"""The fraction of the range of actions by which they may be outside."""


def load_demonstrations(
    source: str | os.PathLike[str],
    observation_space: spaces.Space,
    action_space: spaces.Space,
    goal_functions: GoalFunctions | None,
) -> list[Trajectory]:
    """Return one trajectory for each demonstrated episode.

    Args:
        source: `minari:ID`, a dataset on this machine; or the path of an `.npz` file with arrays of E episodes of T
            steps: `obs` `(E, T + 1, ...)`, or an array for each key of a `Dict`; `acs` `(E, T, ...)`; `rew` `(E, T)`;
            and bool `terminated` `(E, T)` if episodes terminate.
        observation_space: of one environment.
        action_space: of one environment.
        goal_functions: of a goal-conditioned environment; they compute missing rewards and terminations.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: Minari is not installed.
        ValueError: the file holds pickled objects, or no episodes, or an array is missing, does not fit or has NaN or
            infinite numbers, or actions are not in their space.
    """
    name = str(source)
    episodes = _minari_episodes(name) if name.startswith(MINARI) else _file_episodes(name, observation_space)
    if not episodes:
        raise ValueError(f"{name} has no episodes")
    return [_trajectory(name, observation_space, action_space, goal_functions, episode) for episode in episodes]


def _file_episodes(name: str, observation_space: spaces.Space) -> list[dict[str, Any]]:
    arrays = _arrays_of(Path(name))
    if "acs" not in arrays:
        raise ValueError(f"{name} has no array acs; it has {', '.join(arrays)}")
    parts = list(observation_space.spaces) if isinstance(observation_space, spaces.Dict) else []
    used = {key: arrays[key] for key in (*(parts or ["obs"]), "acs", "rew", "terminated") if key in arrays}
    if len({array.shape[:1] for array in used.values()}) > 1:
        shapes = ", ".join(f"{key} {array.shape}" for key, array in used.items())
        raise ValueError(f"{name} needs as many episodes in each array, and has {shapes}")
    episodes = [{key: array[number] for key, array in used.items()} for number in range(len(used["acs"]))]
    return [episode | {"obs": episode} if parts else episode for episode in episodes]


def _arrays_of(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except FileNotFoundError:
        raise FileNotFoundError(
            f"there are no demonstrations at {path}: give demo_path=, or resume a run by --override demo_path=PATH"
        ) from None
    except Exception as error:
        is_archive = is_zipfile(path)
        if is_archive and "allow_pickle" in str(error):
            raise ValueError(
                f"{path} holds pickled objects, which are not loaded, since unpickling can execute code: save plain "
                "arrays (docs/offpolicy.md shows how)"
            ) from None
        why = f" ({error})" if is_archive or isinstance(error, OSError) else ""  # NumPy takes others for pickles
        raise ValueError(f"{path} is not an .npz file{why}") from error


def _minari_episodes(name: str) -> list[dict[str, Any]]:
    try:
        import minari
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{name} needs Minari: pip install 'minari[hdf5]'", name=error.name) from None
    return [
        {
            "obs": episode.observations,
            "acs": episode.actions,
            "rew": episode.rewards,
            "terminated": episode.terminations,
        }
        for episode in minari.load_dataset(name.removeprefix(MINARI)).iterate_episodes()
    ]


def _trajectory(
    name: str,
    observation_space: spaces.Space,
    action_space: spaces.Space,
    goal_functions: GoalFunctions | None,
    episode: Mapping[str, Any],
) -> Trajectory:
    steps = len(episode["acs"])
    if not steps:
        raise ValueError(f"{name} has an episode without a step")
    action = _checked(episode["acs"], (steps, *row_type(action_space)[0]), "acs", name)
    if isinstance(action_space, spaces.Box):
        _check_bounds(action, action_space, name)
    obs = _rows(episode.get("obs"), observation_space, steps + 1, name)
    reward, terminated = episode.get("rew"), episode.get("terminated")
    if goal_functions is not None and (reward is None or terminated is None):
        goals = obs[ACHIEVED][1:], obs[DESIRED][1:]
        goal_functions = goal_functions.on_arrays(*goals)
        reward = goal_functions.values("compute_reward", *goals) if reward is None else reward
        if terminated is None and goal_functions.compute_terminated is not None:
            terminated = goal_functions.values("compute_terminated", *goals)
    if reward is None:
        raise ValueError(f"{name} has no array rew")
    reward = _checked(reward, (steps,), "rew", name).astype(np.float32)
    ended = _checked(np.zeros(steps) if terminated is None else terminated, (steps,), "terminated", name).astype(bool)
    if ended[:-1].any():
        steps = int(ended.argmax()) + 1
    truncated = np.zeros(steps, bool)
    truncated[-1] = not ended[steps - 1]
    return Trajectory(0, obs[:steps], action[:steps], reward[:steps], ended[:steps], truncated, obs[steps : steps + 1])


def _check_bounds(action: np.ndarray, space: spaces.Box, name: str) -> None:
    low, high = space.low, space.high
    rounding = ROUNDING * (high - low)
    if (action < low - rounding).any() or (action > high + rounding).any():
        raise ValueError(
            f"{name} has acs from {action.min():g} to {action.max():g}, but actions are from {low.min():g} to "
            f"{high.max():g}: clip or rescale them"
        )


def _rows(values: Any, space: spaces.Space, count: int, name: str) -> np.ndarray:
    """Return observations as rows of the replay buffer."""
    shape, kind = row_type(space)
    if kind.names is None:
        return _checked(values, (count, *shape), "obs", name)
    rows = np.zeros(count, kind)
    for key in kind.names:
        rows[key] = _checked(values.get(key), rows[key].shape, key, name)
    return rows


def _checked(values: Any, shape: tuple[int, ...], key: str, name: str) -> np.ndarray:
    if values is None or np.shape(values) != shape:
        raise ValueError(f"{name} needs {key} of the shape {shape} for an episode, and has {np.shape(values)}")
    array = np.asarray(values)
    if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        raise ValueError(f"{name}: {key} has NaN, infinite or non-numeric values")
    return array
