"""Hyperparameters that change over a run."""

import math
from collections.abc import Callable
from dataclasses import dataclass

Schedule = Callable[[float], float]
"""A function of the remaining fraction of the run, from 1 at its start to 0 at its end (as in Stable-Baselines3)."""


@dataclass(frozen=True)
class LostSchedule:
    """Placeholder in a loaded agent for a schedule that could not be saved. The agent acts; learning is an error."""

    name: str
    """The name of the hyperparameter."""
    was: str
    """The name of the function."""

    def __repr__(self) -> str:
        return self.was

    def __call__(self, remaining: float) -> float:
        """Raise a `ValueError` that says what to do."""
        raise ValueError(
            f"{self.name} was a function, {self.was}, which no file holds: to learn, assign {self.name}, or give "
            f"{self.name}= where the agent is loaded"
        )


def linear(initial: float, progress: float) -> float:
    """Return `initial` annealed linearly to 0 as `progress` goes from 0 to 1.

    Source: Schulman et al. 2017 (arXiv:1707.06347), table 5: alpha, annealed from 1 to 0.
    """
    return initial * (1.0 - min(max(progress, 0.0), 1.0))


def check_annealed(name: str, value: float | Schedule, anneal: bool) -> None:
    """Raise a `ValueError` if a hyperparameter is a function and is to be annealed as well."""
    if anneal and callable(value):
        raise ValueError(f"{name} is a function of the run: it cannot be annealed as well")


def scheduled(name: str, value: float | Schedule, anneal: bool, progress: float) -> float:
    """Return the value of a hyperparameter at some point of the run.

    Args:
        name: of the hyperparameter.
        value: a number, or a function of the remaining fraction of the run.
        anneal: whether to anneal a number linearly to 0.
        progress: the fraction of the run that is over, from 0 to 1.

    Raises:
        ValueError: the function returns no finite number of at least 0, or `anneal` is set for a function.
    """
    check_annealed(name, value, anneal)
    if not callable(value):
        return linear(value, progress) if anneal else value
    remaining = linear(1.0, progress)
    result = value(remaining)
    try:
        number = float(result)
    except (TypeError, ValueError):
        number = math.nan
    if not 0.0 <= number < math.inf:
        raise ValueError(f"{name} must be finite and not negative, but its function gave {result!r} for {remaining:g}")
    return number
