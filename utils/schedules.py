"""Hyperparameters that change over a run."""


def linear(initial: float, progress: float) -> float:
    """Return `initial` brought down linearly to 0 as `progress` goes from 0 to 1.

    Source: Schulman et al. 2017 (arXiv:1707.06347), table 5: alpha, annealed from 1 to 0.
    """
    return initial * (1.0 - min(max(progress, 0.0), 1.0))
