"""Files of weights, which also hold the settings of their agent."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from parallel_rl.utils import DamagedError, State, holds_state, load_state, load_tensors, save_state
from parallel_rl.utils.versions import versions

Settings = State
"""The settings of an agent, as plain values by name."""
POLICY_FILE = "Policy_weights.pth"
"""The file of an agent's policy, in a directory of weights."""
PARTS = {"weights", "settings", "versions"}


def write_weights(path: Path, weights: Mapping[str, torch.Tensor], settings: Settings) -> None:
    """Write a state dict, and the settings of its agent.

    Raises:
        OSError: the file cannot be written; an older file there is untouched.
    """
    save_state(path, {"weights": dict(weights), "settings": settings, "versions": versions()})


def read_weights(path: Path) -> tuple[dict[str, torch.Tensor], Settings | None]:
    """Return a state dict, and the settings of its agent (None if `torch.save` wrote the file).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or not a file of weights.
    """
    if not path.is_file():
        directory = path.parent
        if directory.is_file():
            has_it = f", such as {directory.parent}" if (directory.parent / path.name).is_file() else ""
            raise FileNotFoundError(f"{directory} is a file: pass a directory of weights{has_it}")
        raise FileNotFoundError(f"no weights at {path}")
    if not holds_state(path):  # older versions wrote weights with `torch.save`
        return load_tensors(path, "cpu"), None
    state = load_state(path)
    if state.keys() != PARTS or not isinstance(state["settings"], dict):
        raise DamagedError(f"{path} does not hold weights: it holds {', '.join(state) or 'nothing'}")
    return tensors_of(state["weights"], f"the weights in {path}"), state["settings"]


def tensors_of(arrays: Any, what: str) -> dict[str, torch.Tensor]:
    """Convert the arrays of a saved state, by name, to tensors.

    Raises:
        ValueError: they are not arrays; the message begins with `what`, their name.
    """
    try:
        if not all(isinstance(array, np.ndarray | torch.Tensor) for array in arrays.values()):
            raise TypeError("some are not arrays")
        return {name: torch.as_tensor(array) for name, array in arrays.items()}
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{what} are not arrays of numbers by name: {error}") from error
