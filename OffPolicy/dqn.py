"""DQN: action values for discrete actions."""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import nn
from torch.nn import functional as F

from OffPolicy.base import OffPolicyAgent
from OffPolicy.config import DQNConfig, ForDQN
from OffPolicy.learner import Learner, Outputs, Rate, WeightedRanks
from OffPolicy.policy import Policy
from OffPolicy.replay import Transitions
from parallel_rl.networks import Perception, linear_layer, mlp
from parallel_rl.utils import FORBIDDEN, Features, MadeWith, Metrics, linear


class QNetwork(nn.Module):
    """From columns `(B, C)` to action values `(B, A)`; with `dueling`, these are a value plus advantages.

    Dueling: Wang et al. 2016 (arXiv:1511.06581), equation 9. The last A columns may be an action mask.
    """

    def __init__(self, features: Features, actions: int, config: DQNConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.obs_columns, self.masked = features.columns, features.mask is not None
        self.perception = Perception(features, generator) if features.images else None
        inputs = features.columns if self.perception is None else self.perception.outputs
        self.encoder = mlp(inputs, config.hidden_sizes, config.activation, generator)
        outputs = [inputs, *config.hidden_sizes][-1]
        self.advantage = linear_layer(outputs, actions, 1.0, generator)
        self.value = linear_layer(outputs, 1, 1.0, generator) if config.dueling else None

    @property
    def first_layers(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Weights `(C, outputs)` and biases of the layers that take the numbers in the columns."""
        heads = [head for head in (self.advantage, self.value) if head is not None]
        layers: list[Any] = [self.encoder[0]] if len(self.encoder) else heads
        return [(layer.weight.mT, layer.bias) for layer in layers]

    def forward(self, columns: torch.Tensor) -> torch.Tensor:
        """Return action values `(B, A)`."""
        obs = columns[:, : self.obs_columns]
        features = self.encoder(obs if self.perception is None else self.perception(obs))
        q = self.advantage(features)
        if self.value is not None:
            q = self.value(features) + q - q.mean(dim=1, keepdim=True)
        if not self.masked:
            return q
        forbidden = columns[:, self.obs_columns :] == 0
        forbidden &= ~forbidden.all(dim=1, keepdim=True)  # a mask that allows nothing counts as none
        return q.masked_fill(forbidden, FORBIDDEN)


class GreedyPolicy(Policy):
    """Chooses the action with the highest value."""

    def __init__(self, *arguments: Any, offset: int) -> None:
        super().__init__(*arguments)
        self.offset = offset

    def actions(self, rows: np.ndarray, deterministic: bool) -> np.ndarray:
        """Return int64 `(B,)`."""
        self.features.check_mask(rows)
        value, best = self.networks["q"](self.columns(rows)).max(dim=1)
        self.check_not_nan(value.cpu().numpy(), rows)
        return best.cpu().numpy() + self.offset

    def deterministic_actions(self, obs: torch.Tensor, core: None = None) -> tuple[torch.Tensor]:
        """Return int64 `(B,)`."""
        return (self.networks["q"](self.normalize(obs)).argmax(dim=1) + self.offset,)


class DQN(OffPolicyAgent):
    """Deep Q-learning (Mnih et al. 2015, doi:10.1038/nature14236).

    By default it is double DQN (van Hasselt et al. 2016, arXiv:1509.06461), and the target network slowly follows the
    network. With `tau=1`, the target is a copy that is renewed every `target_update_interval` updates.
    """

    config_class = DQNConfig
    config: DQNConfig
    policy: GreedyPolicy
    for_env = MadeWith(ForDQN)(OffPolicyAgent.make_for_env)

    def _make_networks(self, generator: torch.Generator) -> tuple[Policy, dict[str, Learner]]:
        if not isinstance(self.action_space, spaces.Discrete):
            raise TypeError(f"DQN needs a Discrete action space, not {self.action_space}")
        config, features = self.config, Features.of(self.observation_space)
        self.num_actions, offset = int(self.action_space.n), int(self.action_space.start)
        features.check_mask_size(self.num_actions, self.action_space)
        network = QNetwork(features, self.num_actions, config, generator).to(config.device)
        networks, settings = {"q": network}, self.signature()
        policy = GreedyPolicy(self.observation_space, networks, config, self.rng, settings, offset=offset)
        self.q = Learner(network)
        return policy, {"q": self.q}

    @property
    def epsilon(self) -> float:
        """The current probability of a random action."""
        config = self.config
        progress = (self.steps + self._acted) / config.epsilon_steps if config.epsilon_steps else 1.0
        return config.epsilon_end + linear(config.epsilon_start - config.epsilon_end, progress)

    def scheduled_now(self) -> Metrics:
        """Return also epsilon."""
        return super().scheduled_now() | {"epsilon": self.epsilon}

    def explore(self, rows: np.ndarray, noise: np.ndarray, state: np.ndarray | None) -> np.ndarray:
        """Return epsilon-greedy actions, independent for each environment."""
        with torch.no_grad():
            actions = self.policy.actions(rows, deterministic=True)
        uniform, scores = noise[:, 0], noise[:, 1:]
        if self.policy.features.mask is not None:
            scores = np.where(rows[:, self.policy.features.columns :] == 0, -1.0, scores)
        return np.where(uniform < self.epsilon, scores.argmax(axis=1) + self.policy.offset, actions)

    def exploration_noise(self, count: int) -> np.ndarray:
        """Return uniform numbers: one for epsilon, and one for each action, of which the largest wins."""
        return np.hstack([self.rng.random((count, 1)), self.rng.random((count, self.num_actions))])

    def is_delayed_update(self) -> bool:
        """Return whether the target network is updated after the next update."""
        return (self.updates + 1) % self.config.target_update_interval == 0

    def make_update(
        self, batch: Transitions, noise: torch.Tensor, lr: Rate, ranks: WeightedRanks, delayed: bool
    ) -> Outputs:
        """Make one update.

        y = r + discount * Q_target(s', argmax_a Q(s', a)),  loss = mean weight * huber(Q(s, a) - y)
        """
        with torch.no_grad():
            next_q = self.q.target(batch.next_obs)
            choice = self.q.network(batch.next_obs) if self.config.double else next_q
            next_value = next_q.gather(1, choice.argmax(dim=1, keepdim=True))[:, 0]
            target = self.target(batch, next_value)
        q = self.q.network(batch.obs).gather(1, batch.action[:, None] - self.policy.offset)[:, 0]
        loss = (batch.weight * F.smooth_l1_loss(q, target, reduction="none")).mean()
        self.q.descend(loss, lr, ranks, self.config.max_grad_norm)
        if delayed:
            self.q.update_target(self.config.tau)
        return {"q_loss": loss.detach(), "q_value": q.detach().mean()}, (q - target).detach()
