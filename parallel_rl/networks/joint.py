"""Actions of several parts, each with a head of its own."""

from collections.abc import Sequence
from itertools import accumulate, chain

import torch
from torch import nn

from parallel_rl.networks.distributions import Distribution, Joint
from parallel_rl.networks.policy_head import PolicyHead


class JointHead(PolicyHead):
    """A head for each part of an action; given the features, the parts are independent.

    Raw actions are float32 `(B, D)`, the concatenated parts. Actions are a tuple of arrays `(B, ...)`, one for each
    part.
    """

    def __init__(self, heads: Sequence[PolicyHead], shapes: Sequence[tuple[int, ...]], sizes: Sequence[int]) -> None:
        """Store the heads.

        Args:
            heads: of the parts; discrete ones have raw actions `(B, K)`.
            shapes: of an action, for each part.
            sizes: the number of columns of the raw actions of each part.
        """
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.noises, self.choices = [*chain(*(head.noises for head in heads))], sum(head.choices for head in heads)
        self._shapes, self._sizes = list(shapes), list(sizes)
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
