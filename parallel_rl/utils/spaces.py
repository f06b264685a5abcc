"""Elements of Gymnasium spaces as rows of arrays.

An element of a Box, Discrete, MultiDiscrete or MultiBinary is a row of an ordinary array. An element of a Dict or
Tuple, nested to any depth, is a row of a structured array: `rows["camera"]` is the array of that part, and `rows[3]`
one element.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

Keys = tuple[str | int, ...]
"""The keys that lead from an element of a Dict or a Tuple to one of its parts."""
COMPOSITE = spaces.Dict | spaces.Tuple
"""Spaces of several parts."""
INT64, UINT64 = np.dtype(np.int64), np.dtype(np.uint64)
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
    if not isinstance(space, COMPOSITE):
        ((_, leaf),) = leaves(space, keys)
        return tuple(leaf.shape or ()), np.dtype(leaf.dtype)
    parts: Any = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
    fields = [(str(key), *reversed(row_type(part, (*keys, key)))) for key, part in parts]
    return (), np.dtype(fields, align=True)


def name_of(keys: Keys) -> str:
    """Return the name of a part: its keys, joined by dots."""
    return ".".join(map(str, keys))


def location(keys: Keys) -> str:
    """Return the location of a part, for an error message."""
    return f" of the part {name_of(keys)!r}" if keys else ""


def part_of(element: Any, keys: Keys) -> Any:
    """Return the part of an element, or of rows of elements, that keys lead to."""
    for key in keys:
        element = element[str(key)] if isinstance(element, np.ndarray | np.void) else element[key]
    return element


def element_of(space: spaces.Space, row: Any) -> Any:
    """Return a copy of a row as an element of the space, with the types of `space.sample()`."""
    if isinstance(space, spaces.Dict):
        return {key: element_of(part, row[str(key)]) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(element_of(part, row[str(number)]) for number, part in enumerate(space.spaces))
    return row if isinstance(space, spaces.Discrete) else np.array(row)


def rows_of(space: spaces.Space, elements: Any, count: int, what: str = "action") -> np.ndarray:
    """Return elements of a Dict or Tuple space as rows `(count,)` of a structured array.

    Args:
        space: the space.
        elements: a structured array `(count,)`, or a dict or tuple of arrays `(count, ...)` as in Gymnasium's batched
            spaces, or a list of `count` elements.
        count: the number of elements.
        what: to call an element in the message.

    Raises:
        ValueError: a part is missing, has another shape, or has a value that the space's type cannot represent (a
            fraction or NaN for a discrete action); the message names it.
    """
    rows = np.zeros(count, row_type(space)[1])
    if isinstance(elements, list) and len(elements) != count:
        raise ValueError(f"there are {len(elements)} {what}s, but {count} environments are running")
    for keys, leaf in leaves(space):
        name, target = name_of(keys), part_of(rows, keys)
        try:
            if isinstance(elements, list):
                values = np.array([part_of(element, keys) for element in elements])
            else:
                values = np.asarray(part_of(elements, keys))
            if values.shape == (count, math.prod(leaf.shape or ())):
                values = values.reshape(target.shape)
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(f"the {what}s must have a part {name}, as {space} has: {error!r}") from None
        if values.shape != target.shape:
            raise ValueError(
                f"{name} of the {what}s has shape {values.shape}, but {count} environments are running: it must have "
                f"{target.shape}"
            )
        if not _assign(target, values):
            row = next(row for row in range(count) if not _assign(target[row : row + 1], values[row : row + 1]))
            raise ValueError(f"{name} of the {what} in row {row} is {values[row]}: its space is {leaf}")
    return rows


def split_parts(space: spaces.Space, rows: np.ndarray) -> list[np.ndarray]:
    """Return the array parts, `(n, ...)` each, of rows `(n,)` of a space, in the order of `leaves`."""
    return [np.ascontiguousarray(part_of(rows, keys)) for keys, _ in leaves(space)]


def join_parts(space: spaces.Space, parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return the rows `(n,)` with these parts; the inverse of `split_parts`."""
    rows = np.empty(len(parts[0]), row_type(space)[1])
    for (keys, _), part in zip(leaves(space), parts, strict=True):
        part_of(rows, keys)[...] = part
    return rows


def choices_of(space: spaces.Space) -> list[tuple[int, int]]:
    """Return the number of discrete actions in each dimension of an action space, and the first action.

    The dimensions of a Dict or a Tuple are those of all its parts, concatenated; a Box in it has none.

    Raises:
        TypeError: it is not a discrete space.
    """
    if isinstance(space, COMPOSITE):
        parts = [leaf for _, leaf in leaves(space) if not isinstance(leaf, spaces.Box)]
        return [choice for part in parts for choice in choices_of(part)]
    if isinstance(space, spaces.Discrete):
        return [(int(space.n), int(space.start))]
    if isinstance(space, spaces.MultiDiscrete):
        return list(zip(space.nvec.flatten().tolist(), space.start.flatten().tolist(), strict=True))
    if isinstance(space, spaces.MultiBinary):
        return [(2, 0)] * math.prod(space.shape)
    raise TypeError(
        f"the action space {space} is not supported; supported are Discrete, MultiDiscrete, MultiBinary and Box of "
        "floats, and Dict and Tuple of them"
    )


class DiscreteValues:
    """The whole numbers of a Discrete, MultiDiscrete or MultiBinary space."""

    def __init__(self, space: spaces.Space) -> None:
        choices = np.array(choices_of(space), np.int64).reshape(*(space.shape or ()), 2)
        count, first = choices[..., 0], choices[..., 1]
        self.space = space
        self._first, self._last = first, (count - 1).astype(np.uint64)
        self._from_zero = not first.any()
        self._bits = isinstance(space, spaces.MultiBinary)

    def have(self, numbers: Any) -> bool:
        """Return whether all numbers `(..., *shape)`, a NumPy array or scalar, are among the choices."""
        if self._bits and numbers.itemsize == 1:
            return not numbers.tobytes().strip(b"\0\1")  # cheap, since every observation may have an action mask
        if numbers.dtype is not INT64:
            numbers = numbers.astype(INT64)
        if not self._from_zero:
            numbers = numbers - self._first
        beyond = numbers.view(UINT64) > self._last  # numbers below the first wrap around to large ones
        return b"\1" not in beyond.tobytes()

    def include(self, numbers: Any) -> bool:
        """Return whether all numbers `(..., *shape)` of any type are among the choices."""
        if numbers.dtype.kind == "f":
            numbers = whole_numbers(numbers)
        return numbers is not None and numbers.dtype.kind in "biu" and self.have(numbers)


def whole_numbers(numbers: Any) -> Any:
    """Return floats as int64; None if one is not a whole number, or is too large."""
    if not (np.abs(numbers) < 2.0**63).all() or (numbers != np.floor(numbers)).any():
        return None
    return numbers.astype(INT64)


def _assign(target: np.ndarray, values: np.ndarray) -> bool:
    """Copy an array into one of another type; return whether the values stay the same, up to float rounding."""
    try:
        with np.errstate(invalid="ignore", over="ignore"):
            target[...] = values
    except (TypeError, ValueError, OverflowError):
        return False
    return bool(np.isfinite(target).all() if target.dtype.kind == "f" else (target == values).all())


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
