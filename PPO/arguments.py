"""What an agent can be made with: the ranges of its hyperparameters, and what an environment's spaces determine."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces


def arguments_for(env: Any) -> dict[str, Any]:
    """Return the arguments of `PPO` that an environment's spaces determine.

    Args:
        env: a Gymnasium environment or vector environment, or an `EnvVectorizer`.

    Raises:
        TypeError: a space that is not supported, or continuous actions without finite bounds.
    """
    single = "single_" if hasattr(env, "single_observation_space") else ""
    obs_space, action_space = getattr(env, f"{single}observation_space"), getattr(env, f"{single}action_space")
    if not isinstance(obs_space, spaces.Box):
        raise TypeError(f"the observation space {obs_space} is not supported: PPO needs a Box")
    observ_dim = int(np.prod(obs_space.shape))
    if isinstance(action_space, spaces.Discrete) and action_space.start == 0:
        return {"is_continuous": False, "observ_dim": observ_dim, "action_dim": int(action_space.n)}
    if isinstance(action_space, spaces.Box) and len(action_space.shape) == 1:
        if not action_space.is_bounded():
            raise TypeError(f"the action space {action_space} is not supported: its bounds must be finite")
        return {
            "is_continuous": True,
            "observ_dim": observ_dim,
            "action_dim": action_space.shape[0],
            "action_scaling": (action_space.high - action_space.low) / 2,
            "action_offset": (action_space.high + action_space.low) / 2,
        }
    raise TypeError(f"the action space {action_space} is not supported: PPO needs a Discrete or a flat Box")


def check_ranges(positive: dict[str, float], not_negative: dict[str, float], fractions: dict[str, float]) -> None:
    """Check numbers by name.

    Raises:
        ValueError: some are out of range; the message names each of them.
    """
    faults = [f"{name} must be positive, not {value}" for name, value in positive.items() if not value > 0]
    faults += [f"{name} must not be negative, but is {value}" for name, value in not_negative.items() if not value >= 0]
    faults += [f"{name} must lie in [0, 1], not {value}" for name, value in fractions.items() if not 0 <= value <= 1]
    if faults:
        raise ValueError("; ".join(faults))


def per_dimension(name: str, value: float | Sequence[float] | np.ndarray, dimensions: int) -> torch.Tensor:
    """Return a number, or one for each dimension, as float32 `(dimensions,)`.

    Raises:
        ValueError: another number of them, or they are not finite, or a scale is not positive.
    """
    array = np.asarray(value, dtype=np.float32)
    if array.shape not in ((), (dimensions,)) or not np.isfinite(array).all():
        raise ValueError(f"{name} must be a finite number or {dimensions} of them, not {value}")
    if name == "action_scaling" and (array <= 0).any():
        raise ValueError(f"{name} must be positive, not {value}")
    return torch.from_numpy(np.broadcast_to(array, (dimensions,)).copy())
