"""SAC: a stochastic policy with an entropy bonus."""

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from OffPolicy.arguments import ForSAC
from OffPolicy.base import OffPolicyAgent
from OffPolicy.config import ContinuousConfig, SACConfig
from OffPolicy.continuous import ACTOR_GAIN, ContinuousAgent, ContinuousPolicy
from OffPolicy.learner import Learner
from OffPolicy.sampler import Minibatch
from parallel_rl.networks import Ensemble, TanhGaussian
from parallel_rl.utils import MadeWith, Metrics

LOG_STD_RANGE = -20.0, 2.0
LOG_ALPHA_RANGE = -20.0, 10.0


class StochasticActor(nn.Module):
    """From columns `(B, C)` to a Gaussian of A dimensions, squashed into (-1, 1)."""

    scale: torch.Tensor

    def __init__(self, columns: int, actions: int, config: ContinuousConfig, generator: torch.Generator) -> None:
        """Make the layers."""
        super().__init__()
        self.layers = Ensemble(1, columns, config.hidden_sizes, 2 * actions, config.activation, generator, ACTOR_GAIN)
        self.register_buffer("scale", torch.ones(actions), persistent=False)

    def forward(self, columns: torch.Tensor) -> TanhGaussian:
        """Return the distribution over actions."""
        mean, log_std = self.layers(columns)[0].chunk(2, dim=1)
        return TanhGaussian(mean, log_std.clamp(*LOG_STD_RANGE), self.scale)


class StochasticPolicy(ContinuousPolicy):
    """Samples its actions; deterministic actions are the medians."""

    def choose(self, columns: torch.Tensor, deterministic: bool) -> torch.Tensor:
        """Return actions `(B, A)` in [-1, 1]."""
        policy = self.networks["actor"](columns)
        return (policy.mode() if deterministic else policy.sample(self.noise_like(policy.mean))).tanh()

    def noise_like(self, mean: torch.Tensor) -> torch.Tensor:
        """Return standard normal noise with the shape of `mean`."""
        return torch.from_numpy(self.rng.standard_normal(mean.shape, np.float32)).to(mean.device)


class Temperature(nn.Module):
    """alpha, the factor of the entropy, parameterized by its logarithm."""

    def __init__(self, alpha: float) -> None:
        """Start with `alpha`."""
        super().__init__()
        self.log = nn.Parameter(torch.full((1,), math.log(alpha)))

    def gradient(self, log_prob: torch.Tensor, target_entropy: float) -> torch.Tensor:
        """Return the gradient of -log alpha * mean(log p + target) with respect to log alpha.

        So alpha falls while the entropy is above the target.
        """
        return -(log_prob.detach().mean(dim=0, keepdim=True) + target_entropy)


class SAC(ContinuousAgent):
    """Soft actor-critic with a learned temperature (Haarnoja et al. 2018, arXiv:1801.01290 and arXiv:1812.05905)."""

    config_class = SACConfig
    config: SACConfig
    for_env = MadeWith(ForSAC)(OffPolicyAgent.make_for_env)
    policy: StochasticPolicy
    policy_class = StochasticPolicy
    critics, has_target_actor = 2, False

    def _make_networks(self, generator: torch.Generator) -> Any:
        policy, learners = super()._make_networks(generator)
        config = self.config
        alpha = config.initial_alpha if config.alpha is None else config.alpha
        self.temperature = Learner(Temperature(alpha).to(config.device), has_target=False)
        return policy, learners | {"temperature": self.temperature}

    def _make_actor(self, columns: int, generator: torch.Generator) -> nn.Module:
        return StochasticActor(columns, self.action_dim, self.config, generator)

    @property
    def entropy_target(self) -> float:
        """The entropy that the learned temperature aims at, in nats."""
        return -float(self.action_dim) if self.config.target_entropy is None else self.config.target_entropy

    def sample_actions(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the policy's actions `(B, A)`, reparameterized, and their log-density `(B,)`."""
        policy = self.actor_learner.network(obs)
        raw_action, log_prob = policy.sample_with_log_prob(self.policy.noise_like(policy.mean))
        return raw_action.tanh(), log_prob

    def learn_from(self, batch: Minibatch) -> tuple[Metrics, torch.Tensor]:
        """Make one update.

        y = r + discount * (min_k Q_target_k(s', a') - alpha log pi(a' | s')),  a' ~ pi(s')
        critics: sum_k (Q_k(s, a) - y)^2 / 2,  actor: alpha log pi(a~ | s) - min_k Q_k(s, a~),  a~ ~ pi(s)

        With `clip_return` the critics learn returns alone: y lacks the entropy bonus (as in Ball et al. 2023,
        arXiv:2302.02948, for sparse rewards).
        """
        critic, alpha = self.critic_learner, self.temperature.network.log.detach().exp()
        with torch.no_grad():
            next_action, next_log_prob = self.sample_actions(batch.next_obs)
            next_value = critic.target(batch.next_obs, next_action).amin(dim=0)
            if not self.config.clip_return:  # its bounds hold for returns, without the entropy bonus
                next_value = next_value - alpha * next_log_prob
            target = self.target(batch, next_value)
        q = critic.network(batch.obs, batch.action)
        critic_loss, errors = self.update_critic(q, target, batch.weight)

        action, log_prob = self.sample_actions(batch.obs)
        loss = (alpha * log_prob - critic.fixed(batch.obs, action).amin(dim=0)).mean()
        actor_loss = self.update_actor(loss, action, batch)
        if self.config.alpha is None:
            temperature = self.temperature.network
            gradient = temperature.gradient(log_prob, self.entropy_target)
            self.temperature.descend(temperature.log, self.current_lr, gradient=gradient)
            self.temperature.vector.clamp_(*LOG_ALPHA_RANGE)
        critic.update_target(self.config.tau)
        metrics = {"critic_loss": critic_loss, "actor_loss": actor_loss, "q_value": q.detach().mean().item()}
        return metrics | {"alpha": alpha.item(), "entropy": -log_prob.detach().mean().item()}, errors
