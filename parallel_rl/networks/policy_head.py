"""PolicyHead: the base class of the heads of a policy."""

from typing import Any, Literal

import torch
from torch import nn

from parallel_rl.networks.distributions import Distribution

Noise = Literal["exponential", "normal"]


class PolicyHead(nn.Module):
    """Turns features into a distribution, and that distribution's raw actions into actions."""

    noise: Noise
    """The kind of noise that its distributions are sampled with."""
    outputs: int
    """A: how many such numbers for each raw action."""
    choices: int
    """How many there are in all; none for continuous actions."""

    @property
    def noises(self) -> list[tuple[Noise, int]]:
        """What its distributions are sampled with, and how many of it: column after column of the noise."""
        return [(self.noise, self.outputs)]

    def forward(self, features: torch.Tensor, mask: torch.Tensor | None = None) -> Distribution:
        """Return the distribution over actions for features `(B, F)`.

        Args:
            features: `(B, F)`.
            mask: `(B, choices)`, zero for those that are not allowed.
        """
        raise NotImplementedError

    def to_action(self, raw_action: torch.Tensor) -> Any:
        """Return the actions that the environment takes."""
        return raw_action

    def to_raw_action(self, action: Any) -> torch.Tensor:
        """Return the raw actions behind actions."""
        return action
