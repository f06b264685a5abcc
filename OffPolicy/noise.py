"""Exploration noise on the actions of deterministic policies."""

import numpy as np

THETA = 0.15
"""Pull of the Ornstein-Uhlenbeck process back to zero (Lillicrap et al. 2016, arXiv:1509.02971, section 7)."""


class NormalNoise:
    """Gaussian noise that is added to actions in [-1, 1], independent in each step."""

    def __init__(self, size: int, std: float) -> None:
        self.size, self.std = size, std

    def initial_state(self, num_envs: int) -> np.ndarray | None:
        """Return the state `(num_envs, S)` at the start of an episode; None, since the noise has none."""

    def sample(self, normals: np.ndarray, state: np.ndarray | None) -> np.ndarray:
        """Return noise `(n, A)` from standard normal numbers `(n, A)`; update the state `(n, S)` in place."""
        return self.std * normals


class OrnsteinUhlenbeck(NormalNoise):
    """Ornstein-Uhlenbeck noise: x' = x - theta x + std N(0, 1), from 0 at an episode's start.

    Source: Lillicrap et al. 2016 (arXiv:1509.02971), section 7.
    """

    def initial_state(self, num_envs: int) -> np.ndarray:
        """Return zeros `(num_envs, A)`."""
        return np.zeros((num_envs, self.size))

    def sample(self, normals: np.ndarray, state: np.ndarray | None) -> np.ndarray:
        """Take a step; the state is the noise.

        Raises:
            ValueError: there is no state.
        """
        if state is None:
            raise ValueError(
                "Ornstein-Uhlenbeck noise has a state: pass state=, at first initial_state(n), and set the rows of "
                "finished episodes to zero"
            )
        state[:] = (1 - THETA) * state + self.std * normals
        return state


KINDS = {"normal": NormalNoise, "ou": OrnsteinUhlenbeck}


def make_noise(name: str, size: int) -> NormalNoise | None:
    """Return the noise with a name: `normal_0.1` or `ou_0.2` (the kind, then the standard deviation) or `none`.

    Raises:
        ValueError: there is no such noise.
    """
    if name == "none":
        return None
    try:
        kind, _, number = name.partition("_")
        std = float(number)
        if not 0.0 <= std < np.inf:
            raise ValueError
        return KINDS[kind](size, std)
    except (AttributeError, LookupError, ValueError):
        raise ValueError(f"action_noise must be a text such as normal_0.1, ou_0.2 or none, not {name!r}") from None
