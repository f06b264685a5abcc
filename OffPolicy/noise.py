"""Exploration noise for deterministic policies, and the schedule of epsilon."""

import numpy as np

from parallel_rl.utils import State

THETA = 0.15
"""Pull of the Ornstein-Uhlenbeck process back to zero (Lillicrap et al. 2016, arXiv:1509.02971, section 7)."""
ADAPTION = 1.01
"""Factor by which parameter noise grows and shrinks (Plappert et al. 2018, arXiv:1706.01905, section 3)."""


def linear_schedule(start: float, end: float, steps: float, step: int) -> float:
    """Return a value annealed linearly from `start` to `end` in `steps` environment steps, and constant afterwards."""
    return end + (start - end) * max(0.0, 1.0 - step / steps) if steps else end


class NormalNoise:
    """Gaussian noise that is added to actions in [-1, 1], independent in each step."""

    def __init__(self, size: int, std: float) -> None:
        self.size, self.std = size, std

    def sample(self, env_ids: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Return the noise `(n, A)` of the next step of environments `(n,)`, from standard normal numbers `(n, A)`."""
        return self.std * normals

    def restart(self, env_ids: np.ndarray) -> None:
        """Reset the noise where an episode begins, in environments `(n,)`."""

    def state(self) -> State:
        """Return the state of the noise, which is empty for independent noise."""
        return {}

    def load_state(self, state: State) -> None:
        """Restore what `state` returned."""


class OrnsteinUhlenbeck(NormalNoise):
    """Ornstein-Uhlenbeck noise for each environment: x' = x - theta x + std N(0, 1), from 0 at an episode's start.

    Source: Lillicrap et al. 2016 (arXiv:1509.02971), section 7.
    """

    def __init__(self, size: int, std: float) -> None:
        super().__init__(size, std)
        self.value = np.zeros((0, size))

    def sample(self, env_ids: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Take a step."""
        missing = int(env_ids.max()) + 1 - len(self.value)
        if missing > 0:
            self.value = np.concatenate([self.value, np.zeros((missing, self.size))])
        value = (1 - THETA) * self.value[env_ids] + self.std * normals
        self.value[env_ids] = value
        return value

    def restart(self, env_ids: np.ndarray) -> None:
        """Reset the noise to 0."""
        self.value[env_ids[env_ids < len(self.value)]] = 0.0

    def state(self) -> State:
        """Return the values."""
        return {"value": self.value.copy()}

    def load_state(self, state: State) -> None:
        """Restore values.

        Raises:
            ValueError: the values are for actions of another size.
        """
        if state["value"].shape[1:] != (self.size,):
            raise ValueError(f"the saved noise has the shape {state['value'].shape}, and actions have {self.size}")
        self.value = state["value"].copy()


KINDS = {"normal": NormalNoise, "ou": OrnsteinUhlenbeck}


def make_noise(name: str, size: int) -> NormalNoise | None:
    """Return the noise with a name: `normal_0.1` or `ou_0.2` (the kind, then the standard deviation) or `none`.

    Raises:
        ValueError: there is no such noise.
    """
    if name == "none":
        return None
    kind, _, number = name.partition("_")
    try:
        std = float(number)
        if not 0.0 <= std < np.inf:
            raise ValueError
        return KINDS[kind](size, std)
    except (LookupError, ValueError):
        raise ValueError(f"action_noise must be none, or as normal_0.1 or ou_0.2, not {name!r}") from None


class ParameterNoise:
    """The adaptive standard deviation of parameter noise. It aims at a distance of `target` between actions in [-1, 1].

    Source: Plappert et al. 2018 (arXiv:1706.01905), section 3 and appendix C.
    """

    def __init__(self, target: float) -> None:
        """Start with a standard deviation of `target`."""
        self.target = self.std = target

    def adapt(self, distance: float) -> None:
        """Adapt to the root of the mean squared difference between perturbed and unperturbed actions."""
        self.std = self.std * ADAPTION if distance < self.target else self.std / ADAPTION
