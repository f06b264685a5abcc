"""PolicyHead: the base class of the heads of a policy."""

from typing import Any, Literal

import torch
from torch import nn

from parallel_rl.networks.distributions import Distribution

Noise = Literal["exponential", "normal"]


class PolicyHead(nn.Module):
    """Turns features into a distribution, and that distribution's raw actions into actions."""

    noises: list[tuple[Noise, int]]
    """The kinds of random numbers that one raw action is sampled with, and how many of each, in order."""
    choices: int
    """The number of discrete actions, over all dimensions; 0 for continuous actions."""

    @property
    def noise_size(self) -> int:
        """The number of random numbers for one raw action."""
        return sum(size for _, size in self.noises)

    def forward(self, features: torch.Tensor, mask: torch.Tensor | None = None) -> Distribution:
        """Return the distribution over actions for features `(B, F)`.

        Args:
            features: `(B, F)`.
            mask: `(B, choices)`, zero for discrete actions that are not allowed.
        """
        raise NotImplementedError

    def to_action(self, raw_action: torch.Tensor) -> Any:
        """Return the actions that the environment takes."""
        return raw_action

    def to_raw_action(self, action: Any) -> torch.Tensor:
        """Return the raw actions behind actions."""
        return action
