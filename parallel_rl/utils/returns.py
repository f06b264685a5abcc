"""Returns and advantages: pure functions of rows of experience.

Rows are in the order of time: flat `(M,)`, trajectory after trajectory, or time-major `(T, B)`, a column for each of B
environments. *Ends* (`utils.trajectory`) separate trajectories and episodes; the last row is always an end. Everything
is computed in float64. For tensors, the results are tensors without a gradient, with the type and the device of the
first float tensor.
"""

import math
from collections.abc import Callable
from functools import wraps
from itertools import accumulate
from typing import Any, TypeVar

import numpy as np

from parallel_rl.utils.counts import counted
from parallel_rl.utils.trajectory import bootstrap_values, next_rows

ORDINARY_REWARDS = 2.0**-10, 2.0**40
"""The range of magnitudes for which single precision and the usual epsilons suffice."""
Array = Any
"""An array or a tensor, `(M,)` or `(T, B)`."""
Function = TypeVar("Function", bound=Callable[..., Any])


def takes_tensors(function: Function) -> Function:
    """Let a function of float64 arrays accept arrays and tensors of any type."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        result = function(*map(_as_array, args), **{name: _as_array(argument) for name, argument in kwargs.items()})
        tensors = (argument for argument in (*args, *kwargs.values()) if hasattr(argument, "detach"))
        like = next((tensor for tensor in tensors if tensor.is_floating_point()), None)
        if like is None:
            return result
        return tuple(map(like.new_tensor, result)) if isinstance(result, tuple) else like.new_tensor(result)

    return call  # type: ignore[return-value]


def _as_array(given: Any) -> Any:
    """Return arrays and tensors in double precision, and anything else unchanged."""
    if hasattr(given, "detach"):
        given = given.detach().cpu().numpy()
    return given.astype(np.float64, copy=False) if getattr(given, "dtype", np.dtype(bool)).kind == "f" else given


def reward_unit(size: float) -> float:
    """Return a unit for rewards or returns of the magnitude `size`: 1 for usual sizes, else the power of two below.

    Division by a power of two is exact, so scaling all rewards by 2**k does not change the training.
    """
    smallest, largest = ORDINARY_REWARDS
    if not 0.0 < size < math.inf or smallest <= size <= largest:
        return 1.0
    return 2.0 ** (math.frexp(size)[1] - 1)


def discounted_sums(terms: np.ndarray, decays: np.ndarray, initial: float = 0.0) -> np.ndarray:
    """Return `y` with `y[t] = terms[t] + decays[t] * y[t - 1]`, where `y[-1] = initial`.

    Args:
        terms: `(M,)` or `(T, B)`.
        decays: of the same shape.
        initial: the value before the first row.
    """
    if terms.ndim > 1:
        sums = np.array(terms, np.float64)
        for t in range(len(sums)):
            sums[t] += decays[t] * (sums[t - 1] if t else initial)
        return sums
    pairs = zip(terms.tolist(), decays.tolist(), strict=True)
    totals = accumulate(pairs, lambda total, pair: pair[0] + pair[1] * total, initial=initial)
    return np.fromiter(totals, np.float64, len(terms) + 1)[1:]


def _sums_ahead(terms: np.ndarray, decays: np.ndarray) -> np.ndarray:
    """Return `y` with `y[t] = terms[t] + decays[t] * y[t + 1]`, and 0 after the last row."""
    return discounted_sums(terms[::-1], decays[::-1])[::-1].copy()


@takes_tensors
def td_errors(rewards: Array, values: Array, next_values: Array, terminated: Array, gamma: float) -> Array:
    r"""Temporal-difference errors (Sutton & Barto 2018, equation 6.5).

        delta_t = r_t + gamma * (1 - terminated_t) * V(s'_t) - V(s_t)

    Args:
        rewards: `(M,)` or `(T, B)`; all arrays have the same shape.
        values: V of each row's observation.
        next_values: V of the next observation of each row, before any reset.
        terminated: bool, the rows that bootstrap zero.
        gamma: discount, in [0, 1].
    """
    return rewards + gamma * bootstrap_values(next_values, terminated) - values


@takes_tensors
def gae(
    rewards: Array, values: Array, next_values: Array, terminated: Array, ends: Array, gamma: float, gae_lambda: float
) -> Array:
    r"""Generalized advantage estimation (Schulman et al. 2016, arXiv:1506.02438, equations 11-16).

        delta_t = r_t + gamma * (1 - terminated_t) * V(s'_t) - V(s_t)
        A_t     = delta_t + gamma * lambda * (1 - end_t) * A_{t+1}

    Args:
        rewards: `(M,)` or `(T, B)`; all arrays have the same shape.
        values: V of each row's observation.
        next_values: V of the next observation of each row, before any reset.
        terminated: bool, the rows that bootstrap zero.
        ends: bool, the rows whose episode does not continue in the next row.
        gamma: discount, in [0, 1].
        gae_lambda: 0 for one-step advantages (bias), 1 for Monte-Carlo ones (variance).

    Returns:
        Advantages. `advantage + values` is the lambda-return, the critic's target.
    """
    delta = td_errors(rewards, values, next_values, terminated, gamma)
    return _sums_ahead(delta, np.where(ends, 0.0, gamma * gae_lambda))


@takes_tensors
def discounted_returns(rewards: Array, next_values: Array, terminated: Array, ends: Array, gamma: float) -> Array:
    r"""Discounted returns (Sutton & Barto 2018, equation 3.9), bootstrapped where a trajectory stops.

        G_t = r_t + gamma * G_{t+1},  at an end  r_t + gamma * (1 - terminated_t) * V(s'_t)

    Args:
        rewards: `(M,)` or `(T, B)`; all arrays have the same shape.
        next_values: V of the next observation of each row, before any reset; used only at ends.
        terminated: bool, the rows that bootstrap zero.
        ends: bool, the rows whose episode does not continue in the next row.
        gamma: discount, in [0, 1].
    """
    ends = _with_last(ends)
    bootstrap = np.where(ends, bootstrap_values(next_values, terminated), 0.0)
    return _sums_ahead(rewards + gamma * bootstrap, np.where(ends, 0.0, gamma))


@takes_tensors
def n_step_returns(rewards: Array, next_values: Array, terminated: Array, ends: Array, gamma: float, n: int) -> Array:
    r"""n-step returns: n rewards, then the value of the next observation (Sutton & Barto 2018, equation 7.1).

        G_t = r_t + gamma r_{t+1} + ... + gamma^{n-1} r_{t+n-1} + gamma^n V(s_{t+n})

    The sum stops early at an end: nothing is added after a termination, and V(s') after any other end.

    Args:
        rewards: `(M,)` or `(T, B)`; all arrays have the same shape.
        next_values: V of the next observation of each row, before any reset.
        terminated: bool, the rows that bootstrap zero.
        ends: bool, the rows whose episode does not continue in the next row.
        gamma: discount, in [0, 1].
        n: number of steps.

    Raises:
        ValueError: `n` is below 1.
    """
    n = counted("n", n)
    ends, bootstrap = _with_last(ends), bootstrap_values(next_values, terminated)
    returns = rewards + gamma * bootstrap
    for _ in range(n - 1):
        returns = rewards + gamma * next_rows(returns, ends, bootstrap[ends])
    return returns


@takes_tensors
def v_trace(
    log_ratio: Array,
    rewards: Array,
    values: Array,
    next_values: Array,
    terminated: Array,
    ends: Array,
    gamma: float,
    rho_clip: float = 1.0,
    c_clip: float = 1.0,
) -> tuple[Array, Array]:
    r"""V-trace targets and advantages from the data of another policy (Espeholt et al. 2018, arXiv:1802.01561).

    Equation 1 and section 4.2:

        rho_t = min(rho_clip, ratio_t),  c_t = min(c_clip, ratio_t)
        delta_t = rho_t (r_t + gamma V(s'_t) - V(s_t))
        v_t - V(s_t) = delta_t + gamma c_t (1 - end_t) (v_{t+1} - V(s_{t+1}))
        A_t = rho_t (r_t + gamma v_{t+1} - V(s_t)),  with V(s'_t) for v_{t+1} at an end

    Args:
        log_ratio: `(M,)` or `(T, B)`; all arrays have the same shape. The log-probability of the actions under the
            policy to be evaluated, less that under the behavior policy.
        rewards: of each row.
        values: V of each row's observation.
        next_values: V of the next observation of each row, before any reset.
        terminated: bool, the rows that bootstrap zero.
        ends: bool, the rows whose episode does not continue in the next row.
        gamma: discount, in [0, 1].
        rho_clip: limit of the ratio in delta. It decides which policy v is the value of.
        c_clip: limit of the ratio in the trace. It decides how far back corrections reach.

    Returns:
        The critic's targets v, and the advantages A.
    """
    ends, bootstrap = _with_last(ends), bootstrap_values(next_values, terminated)
    with np.errstate(over="ignore"):  # an infinite ratio is clipped
        ratio = np.exp(log_ratio)
    rho, trace = np.minimum(ratio, rho_clip), np.minimum(ratio, c_clip)
    delta = rho * td_errors(rewards, values, next_values, terminated, gamma)
    targets = values + _sums_ahead(delta, np.where(ends, 0.0, gamma * trace))
    following = next_rows(targets, ends, bootstrap[ends])
    return targets, rho * (rewards + gamma * following - values)


def _with_last(ends: np.ndarray) -> np.ndarray:
    """Return a copy of the ends in which the last row is an end."""
    ends = np.array(ends, bool)
    ends[-1:] = True
    return ends
