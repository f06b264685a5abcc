"""Log-probabilities of raw actions, and their derivatives.

Arrays are columns, `(A, B)`: A outputs of the policy head for each of B rows. `d_x` is the derivative of the loss by
`x`, of the same shape as `x`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from parallel_rl.utils import FORBIDDEN, gauss_hermite


class Bounds(NamedTuple):
    """The range of a Gaussian's actions; each `(A,)`."""

    scale: np.ndarray
    offset: np.ndarray
    low: np.ndarray
    high: np.ndarray
    squash: bool
    """Whether actions are squashed by tanh; otherwise they are clipped."""


@dataclass(frozen=True)
class Choices:
    """K discrete actions at once: their logits `(A, B)` are K blocks of W rows each. K is 1 for a Discrete."""

    counts: tuple[int, ...]
    """`(K,)`, the number of choices in each dimension; W is the largest."""
    starts: np.ndarray
    """The first choice: `()` for a Discrete, otherwise `(K,)`, one for each dimension."""

    @property
    def outputs(self) -> int:
        """A = K W."""
        return len(self.counts) * max(self.counts)

    @cached_property
    def _used(self) -> np.ndarray | None:
        """The logits that are choices, bool `(A,)`; None if all are."""
        used = np.arange(max(self.counts)) < np.array(self.counts)[:, None]
        return None if used.all() else used.ravel()

    @cached_property
    def firsts(self) -> np.ndarray:
        """The column `(K,)` of each dimension's first choice in an action mask."""
        return np.cumsum([0, *self.counts[:-1]])

    def logits(self, output: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """Return the logits `(A, B)` for the policy head's output, one row for each choice.

        Choices with 0 in a mask `(B, choices)` get probability 0, and their logits no gradient, since the derivatives
        have the factor p. The same holds for rows that do not stand for a choice.
        """
        if mask is not None:
            output = np.where(mask.T == 0, np.float32(FORBIDDEN), output)
        if self._used is None:
            return output
        logits = np.full((self.outputs, output.shape[1]), 10 * FORBIDDEN, output.dtype)
        logits[self._used] = output
        return logits

    def gradient(self, d_logits: np.ndarray) -> np.ndarray:
        """Return the derivative by the policy head's output, given that by the logits."""
        return d_logits if self._used is None else d_logits[self._used]

    def sample(self, logits: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
        """Return raw actions `(B,)` or `(B, K)`; `noise` as for `NumpyPolicy.sample`."""
        blocks = logits.reshape(len(self.counts), -1, logits.shape[1])
        weights = np.exp(blocks - blocks.max(axis=1, keepdims=True))
        if noise is not None:
            weights /= noise.T.reshape(weights.shape)
        return weights.argmax(axis=1).T.reshape(-1, *self.starts.shape)


Backward = Callable[[np.ndarray, float, np.ndarray | None], np.ndarray]
"""From `d_log_prob` `(B,)` and `d_entropy` (a number for all rows) to the derivative by the head's output `(A, B)`.

It also writes the derivative by the log-std, if there is one, into its third argument `(A,)`.
"""


def categorical(logits: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, Backward]:
    """Return log p of actions `(B,)` or `(B, K)`, and its derivatives by the logits `z` `(A, B)`, K blocks of rows.

    With one block, log p = z - log sum exp z; with several, log p and H are the sums over the blocks.

    d log p_a / d z = 1_a - p
    d H / d z = -p (log p + H),  H = -sum p log p
    """
    blocks = logits
    chosen: tuple[np.ndarray, ...] = (action, np.arange(len(action)))
    if action.ndim > 1:
        choices = action.reshape(len(action), -1).T
        blocks = logits.reshape(len(choices), -1, len(action))
        chosen = (np.arange(len(choices))[:, None], choices, np.arange(len(action)))
    log_probs = blocks - blocks.max(axis=-2, keepdims=True)
    log_probs -= np.log(np.exp(log_probs).sum(axis=-2, keepdims=True))

    def backward(d_log_prob: np.ndarray, d_entropy: float, d_log_std: np.ndarray | None) -> np.ndarray:
        probs = np.exp(log_probs)
        d_logits = probs * -d_log_prob
        d_logits[chosen] += d_log_prob
        if d_entropy:
            entropy = -(probs * log_probs).sum(axis=-2, keepdims=True)
            d_logits -= d_entropy * probs * (log_probs + entropy)
        return d_logits.reshape(logits.shape)

    log_prob = log_probs[chosen]
    return log_prob if action.ndim == 1 else log_prob.sum(axis=0), backward


def gaussian(
    mean: np.ndarray, raw_action: np.ndarray, log_std: np.ndarray, squash: bool
) -> tuple[np.ndarray, Backward]:
    """Return log N(u; mean, std) of raw actions `u` `(A, B)`, and the derivatives by the means `(A, B)`.

    H is the entropy of the actions, e = (u - mean) / std, and x is from N(0, 1). The expectations apply only to
    squashed actions:

        d log p / d mean = e / std,                    d log p / d log std = e^2 - 1
        d H / d mean = E[-2 tanh(mean + std x)],       d H / d log std = 1 + E[-2 tanh(mean + std x) std x]
    """
    log_std = log_std[:, None]
    std = np.exp(log_std)
    deviation = (raw_action - mean) / std
    square = deviation * deviation
    log_prob = -0.5 * square.sum(axis=0) - log_std.sum() - len(mean) * 0.5 * math.log(2.0 * math.pi)

    def backward(d_log_prob: np.ndarray, d_entropy: float, d_log_std: np.ndarray | None) -> np.ndarray:
        assert d_log_std is not None
        d_mean = d_log_prob * deviation / std
        d_log_std[:] = (square - 1.0) @ d_log_prob
        if d_entropy:
            d_log_std[:] += d_entropy * mean.shape[1]
        if d_entropy and squash:
            nodes, weights = gauss_hermite()
            d_points = -2.0 * weights * np.tanh(mean[..., None] + std[..., None] * nodes)
            d_mean += d_entropy * d_points.sum(axis=-1)
            d_log_std[:] += d_entropy * ((d_points @ nodes) * std).sum(axis=1)
        return d_mean.astype(mean.dtype, copy=False)

    return log_prob.astype(mean.dtype, copy=False), backward


def raw_log_prob(
    output: np.ndarray, raw_action: np.ndarray, log_std: np.ndarray | None, bounds: Bounds | None
) -> tuple[np.ndarray, Backward]:
    """Return the log-probabilities of raw actions `(B, ...)`, and their derivatives; no bounds: discrete actions."""
    if bounds is None:
        return categorical(output, raw_action)
    assert log_std is not None
    return gaussian(output, raw_action.T, log_std, bounds.squash)


def log_slope(raw_action: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return log |da/du| `(B,)` of actions a = scale tanh(u), for raw actions `u` `(B, A)`.

    This is log N(u) - log p(a). It does not depend on the policy.
    """
    slope = 2.0 * (math.log(2.0) - raw_action - np.logaddexp(0.0, -2.0 * raw_action)) + np.log(scale)
    return slope.sum(axis=1).astype(raw_action.dtype, copy=False)
