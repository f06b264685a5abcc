"""SAC: a stochastic policy with an entropy bonus."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from OffPolicy.base import OffPolicyAgent
from OffPolicy.config import ContinuousConfig, ForSAC, SACConfig
from OffPolicy.continuous import ACTOR_GAIN, ContinuousAgent, ContinuousPolicy, Network
from OffPolicy.learner import Learner, Outputs, Rate, Tensors, WeightedRanks
from OffPolicy.replay import Transitions
from parallel_rl.networks import Ensemble, TanhGaussian, Trace
from parallel_rl.utils import MadeWith, State

LOG_STD_RANGE = -20.0, 2.0
LOG_ALPHA_RANGE = -20.0, 10.0
TEMPERATURE = "networks.temperature.log"
"""Its name among the weights."""


class Sampled(NamedTuple):
    """Sampled actions, and what the gradient of the actor needs."""

    action: torch.Tensor
    """`(B, A)`, in [-1, 1]."""
    log_prob: torch.Tensor
    """`(B,)`."""
    raw_action: torch.Tensor
    """`(B, A)`."""
    policy: TanhGaussian
    log_std: torch.Tensor
    """`(B, A)`, before it is clamped."""
    trace: Trace


class StochasticActor(Network):
    """From columns `(B, C)` to a Gaussian of A dimensions, squashed into (-1, 1)."""

    scale: torch.Tensor

    def __init__(self, columns: int, actions: int, config: ContinuousConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.layers = Ensemble(1, columns, config.hidden_sizes, 2 * actions, config.activation, generator, ACTOR_GAIN)
        self.register_buffer("scale", torch.ones(actions), persistent=False)

    def forward(self, columns: torch.Tensor) -> TanhGaussian:
        """Return the distribution over actions."""
        mean, log_std = self.layers(columns)[0].chunk(2, dim=1)
        return TanhGaussian(mean, log_std.clamp(*LOG_STD_RANGE), self.scale)

    def sample(self, columns: torch.Tensor, noise: torch.Tensor) -> Sampled:
        """Return actions for standard normal noise `(B, A)`."""
        outputs, trace = self.layers.trace(columns)
        mean, log_std = outputs[0].chunk(2, dim=1)
        policy = TanhGaussian(mean, log_std.clamp(*LOG_STD_RANGE), self.scale)
        raw_action, log_prob = policy.sample_with_log_prob(noise)
        return Sampled(raw_action.tanh(), log_prob, raw_action, policy, log_std, trace)

    def write_gradient(self, sampled: Sampled, d_action: torch.Tensor, d_log_prob: Any, d_mean: torch.Tensor) -> None:
        """Write the derivatives of a loss by the parameters into their `grad`.

        The raw action is u = mean + std x with noise x, and the action a = tanh(u):

            d a / d u = 1 - a^2,  d log p / d u = 2 a,  d log p / d log std = 2 a std x - 1

        Args:
            sampled: what `sample` returned.
            d_action: the derivatives of the loss by the actions `(B, A)`.
            d_log_prob: those by the log-density, a number for all rows.
            d_mean: the derivatives by the means of the raw actions `(B, A)`, of the terms that contain no sampled
                action (behavior cloning).
        """
        action, policy = sampled.action, sampled.policy
        d_raw = d_action * (1 - action**2) + 2 * d_log_prob * action
        d_log_std = d_raw * (sampled.raw_action - policy.mean) - d_log_prob
        d_log_std = d_log_std.masked_fill(policy.log_std != sampled.log_std, 0.0)
        self.layers.write_gradient(sampled.trace, torch.cat([d_raw + d_mean, d_log_std], dim=1)[None])


class StochasticPolicy(ContinuousPolicy):
    """Samples its actions; deterministic actions are the medians."""

    def choose(self, columns: torch.Tensor, deterministic: bool) -> torch.Tensor:
        """Return actions `(B, A)` in [-1, 1]."""
        policy = self.networks["actor"](columns)
        if deterministic:
            return policy.mode().tanh()
        noise = self.rng.standard_normal(policy.mean.shape, np.float32)
        return policy.sample(torch.from_numpy(noise).to(policy.mean.device)).tanh()


class Temperature(nn.Module):
    """alpha, the factor of the entropy, parameterized by its logarithm."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.full((1,), math.log(alpha)))
        self.first_layers = ()

    def write_gradient(self, log_prob: torch.Tensor, target_entropy: float) -> None:
        """Write the derivative of -log alpha * mean(log p + target) by log alpha into its `grad`.

        So alpha falls while the entropy is above the target.
        """
        assert self.log.grad is not None
        self.log.grad.fill_(-(log_prob.mean() + target_entropy))


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
        policy.networks["temperature"] = self.temperature.network  # saved with the weights
        return policy, learners | {"temperature": self.temperature}

    def _loadable(self, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return all weights, with the agent's temperature if it is fixed, or if the file (an older one) has none."""
        own = {TEMPERATURE: self.temperature.network.log}
        return own | weights if self.config.alpha is None else weights | own

    def _load_networks(self, state: State) -> None:
        """Restore the networks; a fixed temperature stays as it is."""
        super()._load_networks(state)
        if self.config.alpha is not None:
            self.temperature.vector.fill_(math.log(self.config.alpha))

    def _make_actor(self, columns: int, generator: torch.Generator) -> nn.Module:
        return StochasticActor(columns, self.action_dim, self.config, generator)

    @property
    def entropy_target(self) -> float:
        """The entropy that the learned temperature aims at, in nats."""
        return -float(self.action_dim) if self.config.target_entropy is None else self.config.target_entropy

    def normals(self, count: int) -> np.ndarray:
        """Return the numbers for the policy's actions."""
        return self.rng.standard_normal((count, self.action_dim), np.float32)

    def behave(self, columns: torch.Tensor, normals: np.ndarray) -> torch.Tensor:
        """Return the policy's actions."""
        noise = torch.from_numpy(normals.astype(np.float32)).to(columns.device)
        return self.actor_learner.network(columns).sample(noise).tanh()

    def update_noise(self, count: int) -> np.ndarray:
        """Return the numbers for the actions at the next observations, and for those at the observations."""
        return self.rng.standard_normal((2, count, self.action_dim), np.float32)

    @torch.no_grad()
    def make_update(
        self, batch: Transitions, noise: torch.Tensor, lr: Rate, ranks: WeightedRanks, delayed: bool
    ) -> Outputs:
        """Make one update.

        y = r + discount * (min_k Q_target_k(s', a') - alpha log pi(a' | s')),  a' ~ pi(s')
        critics: sum_k (Q_k(s, a) - y)^2 / 2,  actor: alpha log pi(a~ | s) - min_k Q_k(s, a~),  a~ ~ pi(s)

        With `clip_return` the critics learn returns alone: y lacks the entropy bonus (as in Ball et al. 2023,
        arXiv:2302.02948, for sparse rewards).
        """
        actor, alpha = self.actor_learner.network, self.temperature.network.log.exp()
        next_sample = actor.sample(batch.next_obs, noise[0])
        next_value = self.critic_learner.target(batch.next_obs, next_sample.action).amin(dim=0)
        if not self.config.clip_return:  # its bounds hold for returns, without the entropy bonus
            next_value = next_value - alpha * next_sample.log_prob
        metrics, errors = self.update_critic(batch, self.target(batch, next_value), lr, ranks)
        sampled = actor.sample(batch.obs, noise[1])
        self.temperature.network.write_gradient(sampled.log_prob, self.entropy_target)
        metrics |= self.improve_actor(batch, sampled, alpha, lr, ranks)
        if self.config.alpha is None:
            self.temperature.step(lr)
            self.temperature.vector.clamp_(*LOG_ALPHA_RANGE)
        self.update_targets()
        return metrics | {"alpha": alpha[0], "entropy": -sampled.log_prob.mean()}, errors

    def improve_actor(
        self, batch: Transitions, sampled: Sampled, alpha: torch.Tensor, lr: Rate, ranks: WeightedRanks
    ) -> Tensors:
        """Descend the actor's losses for actions that it sampled; return them.

        The gradient of the temperature is averaged over the ranks in the same message.
        """
        actor, critic, count = self.actor_learner.network, self.critic_learner.network, len(batch.obs)
        q, trace = critic.trace(batch.obs, sampled.action)
        smallest = q.amin(dim=0)
        d_action = critic.action_gradient(trace, (q == smallest) * (-1 / count), self.action_dim)
        median, d_median = sampled.policy.mean.tanh(), torch.zeros_like(d_action)
        loss = (alpha * sampled.log_prob - smallest).mean() + self.action_loss(sampled.action, d_action)
        cloning_loss = self.cloning_loss(batch, median, d_median, ranks)
        actor.write_gradient(sampled, d_action, alpha / count, d_median * (1 - median**2))
        ranks.average(self.actor_learner.gradient, self.temperature.gradient)
        self.actor_learner.step(lr)
        return {"actor_loss": loss, **cloning_loss}
