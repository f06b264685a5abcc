"""Learning curves of several runs at common places."""

from collections.abc import Sequence

import numpy as np

from parallel_rl.utils.history import Metrics

POINTS = 2000
"""The largest number of places at which curves are compared."""


def curve_of(history: Sequence[Metrics], x: str = "steps") -> np.ndarray:
    """Return `(n, 2)`: a column of a history, and the mean return, from the first episode that has ended."""
    curve = np.array([(row[x], row["mean_return"]) for row in history], float).reshape(-1, 2)
    return curve[np.isfinite(curve).all(axis=1)]


def align(curves: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate curves at common places.

    Args:
        curves: `(n, 2)` each, n at least 1; the first column rises.

    Returns:
        Places `(m,)`: those of all curves if they are few, and in any case the ends of each curve and the numbers next
        to them; and the values of the curves there `(len(curves), m)`, NaN before the start and after the end of a
        curve.
    """
    first, last = (np.array([curve[row, 0] for curve in curves]) for row in (0, -1))
    inside = np.unique(np.concatenate([curve[:, 0] for curve in curves]))
    if len(inside) > POINTS:
        inside = np.linspace(first.min(), last.max(), POINTS)
    outside = np.nextafter(first, -np.inf), np.nextafter(last, np.inf)
    places = np.unique(np.concatenate([inside, first, last, *outside]))
    return places, np.stack(
        [np.interp(places, curve[:, 0], curve[:, 1], left=np.nan, right=np.nan) for curve in curves]
    )


def mean_of(returns: np.ndarray) -> np.ndarray:
    """Return the mean over the first dimension without NaN; NaN where all are."""
    there = np.isfinite(returns)
    count = there.sum(axis=0)
    total = np.where(there, returns, 0.0).sum(axis=0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
