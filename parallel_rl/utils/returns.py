"""Returns and advantages over flat rows of experience: pure functions of arrays."""

import math
from itertools import accumulate

import numpy as np

ORDINARY_REWARDS = 2.0**-10, 2.0**40
"""Between which sizes single precision and the usual epsilons do."""


def reward_unit(size: float) -> float:
    """Return the unit for rewards or returns of a size: 1 where that is ordinary, otherwise the power of two below it.

    To divide by a power of two rounds nothing, so what is learnt from 2**k times the rewards is the same.
    """
    smallest, largest = ORDINARY_REWARDS
    if not 0.0 < size < math.inf or smallest <= size <= largest:
        return 1.0
    return 2.0 ** (math.frexp(size)[1] - 1)


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


def n_step_returns(
    rewards: np.ndarray,
    next_values: np.ndarray,
    terminated: np.ndarray,
    ends: np.ndarray,
    gamma: float,
    n: int,
) -> np.ndarray:
    r"""Rewards of n steps, then the value of what follows (Sutton & Barto 2018, equation 7.1).

        G_t = r_t + gamma r_{t+1} + ... + gamma^{n-1} r_{t+n-1} + gamma^n V(s_{t+n})

    An end within the n steps cuts the sum: a terminated one is worth nothing more, another one V(s') of what followed.

    Args:
        rewards: `(M,)`.
        next_values: `(M,)`, V of the observation that truly followed each row.
        terminated: bool `(M,)`, rows after which nothing comes.
        ends: bool `(M,)`, rows whose successor in the array belongs to something else.
        gamma: discount, in [0, 1].
        n: how many steps, at least 1.

    Returns:
        float64 `(M,)`.
    """
    bootstrap = np.where(terminated, 0.0, next_values)
    returns = rewards + gamma * bootstrap
    for _ in range(n - 1):
        returns = rewards + gamma * np.where(ends, bootstrap, np.roll(returns, -1))
    return returns


def v_trace(
    log_ratio: np.ndarray,
    rewards: np.ndarray,
    values: np.ndarray,
    next_values: np.ndarray,
    terminated: np.ndarray,
    ends: np.ndarray,
    gamma: float,
    rho_clip: float = 1.0,
    c_clip: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    r"""V-trace (Espeholt et al. 2018, arXiv:1802.01561, equation 1 and section 4.2), for data of another policy.

        rho_t = min(rho_clip, ratio_t),  c_t = min(c_clip, ratio_t)
        delta_t = rho_t (r_t + gamma V(s'_t) - V(s_t))
        v_t - V(s_t) = delta_t + gamma c_t (1 - end_t) (v_{t+1} - V(s_{t+1}))
        A_t = rho_t (r_t + gamma v_{t+1} - V(s_t)),  with V(s'_t) for v_{t+1} at an end

    Args:
        log_ratio: `(M,)`, log-probability of the actions under the policy to be valued, less that under the other.
        rewards: `(M,)`.
        values: `(M,)`, V of each row's observation.
        next_values: `(M,)`, V of the observation that truly followed each row.
        terminated: bool `(M,)`, rows after which nothing comes: they bootstrap zero.
        ends: bool `(M,)`, rows whose successor in the array belongs to something else.
        gamma: discount, in [0, 1].
        rho_clip: limit of the ratio in delta: says whose value it is.
        c_clip: limit of the ratio in the trace: how far corrections travel.

    Returns:
        The critic's targets v and the advantages A, float64 `(M,)` each.
    """
    ratio = np.exp(log_ratio)
    rho, trace = np.minimum(ratio, rho_clip), np.minimum(ratio, c_clip)
    bootstrap = np.where(terminated, 0.0, next_values)
    delta = rho * (rewards + gamma * bootstrap - values)
    decay = np.where(ends, 0.0, gamma * trace)
    targets = values + discounted_sums(delta[::-1], decay[::-1])[::-1]
    following = np.where(ends, bootstrap, np.roll(targets, -1))
    return targets, rho * (rewards + gamma * following - values)
