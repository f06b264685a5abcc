"""Statistics of the returns of episodes."""

from collections.abc import Callable, Sequence
from statistics import fmean, median

Stats = dict[str, float | None]
RECENT = 100
"""The number of last episodes for statistics with `x_episodes` in their name."""
FUNCTIONS: dict[str, Callable[[Sequence[float]], float]] = {"max": max, "mean": fmean, "median": median, "min": min}
STATS = (*(f"{name}_reward" for name in FUNCTIONS), *(f"{name}_x_episodes_reward" for name in FUNCTIONS))
"""The names of the statistics: of all episodes, and of the last 100."""


def stats_of(returns: Sequence[float]) -> Stats:
    """Return the statistics of episodes; they are None if no episode has ended."""
    if not returns:
        return dict.fromkeys(STATS)
    recent = returns[-RECENT:]
    return dict(zip(STATS, [of(part) for part in (returns, recent) for of in FUNCTIONS.values()], strict=True))
