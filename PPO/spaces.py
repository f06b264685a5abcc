"""How the arguments of `PPO` follow from an environment's spaces, and spaces from arguments; and their checks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

import numpy as np
from gymnasium import spaces

from parallel_rl.utils import (
    COMPOSITE,
    Features,
    action_units,
    bounds_of,
    choices_of,
    leaves,
    settings_class,
    spaces_in,
)
from PPO.actor_critic import ActorCritic, MakeEncoder
from PPO.companions import Companion
from PPO.config import PPOConfig

Scaling = float | Sequence[float] | np.ndarray
"""A number, or one for each dimension."""
BOUNDS = {"action_scaling", "action_offset"}
"""The arguments that describe the bounds of continuous actions."""


@settings_class
class ForEnv(PPOConfig):
    """The arguments of `PPO.for_env`, for type checkers and editors: those of `PPO` that spaces do not determine."""

    env: Any = field(kw_only=False)
    companions: Sequence[str | Companion] = ()  # type: ignore[assignment]  # in Python also objects
    action_scaling: Scaling | None = None
    action_offset: Scaling = 0.0
    encoder: MakeEncoder | None = None
    actor_critic: type[ActorCritic] = ActorCritic
    seed: int | None = None


def arguments_for(env: Any, action_scaling: Scaling | None = None) -> dict[str, Any]:
    """Return the arguments of `PPO` that follow from the spaces of an environment.

    Args:
        env: a Gymnasium environment or vector environment, an `EnvVectorizer`, or an environment's id.
        action_scaling: that of the user; it determines the center of actions with only one bound.

    Raises:
        TypeError: a space is not supported.
    """
    obs_space, action_space = spaces_in(env)
    arguments: dict[str, Any] = {
        "observation_space": obs_space,
        "action_space": action_space,
        "observ_dim": Features.of(obs_space).columns,
        "action_dim": sum(_dimensions(leaf) for _, leaf in leaves(action_space)),
        "is_continuous": isinstance(action_space, spaces.Box),
    }
    if not arguments["action_dim"]:
        raise TypeError(f"the action space {action_space} is not supported: it has no elements")
    if isinstance(action_space, spaces.Box):
        low, high = bounds_of(action_space)
        offset, scale = action_units(low, high, _scales(action_scaling, len(low)))
        return arguments | {"action_offset": offset} | ({"action_scaling": scale} if is_finite(action_space) else {})
    choices = [] if isinstance(action_space, COMPOSITE) else choices_of(action_space)
    return arguments | ({"action_offset": choices[0][1]} if len(choices) == 1 else {})


def _dimensions(space: spaces.Space) -> int:
    """Return the number of dimensions of a Box, or of choices in all dimensions together."""
    return math.prod(space.shape) if isinstance(space, spaces.Box) else sum(count for count, _ in choices_of(space))


def is_finite(space: spaces.Box) -> bool:
    """Return whether all bounds of a space are finite."""
    return bool(np.isfinite(bounds_of(space)).all())


def allows_actions(space: spaces.Space, own: spaces.Space) -> bool:
    """Return whether an environment with an action space takes all actions of an agent with another one of its size.

    The actions of an agent with a flat Box are reshaped.
    """
    if isinstance(space, COMPOSITE) or isinstance(own, COMPOSITE):
        return space == own
    if not isinstance(space, spaces.Box) or not isinstance(own, spaces.Box):
        return choices_of(space) == choices_of(own)
    low, high, own_low, own_high = (bound.astype(np.float32) for bound in (*bounds_of(space), *bounds_of(own)))
    return own.shape in {space.shape, low.shape} and bool((own_low >= low).all() and (own_high <= high).all())


def unit_of(space: spaces.Space, action_scaling: Scaling | None) -> np.ndarray:
    """Return the unit of actions in a Box with an infinite bound: `action_scaling` `(A,)`, by default 1; else 1 `()`.

    Raises:
        ValueError: `action_scaling` is not valid for the Box.
    """
    if not isinstance(space, spaces.Box) or is_finite(space):
        return np.ones(())
    return _scales(action_scaling, math.prod(space.shape))


def _scales(action_scaling: Scaling | None, dimensions: int) -> np.ndarray:
    return per_dimension("action_scaling", 1.0 if action_scaling is None else action_scaling, dimensions)


def rebounded(space: spaces.Box, saved: Mapping[str, Any], given: Mapping[str, Any]) -> spaces.Box:
    """Return a space with the bounds that `action_scaling` and `action_offset` describe, `given` or else `saved`.

    With an infinite bound it is the same space: `action_scaling` is the unit of its actions.

    Raises:
        ValueError: an argument is out of its range, or an offset is given, but a bound is infinite.
    """
    if is_finite(space):
        arguments = {**saved, **given}
        return _box(space.shape, arguments["action_scaling"], arguments["action_offset"])
    if "action_offset" in given:
        raise ValueError(f"action_offset is the middle of finite bounds, not of {space}")
    return space


def _box(shape: tuple[int, ...], action_scaling: Scaling | None, action_offset: Scaling) -> spaces.Box:
    dimensions = math.prod(shape)
    offset, scale = per_dimension("action_offset", action_offset, dimensions), _scales(action_scaling, dimensions)
    return spaces.Box((offset - scale).reshape(shape), (offset + scale).reshape(shape), dtype=np.float64)


def spaces_of(
    is_continuous: bool,
    observ_dim: int,
    action_dim: int,
    action_scaling: Scaling | None,
    action_offset: Scaling,
    observation_space: spaces.Space | None,
    action_space: spaces.Space | None,
) -> tuple[spaces.Space, spaces.Space]:
    """Return the observation and action spaces that arguments of `PPO` describe; a given space is used as it is.

    Raises:
        ValueError: a scaling or offset is neither a finite number nor one for each dimension.
    """
    if observation_space is None:  # an empty Dict is a space too, though it is false
        observation_space = spaces.Box(-np.inf, np.inf, (observ_dim,))
    if action_space is not None:
        return observation_space, action_space
    if is_continuous:
        return observation_space, _box((action_dim,), action_scaling, action_offset)
    first = per_dimension("action_offset", action_offset, action_dim)[0]
    return observation_space, spaces.Discrete(action_dim, start=int(first))


def per_dimension(name: str, value: Scaling, dimensions: int) -> np.ndarray:
    """Return a number, or one for each dimension, as float64 `(dimensions,)`.

    Raises:
        ValueError: there is a wrong number of values, one is not finite, or a scale is not positive.
    """
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.array(np.nan)
    if array.shape not in ((), (dimensions,)) or not np.isfinite(array).all():
        raise ValueError(f"{name} must be a finite number or {dimensions} of them, not {value!r}")
    if name == "action_scaling" and (array <= 0).any():
        raise ValueError(f"{name} must be positive, not {value!r}")
    return np.broadcast_to(array, (dimensions,))
