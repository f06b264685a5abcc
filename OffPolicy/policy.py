"""Policy: from observations to actions, without the parts that only learning needs."""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from OffPolicy.config import OffPolicyConfig
from parallel_rl.networks import RunningNorm
from parallel_rl.networks.weights import POLICY_FILE, Settings, write_weights
from parallel_rl.utils import Features
from parallel_rl.utils.features import why_nan


class Policy(nn.Module):
    """Networks by name, and the conversion of observations and actions for them.

    Subclasses choose the actions. A policy can be copied and pickled.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        networks: dict[str, nn.Module],
        config: OffPolicyConfig,
        rng: np.random.Generator,
        settings: Settings,
    ) -> None:
        """Store the parts.

        Args:
            observation_space: of one environment.
            networks: the actor and the other networks to save.
            config: of the agent; it says whether observations are normalized.
            rng: the random stream of stochastic actions.
            settings: those of the agent, as plain values by name; they are saved with the weights.
        """
        super().__init__()
        self.features = Features.of(observation_space)
        self.networks = nn.ModuleDict(networks)
        self._parameter_list = [*self.networks.parameters()]  # finding them takes longer than a small layer
        normalized = self.features.vector if config.normalize_obs else 0
        self.obs_norm = RunningNorm(normalized, clip=config.obs_clip).to(self.device) if normalized else None
        self.rng, self.settings = rng, settings

    @property
    def device(self) -> torch.device:
        """The device of the networks."""
        return self._parameter_list[0].device

    def columns(self, rows: np.ndarray) -> torch.Tensor:
        """Convert rows of observations to input of the networks `(B, columns)`: normalized, on their device."""
        return self.normalize(torch.from_numpy(np.ascontiguousarray(rows)).to(self.device))

    def normalize(self, columns: torch.Tensor) -> torch.Tensor:
        """Return columns `(B, C)` of observations, with normalized numbers."""
        return columns if self.obs_norm is None else self.obs_norm.leading(columns)

    def actions(self, rows: np.ndarray, deterministic: bool) -> np.ndarray:
        """Return the actions `(B, ...)` that an environment takes, for rows of observations `(B, width)`.

        Raises:
            ValueError: a row or the weights are NaN or infinite, or a mask allows no action.
        """
        raise NotImplementedError

    def deterministic_actions(self, obs: torch.Tensor, core: None = None) -> tuple[torch.Tensor]:
        """Return the deterministic actions `(B, ...)` for columns `(B, C)` before normalization, for an export."""
        raise NotImplementedError

    @torch.no_grad()
    def get_action(self, obs: Any, /, *, deterministic: bool = False) -> Any:
        """Return an action for each observation `(n, ...)`, or for a single one.

        Raises:
            ValueError: the observations have another shape than those of the space, or impossible values (pixels,
                choices), or they or the weights are NaN, or a mask allows no action.
        """
        rows, single = self.features.rows(obs)
        actions = self.actions(rows, deterministic)
        return actions[0] if single else actions

    def check_not_nan(self, outputs: np.ndarray, rows: np.ndarray) -> None:
        """Check what the networks returned for rows of observations.

        Raises:
            ValueError: it is NaN, since the rows or the weights are NaN or infinite.
        """
        if math.isnan(np.vdot(outputs, outputs)):  # one product: a look at all observations would take longer
            raise ValueError(why_nan(rows, self.state_dict()))

    def initial_state(self, num_envs: int, /) -> None:
        """Return None: there is no recurrent state."""

    def save_weights(self, directory: str | os.PathLike[str], /) -> None:
        """Save the networks into a directory, which is made if it is missing.

        Raises:
            OSError: it cannot be made or written.
        """
        path = Path(directory)
        path.mkdir(parents=True, exist_ok=True)
        write_weights(path / POLICY_FILE, self.state_dict(), self.settings)
