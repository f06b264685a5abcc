"""From a batch and its values to advantages: which value follows which row, for either kind of reward."""

import numpy as np

from PPO.memory import Batch
from utils import gae


def extrinsic_advantage(
    batch: Batch, value: np.ndarray, final_value: np.ndarray, gamma: float, gae_lambda: float
) -> np.ndarray:
    """Return the advantages of the environment's reward, float64 `(M,)`.

    A termination bootstraps zero; a truncation, or a stretch that merely stops, the value of what truly followed.

    Args:
        batch: M rows with E ends.
        value: `(M,)`, V of each row's observation.
        final_value: `(E,)`, V of what followed each end.
        gamma: discount.
        gae_lambda: see `utils.gae`.
    """
    next_value = np.roll(value, -1)
    next_value[batch.ends] = final_value
    return gae(batch.reward, value, next_value, batch.terminated, batch.ends, gamma, gae_lambda)


def intrinsic_advantage(
    batch: Batch, reward: np.ndarray, value: np.ndarray, final_value: np.ndarray, gamma: float, gae_lambda: float
) -> np.ndarray:
    """Return the advantages of an intrinsic reward, float64 `(M,)`.

    Its return is not episodic (Burda et al. 2018, section 2.3): within a stretch it goes on over the ends of episodes,
    into the observation after the reset, and only the end of the stretch cuts it.

    Args:
        batch: M rows with E ends.
        reward: `(M,)`.
        value: `(M,)`, intrinsic V of each row's observation.
        final_value: `(E,)`, intrinsic V of what followed each end.
        gamma: discount.
        gae_lambda: see `utils.gae`.
    """
    next_value = np.roll(value, -1)
    next_value[batch.stretch_ends] = final_value[batch.stretch_ends[batch.ends]]
    never = np.zeros(len(value), dtype=bool)
    return gae(reward, value, next_value, never, batch.stretch_ends, gamma, gae_lambda)


def explained_variance(value: np.ndarray, target: np.ndarray) -> float:
    """Return 1 - Var(target - value) / Var(target); 0 where the target does not vary."""
    variance = target.var()
    return float(1.0 - (target - value).var() / variance) if variance > 0 else 0.0
