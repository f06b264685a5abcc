"""Learning curves of several runs, interpolated at the same numbers of steps (or seconds)."""

from collections.abc import Sequence

import numpy as np

from parallel_rl.utils.history import Metrics

POINTS = 2000
"""The largest number of points at which curves are compared."""


def curve_of(history: Sequence[Metrics], x: str = "steps", y: str = "mean_return") -> np.ndarray:
    """Return `(n, 2)`: the columns `x` and `y` of a history, from the first row with a finished episode."""
    curve = np.array([(row[x], row.get(y, np.nan)) for row in history], float).reshape(-1, 2)
    return curve[np.isfinite(curve).all(axis=1)]


def align(curves: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate curves at common points.

    Args:
        curves: `(n, 2)` each, n at least 1: rising x, and y.

    Returns:
        The points x `(m,)`, and y of each curve there `(len(curves), m)`, NaN before its start and after its end. If
        the curves have few points, all are among them. The ends of each curve always are.
    """
    first, last = (np.array([curve[row, 0] for curve in curves]) for row in (0, -1))
    inside = np.unique(np.concatenate([curve[:, 0] for curve in curves]))
    if len(inside) > POINTS:
        inside = np.linspace(first.min(), last.max(), POINTS)
    places = np.unique(np.concatenate([inside, first, last]))
    return places, np.stack(
        [np.interp(places, curve[:, 0], curve[:, 1], left=np.nan, right=np.nan) for curve in curves]
    )
