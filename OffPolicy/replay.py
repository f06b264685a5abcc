"""Replay: the buffer of transitions for off-policy agents, which samples from what its rings store."""

from typing import Any, NamedTuple

import numpy as np

from OffPolicy.rings import Rings

Array = Any
"""An array or a tensor."""


class Transitions(NamedTuple):
    """A batch of B transitions, of n steps each; a critic's target is `reward + discount * value(next_obs)`.

    A replay buffer returns arrays. An update gets tensors: observations as columns, and actions as networks use them.
    """

    obs: Array
    """`(B, ...)`."""
    action: Array
    """`(B, ...)`."""
    reward: Array
    """float32 `(B,)`: the discounted sum over the n steps, or fewer if the episode ended earlier."""
    next_obs: Array
    """`(B, ...)`, the observation after those steps."""
    discount: Array
    """float32 `(B,)`: gamma to the number of steps; 0 after a termination, never after a truncation."""
    weight: Array
    """float32 `(B,)`, importance weights: 1 without prioritized replay."""

    def take(self, index: slice | Array) -> "Transitions":
        """Return the transitions `index`, in that order."""
        return Transitions(*[field[index] for field in self])


class Replay(Rings):
    """The newest transitions of N environments."""

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return rows of transitions `(count,)`, sampled uniformly and independently.

        Raises:
            ValueError: the buffer is empty.
        """
        if not self.size:
            raise ValueError("the replay buffer is empty")
        filled = self.filled
        rows = random_below(filled, count * filled // self.size + 16, rng)
        rows = rows[self.is_transition[rows]][:count]
        return rows if len(rows) == count else np.concatenate([rows, self.sample(count - len(rows), rng)])

    def transitions(self, rows: np.ndarray, gamma: float, n_step: int = 1) -> Transitions:
        """Return the transitions that begin at rows `(B,)`.

        Their reward is sum_k gamma^k r_{t+k} over n steps, or fewer where the episode, or its stored part, ends earlier
        (Sutton 1988; with replay: Hessel et al. 2018, arXiv:1710.02298, section 3).
        """
        reward, discount = self.reward[rows], np.full(len(rows), gamma, np.float32)
        last, following = rows, self.following(rows)
        for _ in range(n_step - 1):
            continues = self.is_transition[following]
            reward = reward + np.where(continues, discount * self.reward[following], np.float32(0))
            discount = np.where(continues, discount * np.float32(gamma), discount)
            last = np.where(continues, following, last)
            following = self.following(last)
        discount[self.terminated[last]] = 0.0
        obs, action, next_obs = self.obs.take(rows, 0), self.action.take(rows, 0), self.obs.take(following, 0)
        return Transitions(obs, action, reward, next_obs, discount, np.ones(len(rows), np.float32))


def random_below(limits: int | np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return random whole numbers `(count,)` in [0, limit).

    This is faster than `rng.integers`, and practically as uniform for limits below 2**50.
    """
    return (rng.random(count) * limits).astype(np.int64)
