"""ActorCritic: a policy and its value function."""

from collections.abc import Sequence
from itertools import chain

import torch
from torch import nn

from networks import CategoricalHead, Distribution, PolicyHead, RunningNorm, TanhGaussianHead, ValueHead, mlp
from networks.encoders import ACTIVATIONS
from PPO.analytic import Architecture, Squashing

OBS_CLIP = 10.0


class ActorCritic(nn.Module):
    """Two separate encoders of the same size: one leads to a distribution over actions, one to values.

    That the encoders are separate and use tanh: Andrychowicz et al. 2021 (arXiv:2006.05990), section 3.2.
    """

    obs_norm: RunningNorm | None

    def __init__(
        self,
        is_continuous: bool,
        observ_dim: int,
        action_dim: int,
        *,
        scale: torch.Tensor | None = None,
        offset: torch.Tensor | None = None,
        hidden_sizes: Sequence[int] = (64, 64),
        activation: str = "tanh",
        log_std: float = 0.0,
        values: int = 1,
        normalize_obs: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        """Make the networks.

        Args:
            is_continuous: a squashed Gaussian over `action_dim` dimensions, or else a choice among `action_dim`.
            observ_dim: D, features of a flattened observation.
            action_dim: A.
            scale: float64 `(A,)`, half the width of the bounds; ones by default.
            offset: float64 `(A,)`, the middle of the bounds, or the first of discrete actions; zeros by default.
            hidden_sizes: of each encoder.
            activation: `tanh`, `relu` or `silu`.
            log_std: the Gaussian's initial log standard deviation.
            values: V, how many value functions: one, or two with an intrinsic reward.
            normalize_obs: whether to standardise observations by their running statistics.
            generator: of the initial weights.
        """
        super().__init__()
        self.observ_dim, self.hidden_sizes, self.activation = observ_dim, tuple(hidden_sizes), activation
        generator = generator or torch.Generator().manual_seed(torch.seed())
        self.obs_norm = RunningNorm(observ_dim, OBS_CLIP) if normalize_obs else None
        self.actor = mlp(observ_dim, hidden_sizes, activation, generator)
        self.critic = mlp(observ_dim, hidden_sizes, activation, generator)
        features = hidden_sizes[-1] if hidden_sizes else observ_dim
        self.policy_head: PolicyHead
        scale = torch.ones(action_dim) if scale is None else scale
        offset = torch.zeros(action_dim) if offset is None else offset
        if is_continuous:
            self.policy_head = TanhGaussianHead(features, scale, offset, log_std, generator)
        else:
            self.policy_head = CategoricalHead(features, action_dim, int(offset[0]), generator)
        self.value_head = ValueHead(features, values, generator)

    def forward(self, obs: torch.Tensor) -> tuple[Distribution, torch.Tensor]:
        """Return the policy and the standardised values `(B, V)` of standardised observations `(B, D)`."""
        return self.policy_head(self.actor(obs)), self.value_head(self.critic(obs))

    def distribution(self, obs: torch.Tensor) -> Distribution:
        """Return only the policy."""
        return self.policy_head(self.actor(obs))

    def value(self, obs: torch.Tensor) -> torch.Tensor:
        """Return only the values `(B, V)`, in units of reward."""
        return self.value_head.stats.inverse(self.value_head(self.critic(obs)))

    def stacked_parameters(self) -> list[nn.Parameter]:
        """Return the parameters in the order of `Architecture.shapes`: a layer of the actor, then the critic's."""
        encoders = zip(self.actor.parameters(), self.critic.parameters(), strict=True)
        return [*chain.from_iterable(encoders), *self.policy_head.parameters(), *self.value_head.parameters()]

    def architecture(self) -> Architecture | None:
        """Return what it is made of; None if that is not what the constructor makes."""
        made = [nn.Linear, ACTIVATIONS[self.activation]] * len(self.hidden_sizes)
        if any([type(layer) for layer in encoder.children()] != made for encoder in (self.actor, self.critic)):
            return None
        head, squashing, first_action = self.policy_head, None, 0
        if type(head) not in (TanhGaussianHead, CategoricalHead):
            return None
        if isinstance(head, TanhGaussianHead):
            squashing = Squashing(*(bound.numpy() for bound in (head.scale, head.offset, head.low, head.high)))
        elif isinstance(head, CategoricalHead):
            first_action = head.offset
        return Architecture(
            self.observ_dim,
            self.hidden_sizes,
            self.activation,
            head.outputs,
            self.value_head.normal.out_features,
            squashing,
            first_action,
        )

    def standardise(self, obs: torch.Tensor) -> torch.Tensor:
        """Return observations `(B, D)` as the other methods take them."""
        return obs if self.obs_norm is None else self.obs_norm(obs)
