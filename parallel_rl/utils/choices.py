"""The whole numbers of discrete spaces."""

from typing import Any

import numpy as np
from gymnasium import spaces

INT64, UINT64 = np.dtype(np.int64), np.dtype(np.uint64)


class DiscreteValues:
    """The whole numbers of a Discrete, MultiDiscrete or MultiBinary space."""

    def __init__(self, space: spaces.Space) -> None:
        if isinstance(space, spaces.MultiBinary):
            first, count = np.zeros(space.shape, np.int64), np.full(space.shape, 2)
        elif isinstance(space, spaces.MultiDiscrete):
            first, count = space.start.astype(np.int64), space.nvec.astype(np.int64)
        else:
            assert isinstance(space, spaces.Discrete)
            first, count = np.asarray(int(space.start)), np.asarray(int(space.n))
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
