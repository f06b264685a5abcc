"""Elements of spaces: those of a Dict or Tuple as rows of structured arrays, those of discrete spaces as choices."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from parallel_rl.utils.spaces import Keys, leaves, part_of, row_type

COMPOSITE = spaces.Dict | spaces.Tuple
"""Spaces of several parts."""
INT64, UINT64 = np.dtype(np.int64), np.dtype(np.uint64)


def element_of(space: spaces.Space, row: Any) -> Any:
    """Return a copy of a row as an element of the space, with the types of `space.sample()`."""
    if isinstance(space, spaces.Dict):
        return {key: element_of(part, row[str(key)]) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(element_of(part, row[str(number)]) for number, part in enumerate(space.spaces))
    return row if isinstance(space, spaces.Discrete) else np.array(row)


def rows_of(space: spaces.Space, elements: Any, count: int) -> np.ndarray:
    """Return elements of a Dict or Tuple space as rows `(count,)` of a structured array.

    Args:
        space: the space.
        elements: a structured array `(count,)`, or a dict or tuple of arrays `(count, ...)` as in Gymnasium's batched
            spaces, or a list of `count` elements.
        count: the number of elements.

    Raises:
        ValueError: a part is missing, has another shape, or has a value that the space's type cannot represent (a
            fraction or NaN for a discrete action); the message names it.
    """
    rows = np.zeros(count, row_type(space)[1])
    if isinstance(elements, list) and len(elements) != count:
        raise ValueError(f"there are {len(elements)} actions, but {count} environments are running")
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
            raise ValueError(f"the actions must have a part {name}, as {space} has: {error!r}") from None
        if values.shape != target.shape:
            raise ValueError(
                f"{name} of the actions has shape {values.shape}, but {count} environments are running: it must have "
                f"{target.shape}"
            )
        if not _assign(target, values):
            row = next(row for row in range(count) if not _assign(target[row : row + 1], values[row : row + 1]))
            raise ValueError(f"{name} of the action in row {row} is {values[row]}: its space is {leaf}")
    return rows


def name_of(keys: Keys) -> str:
    """Return the name of a part: its keys, joined by dots."""
    return ".".join(map(str, keys))


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
