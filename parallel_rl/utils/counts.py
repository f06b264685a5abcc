"""Numbers that a caller gives: of steps, episodes, environments, seconds."""

from numbers import Real

import numpy as np
from numpy.typing import ArrayLike


def counted(name: str, value: float, least: int = 1) -> int:
    """Return a number of things as an int; 1e5 is 100000.

    Raises:
        ValueError: it is not a whole number, or is below `least`; the message has its name.
    """
    if not isinstance(value, Real) or value != value // 1:
        raise ValueError(f"{name} must be a whole number, not {value!r:.40}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
    return int(value)


def checked_positive(name: str, value: float) -> float:
    """Return a number.

    Raises:
        ValueError: it is not a number above 0; the message has its name.
    """
    if not isinstance(value, Real) or not value > 0:
        raise ValueError(f"{name} must be positive, not {value!r:.40}")
    return value


def rows_in_words(which: ArrayLike) -> str:
    """Return in words which of the rows `(N,)` are true: `row 7 of 9`, or `rows 1, 2 of 9`; at most five."""
    rows = np.flatnonzero(which)
    few = f"{', '.join(map(str, rows[:5]))}{', ...' if len(rows) > 5 else ''}"
    return f"{'row' if len(rows) == 1 else 'rows'} {few} of {np.size(which)}"
