"""Returns and advantages over flat rows of experience: pure functions of arrays."""

from itertools import accumulate

import numpy as np


def discounted_sums(terms: np.ndarray, decays: np.ndarray, initial: float = 0.0) -> np.ndarray:
    """Return `y` with `y[t] = terms[t] + decays[t] * y[t - 1]`, where `y[-1] = initial`.

    Args:
        terms: `(T,)`.
        decays: `(T,)`.
        initial: the value before the first row.
    """
    pairs = zip(terms.tolist(), decays.tolist(), strict=True)
    sums = accumulate(pairs, lambda total, pair: pair[0] + pair[1] * total, initial=initial)
    return np.fromiter(sums, np.float64, len(terms) + 1)[1:]


def gae(
    rewards: np.ndarray,
    values: np.ndarray,
    next_values: np.ndarray,
    terminated: np.ndarray,
    ends: np.ndarray,
    gamma: float,
    gae_lambda: float,
) -> np.ndarray:
    r"""Generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438, equations 11-16).

        delta_t = r_t + gamma * (1 - terminated_t) * V(s'_t) - V(s_t)
        A_t     = delta_t + gamma * lambda * (1 - end_t) * A_{t+1}

    The rows may belong to many episodes and environments: an end keeps them apart.

    Args:
        rewards: `(M,)`.
        values: `(M,)`, V of each row's observation.
        next_values: `(M,)`, V of the observation that truly followed each row (not of one after a reset).
        terminated: bool `(M,)`, rows after which nothing comes: they bootstrap zero.
        ends: bool `(M,)`, rows whose successor in the array belongs to something else.
        gamma: discount, in [0, 1].
        gae_lambda: 0 for one-step advantages (bias), 1 for Monte-Carlo ones (variance).

    Returns:
        float64 `(M,)`. `advantage + values` is the lambda-return, the critic's target.
    """
    delta = rewards + gamma * np.where(terminated, 0.0, next_values) - values
    decay = np.where(ends, 0.0, gamma * gae_lambda)
    return discounted_sums(delta[::-1], decay[::-1])[::-1].copy()
