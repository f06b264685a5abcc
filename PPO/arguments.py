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
    if not obs_space.shape:
        raise TypeError(f"the observation space {obs_space} is not supported: it needs at least one dimension")
    arguments: dict[str, Any] = {"observ_dim": int(np.prod(obs_space.shape))}
    if isinstance(action_space, spaces.Discrete):
        offset = int(action_space.start)
        return arguments | {"is_continuous": False, "action_dim": int(action_space.n), "action_offset": offset}
    if not isinstance(action_space, spaces.Box):
        raise TypeError(f"the action space {action_space} is not supported: PPO needs a Discrete or a Box")
    if not action_space.is_bounded() or not np.issubdtype(action_space.dtype, np.floating):
        raise TypeError(f"the action space {action_space} is not supported: it must be of floats with finite bounds")
    low, high = action_space.low.astype(np.float64).flatten(), action_space.high.astype(np.float64).flatten()
    if (low >= high).any():
        raise TypeError(f"the action space {action_space} is not supported: a dimension of it leaves no choice")
    return arguments | {
        "is_continuous": True,
        "action_dim": len(low),
        "action_scaling": (high - low) / 2,
        "action_offset": (high + low) / 2,
    }


def check_ranges(
    positive: dict[str, float | None], not_negative: dict[str, float | None], fractions: dict[str, float]
) -> None:
    """Check numbers by name; None passes.

    Raises:
        ValueError: some are out of range; the message names each of them.
    """
    faults = [
        f"{name} must be {what}, not {value}"
        for what, numbers, fits in (
            ("positive and finite", positive, lambda value: 0 < value < np.inf),
            ("finite and not negative", not_negative, lambda value: 0 <= value < np.inf),
            ("in [0, 1]", fractions, lambda value: 0 <= value <= 1),
        )
        for name, value in numbers.items()
        if value is not None and not fits(value)
    ]
    if faults:
        raise ValueError("; ".join(faults))


def per_dimension(name: str, value: float | Sequence[float] | np.ndarray, dimensions: int) -> torch.Tensor:
    """Return a number, or one for each dimension, as float64 `(dimensions,)`.

    Raises:
        ValueError: another number of them, or they are not finite, or a scale is not positive.
    """
    array = np.asarray(value, dtype=np.float64)
    if array.shape not in ((), (dimensions,)) or not np.isfinite(array).all():
        raise ValueError(f"{name} must be a finite number or {dimensions} of them, not {value}")
    if name == "action_scaling" and (array <= 0).any():
        raise ValueError(f"{name} must be positive, not {value}")
    return torch.from_numpy(np.broadcast_to(array, (dimensions,)).copy())
