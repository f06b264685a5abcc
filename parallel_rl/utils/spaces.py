"""Elements of Gymnasium spaces as rows of arrays.

An element of a Box, Discrete, MultiDiscrete or MultiBinary is a row of an ordinary array. An element of a Dict or
Tuple, nested to any depth, is a row of a structured array: `rows["camera"]` is the array of that part, and `rows[3]`
one element.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium import spaces

Keys = tuple[str | int, ...]
"""The keys that lead from an element of a Dict or a Tuple to one of its parts."""
RESOLUTION = 2.0**-13
"""The smallest unit of an action, relative to a bound far from zero: a thousand float32 steps."""


def leaves(space: spaces.Space, keys: Keys = ()) -> Iterator[tuple[Keys, spaces.Space]]:
    """Yield the array parts of a space, and the keys that lead to them.

    Raises:
        TypeError: the elements of a space are not arrays of one shape.
    """
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from leaves(part, (*keys, key))
    elif isinstance(space, spaces.Tuple):
        for number, part in enumerate(space.spaces):
            yield from leaves(part, (*keys, number))
    elif isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        yield keys, space
    elif callable(space):
        raise TypeError("the environment has several agents (PettingZoo): here an environment has one (docs/faq.md)")
    else:
        raise TypeError(
            f"the space {space}{location(keys)} is not supported; supported are Box, Discrete, MultiDiscrete and "
            "MultiBinary, and Dict and Tuple of them (a wrapper can drop or convert parts)"
        )


def row_type(space: spaces.Space, keys: Keys = ()) -> tuple[tuple[int, ...], np.dtype]:
    """Return shape and type of a row that holds an element of a space; `keys` lead to the space, for the error.

    Raises:
        TypeError: the elements of a space are not arrays of one shape.
    """
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        ((_, leaf),) = leaves(space, keys)
        return tuple(leaf.shape or ()), np.dtype(leaf.dtype)
    parts: Any = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
    fields = [(str(key), *reversed(row_type(part, (*keys, key)))) for key, part in parts]
    return (), np.dtype(fields, align=True)


def location(keys: Keys) -> str:
    """Return the location of a part, for an error message."""
    return f" of the part {'.'.join(map(str, keys))!r}" if keys else ""


def part_of(element: Any, keys: Keys) -> Any:
    """Return the part of an element, or of rows of elements, that keys lead to."""
    for key in keys:
        element = element[str(key)] if isinstance(element, np.ndarray | np.void) else element[key]
    return element


def bounds_of(space: spaces.Box) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds of a Box, float64 `(A,)` each.

    The largest float of the Box's type counts as infinite, and so does a number that float32 cannot represent.
    """
    largest = min(float(np.finfo(kind).max) for kind in (np.float32, np.result_type(space.dtype, np.float16)))
    low, high = (bound.astype(np.float64).flatten() for bound in (space.low, space.high))
    return np.where(low <= -largest, -np.inf, low), np.where(high >= largest, np.inf, high)


def of_whole_numbers(space: spaces.Space) -> str:
    """Return the advice for actions in a Box of whole numbers, for an error message; nothing for another space."""
    if not isinstance(space, spaces.Box) or np.issubdtype(space.dtype, np.floating):
        return ""
    return (
        "; whole numbers are choices: let a wrapper make it a MultiDiscrete (PPO takes it), or a Box of floats to round"
    )


def action_units(low: np.ndarray, high: np.ndarray, unit: float | np.ndarray = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return the center of actions and the length of one unit, float64 `(A,)` each.

    With two finite bounds, these are the middle and half the width. Otherwise the length is `unit`, and the center is
    zero, or one unit inside the finite bound if the bounds exclude zero.

    Args:
        low: `(A,)`, infinite where there is no bound.
        high: `(A,)`, likewise.
        unit: a positive number, or one for each dimension. It is raised to `RESOLUTION` times a bound far from zero.
    """
    nearest_to_zero = np.clip(0.0, low, high)
    scale = np.maximum(unit, RESOLUTION * np.abs(nearest_to_zero))
    centre = nearest_to_zero + np.sign(nearest_to_zero) * scale
    with np.errstate(invalid="ignore"):
        middle, half = (high + low) / 2, (high - low) / 2
    bounded = np.isfinite(low) & np.isfinite(high)
    return np.where(bounded, middle, centre), np.where(bounded, half, scale)
