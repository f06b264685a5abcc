"""PolicyHead, the base class of the heads of a policy; and JointHead, for actions of several parts."""

import math
from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Any, Literal

import torch
from torch import nn

from parallel_rl.networks.distributions import Distribution, Joint

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


class JointHead(PolicyHead):
    """A head for each part of an action; given the features, the parts are independent.

    Raw actions are float32 `(B, D)`, the concatenated parts. Actions are a tuple of arrays `(B, ...)`, one for each
    part.
    """

    def __init__(self, heads: Sequence[PolicyHead], shapes: Sequence[tuple[int, ...]]) -> None:
        """Store the heads.

        Args:
            heads: of the parts; discrete ones have raw actions `(B, K)`.
            shapes: of an action, for each part.
        """
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.noises, self.choices = [*chain(*(head.noises for head in heads))], sum(head.choices for head in heads)
        self._shapes, self._sizes = list(shapes), [math.prod(shape) for shape in shapes]
        self._columns = [head.noise_size for head in heads]
        self._masks = [*accumulate((head.choices for head in heads), initial=0)]

    def forward(self, features: torch.Tensor, mask: torch.Tensor | None = None) -> Joint:
        """Return the distribution over actions; the mask joins the masks of all discrete parts."""
        parts: list[Distribution] = []
        for index, head in enumerate(self.heads):
            own = None if mask is None else mask[:, self._masks[index] : self._masks[index + 1]]
            parts.append(head(features, own if head.choices else None))
        return Joint(parts, self._columns, self._sizes)

    def to_action(self, raw_action: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the actions of each part `(B, ...)`."""
        raw_actions = raw_action.split(self._sizes, dim=1)
        return tuple(
            head.to_action(part).reshape(-1, *shape)  # type: ignore[operator]
            for head, part, shape in zip(self.heads, raw_actions, self._shapes, strict=True)
        )

    def to_raw_action(self, action: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the raw actions behind the actions of each part `(B, ...)`."""
        raw_actions = [
            head.to_raw_action(part.reshape(len(part), -1))  # type: ignore[operator]
            for head, part in zip(self.heads, action, strict=True)
        ]
        return torch.cat([raw_action.float() for raw_action in raw_actions], dim=1)
