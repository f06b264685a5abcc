"""What an agent can be made with: the ranges of its hyperparameters, and what an environment's spaces determine."""

import math
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from parallel_rl.utils import COMPOSITE, Features, action_units, bounds_of, choices_of, leaves, register_minatar

LARGEST = float(np.finfo(float).max)
"""A whole number may be beyond it without being infinite."""


def arguments_for(env: Any, action_scaling: float | Sequence[float] | np.ndarray | None = None) -> dict[str, Any]:
    """Return the arguments of `PPO` that an environment's spaces determine.

    Args:
        env: a Gymnasium environment or vector environment, an `EnvVectorizer`, or an environment's id.
        action_scaling: where that is chosen, beside which bounds continuous actions are centred.

    Raises:
        TypeError: a space that is not supported.
    """
    if isinstance(env, str):
        register_minatar(env)
        with gym.make(env) as made:
            return arguments_for(made, action_scaling)
    single = "single_" if hasattr(env, "single_observation_space") else ""
    obs_space, action_space = getattr(env, f"{single}observation_space"), getattr(env, f"{single}action_space")
    arguments: dict[str, Any] = {
        "observation_space": obs_space,
        "action_space": action_space,
        "observ_dim": Features.of(obs_space).columns,
        "is_continuous": isinstance(action_space, spaces.Box),
    }
    if isinstance(action_space, COMPOSITE):
        dimensions = sum(_dimensions(leaf) for _, leaf in leaves(action_space))
        if not dimensions:
            raise TypeError(f"the action space {action_space} is not supported: it has no elements")
        return arguments | {"action_dim": dimensions}
    if not isinstance(action_space, spaces.Box):
        choices = choices_of(action_space)
        first = {"action_offset": choices[0][1]} if len(choices) == 1 else {}
        return arguments | {"action_dim": sum(count for count, _ in choices)} | first
    arguments["action_dim"] = _dimensions(action_space)
    if not arguments["action_dim"]:
        raise TypeError(f"the action space {action_space} is not supported: it has no elements")
    low, high = bounds_of(action_space)
    unit = per_dimension("action_scaling", 1.0 if action_scaling is None else action_scaling, len(low))
    offset, scale = action_units(low, high, unit)
    bounded = np.isfinite(low).all() and np.isfinite(high).all()
    return arguments | {"action_offset": offset} | ({"action_scaling": scale} if bounded else {})


def _dimensions(space: spaces.Space) -> int:
    """Return how many continuous actions a space has, or how many choices in all dimensions together."""
    return math.prod(space.shape) if isinstance(space, spaces.Box) else sum(count for count, _ in choices_of(space))


def space_of_actions(
    is_continuous: bool,
    action_dim: int,
    action_scaling: float | Sequence[float] | np.ndarray | None,
    action_offset: float | Sequence[float] | np.ndarray,
) -> spaces.Space:
    """Return the action space that these arguments of `PPO` describe.

    Raises:
        ValueError: a scaling or an offset that is not a finite number, or one for each dimension.
    """
    offset = per_dimension("action_offset", action_offset, action_dim)
    scale = per_dimension("action_scaling", 1.0 if action_scaling is None else action_scaling, action_dim)
    if not is_continuous:
        return spaces.Discrete(action_dim, start=int(offset[0]))
    return spaces.Box(offset - scale, offset + scale, dtype=np.float64)


def check_ranges(
    positive: dict[str, float | None], not_negative: dict[str, float | None], fractions: dict[str, float]
) -> None:
    """Check numbers by name; None passes.

    Raises:
        ValueError: some are out of range; the message names each of them.
    """
    faults = [
        f"{name} must be {what}, not {value}"
        for what, numbers, fits in (
            ("positive and finite", positive, lambda value: 0 < value <= LARGEST),
            ("finite and not negative", not_negative, lambda value: 0 <= value <= LARGEST),
            ("in [0, 1]", fractions, lambda value: 0 <= value <= 1),
        )
        for name, value in numbers.items()
        if value is not None and not fits(value)
    ]
    if faults:
        raise ValueError("; ".join(faults))


def per_dimension(name: str, value: float | Sequence[float] | np.ndarray, dimensions: int) -> np.ndarray:
    """Return a number, or one for each dimension, as float64 `(dimensions,)`.

    Raises:
        ValueError: another number of them, or they are not finite, or a scale is not positive.
    """
    array = np.asarray(value, dtype=np.float64)
    if array.shape not in ((), (dimensions,)) or not np.isfinite(array).all():
        raise ValueError(f"{name} must be a finite number or {dimensions} of them, not {value}")
    if name == "action_scaling" and (array <= 0).any():
        raise ValueError(f"{name} must be positive, not {value}")
    return np.broadcast_to(array, (dimensions,))
