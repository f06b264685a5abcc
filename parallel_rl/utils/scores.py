"""Statistics of the scores of several seeds (Agarwal et al. 2021, arXiv:2108.13264, and its library rliable)."""

import numpy as np

RESAMPLES = 10_000
CONFIDENCE = 0.95


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis without the lowest and the highest n // 4 scores."""
    ordered = np.sort(scores, axis=-1)
    count = ordered.shape[-1]
    return ordered[..., count // 4 : count - count // 4].mean(axis=-1)


def bootstrap_interval(scores: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Return the 95% confidence interval of the interquartile mean, by the percentile bootstrap over seeds.

    Args:
        scores: `(n,)`, one for each seed.
        seed: of the resampling.
    """
    chosen = np.random.default_rng(seed).integers(len(scores), size=(RESAMPLES, len(scores)))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(interquartile_mean(np.asarray(scores, float)[chosen]), [tail, 1 - tail])
    return float(low), float(high)
