"""The base of DDPG, TD3 and SAC: actions in [-1, 1], an actor, and critics."""

from abc import abstractmethod
from typing import Any, TypeGuard

import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from OffPolicy.config import ContinuousConfig
from OffPolicy.imitation import ImitatingAgent
from OffPolicy.learner import Learner, Outputs, Rate, WeightedRanks
from OffPolicy.noise import NormalNoise
from OffPolicy.policy import Policy
from OffPolicy.replay import Transitions
from parallel_rl.networks import Ensemble, Trace
from parallel_rl.utils import ACTION_MASK, Features, action_units, bounds_of
from parallel_rl.utils.spaces import of_whole_numbers

ACTOR_GAIN = 0.01
"""Gain of the last layer of actors: the first actions hardly depend on the observation."""


class Network(nn.Module):
    """A network that is an `Ensemble`, whose layers take columns first."""

    layers: Ensemble

    @property
    def first_layers(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Weights `(K, inputs, outputs)` and biases of the layers that take the columns."""
        return [self.layers.first_layer]


class Critic(Network):
    """K critics: from columns `(B, C)` and actions `(B, A)` in [-1, 1] to values `(K, B)`."""

    def __init__(self, count: int, columns: int, actions: int, config: ContinuousConfig, generator: torch.Generator):
        super().__init__()
        self.layers = Ensemble(count, columns + actions, config.hidden_sizes, 1, config.activation, generator)

    def forward(self, columns: torch.Tensor, actions: torch.Tensor, count: int | None = None) -> torch.Tensor:
        """Return the values `(K, B)` of all critics, or of the first `count`."""
        return self.trace(columns, actions, count)[0]

    def trace(
        self, columns: torch.Tensor, actions: torch.Tensor, count: int | None = None
    ) -> tuple[torch.Tensor, Trace]:
        """Return what `forward` returns, and what the gradients need."""
        values, trace = self.layers.trace(torch.cat([columns, actions], dim=1), count)
        return values[..., 0], trace

    def write_gradient(self, trace: Trace, d_values: torch.Tensor) -> None:
        """Write the derivatives of a loss by the parameters into their `grad`, given those by the values `(K, B)`."""
        self.layers.write_gradient(trace, d_values[..., None])

    def action_gradient(self, trace: Trace, d_values: torch.Tensor, actions: int) -> torch.Tensor:
        """Return the derivatives of a loss by the actions `(B, A)`, given those by the values `(K, B)`."""
        return self.layers.input_gradient(trace, d_values[..., None], slice(-actions, None))


class DeterministicActor(Network):
    """An actor: from columns `(B, C)` to actions `(B, A)` in [-1, 1]."""

    def __init__(self, columns: int, actions: int, config: ContinuousConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.layers = Ensemble(1, columns, config.hidden_sizes, actions, config.activation, generator, ACTOR_GAIN)

    def forward(self, columns: torch.Tensor) -> torch.Tensor:
        """Return actions `(B, A)`."""
        return self.trace(columns)[0]

    def trace(self, columns: torch.Tensor) -> tuple[torch.Tensor, Trace]:
        """Return what `forward` returns, and what the gradient needs."""
        raw_actions, trace = self.layers.trace(columns)
        return raw_actions[0].tanh(), trace

    def write_gradient(self, trace: Trace, actions: torch.Tensor, d_actions: torch.Tensor) -> None:
        """Write the derivatives of a loss by the parameters into their `grad`, given those by the actions `(B, A)`."""
        self.layers.write_gradient(trace, (d_actions * (1 - actions**2))[None])


class ContinuousPolicy(Policy):
    """Chooses actions in [-1, 1], and scales them to the bounds of the action space."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Box, *arguments: Any):
        """Store the parts, and the action space, whose bounds are finite."""
        super().__init__(observation_space, *arguments)
        self.action_space = action_space
        self.offset, self.scale = (units.astype(np.float32) for units in action_units(*bounds_of(action_space)))

    def choose(self, columns: torch.Tensor, deterministic: bool) -> torch.Tensor:
        """Return actions `(B, A)` in [-1, 1]; this base class has a deterministic actor."""
        return self.networks["actor"](columns)

    def actions(self, rows: np.ndarray, deterministic: bool) -> np.ndarray:
        """Return float32 `(B, ...)`, inside the bounds."""
        actions = self.choose(self.columns(rows), deterministic).cpu().numpy()
        self.check_not_nan(actions, rows)
        return self.to_environment(actions)

    def deterministic_actions(self, obs: torch.Tensor, core: None = None) -> tuple[torch.Tensor]:
        """Return `(B, A)`, inside the bounds."""
        bounds = self.action_space.low.flatten(), self.action_space.high.flatten()
        offset, scale, low, high = map(torch.from_numpy, (self.offset, self.scale, *bounds))
        return ((offset + scale * self.choose(self.normalize(obs), deterministic=True)).clamp(low, high),)

    def to_environment(self, actions: np.ndarray) -> np.ndarray:
        """Scale actions `(B, A)` in [-1, 1] to those of the environment."""
        scaled = (self.offset + self.scale * actions).reshape(-1, *self.action_space.shape)
        return np.clip(scaled, self.action_space.low, self.action_space.high).astype(self.action_space.dtype)

    def from_environment(self, actions: np.ndarray) -> np.ndarray:
        """Undo `to_environment`."""
        return np.clip((actions.reshape(len(actions), -1) - self.offset) / self.scale, -1, 1).astype(np.float32)


class ContinuousAgent(ImitatingAgent):
    """An agent that explores and learns with actions in [-1, 1]."""

    config: ContinuousConfig
    policy: ContinuousPolicy
    policy_class: type[ContinuousPolicy] = ContinuousPolicy
    actor_learner: Learner[Any]
    critic_learner: Learner[Critic]
    critics: int
    """K, the number of critics."""
    has_target_actor = True
    noise_process: NormalNoise | None = None

    def _make_networks(self, generator: torch.Generator) -> tuple[Policy, dict[str, Learner]]:
        space, features, name = self.action_space, Features.of(self.observation_space), type(self).__name__
        if not _is_supported(space):
            hint = of_whole_numbers(space)
            raise TypeError(f"{name} needs a Box of float actions with different, finite bounds, not {space}{hint}")
        if features.mask is not None:
            raise TypeError(
                f"{name} takes no {ACTION_MASK}, and {self.observation_space} has one: DQN and PPO take masks"
            )
        if features.images:
            raise TypeError(f"{name} takes no images, and {self.observation_space} has some")
        config, self.action_dim = self.config, int(np.prod(space.shape))
        actor = self._make_actor(features.columns, generator).to(config.device)
        critic = Critic(self.critics, features.columns, self.action_dim, config, generator).to(config.device)
        self.actor_learner, self.critic_learner = Learner(actor, self.has_target_actor), Learner(critic)
        if config.compile:
            self.compiled_update = torch.compile(self.make_update, dynamic=False, options={"cpp_wrapper": True})
        networks = {"actor": actor, "critic": critic}
        policy = self.policy_class(self.observation_space, space, networks, config, self.rng, self.signature())
        return policy, {"actor": self.actor_learner, "critic": self.critic_learner}

    @abstractmethod
    def _make_actor(self, columns: int, generator: torch.Generator) -> nn.Module:
        """Return the actor's network."""

    def explore(self, rows: np.ndarray, noise: np.ndarray, state: np.ndarray | None) -> np.ndarray:
        """Return random actions until `learning_starts`, later noisy ones, or random with probability `eps_greedy`."""
        if noise.shape[1] == self.action_dim:  # from before `learning_starts`
            return self.policy.to_environment(noise)
        random_actions, normals, uniform = np.split(noise, [self.action_dim, -1], axis=1)
        with torch.no_grad():
            actions = self.behave(self.policy.columns(rows), normals).cpu().numpy()
        self.policy.check_not_nan(actions, rows)
        if self.noise_process is not None:
            actions = np.clip(actions + self.noise_process.sample(normals, state), -1, 1)
        return self.policy.to_environment(np.where(uniform < self.config.eps_greedy, random_actions, actions))

    def exploration_noise(self, count: int) -> np.ndarray:
        """Return random actions; after `learning_starts` also normal numbers, and a uniform one for `eps_greedy`."""
        random_actions = self.rng.uniform(-1, 1, (count, self.action_dim))
        if self.steps < self.learning_starts:
            return random_actions
        return np.hstack([random_actions, self.normals(count), self.rng.random((count, 1))])

    @abstractmethod
    def normals(self, count: int) -> np.ndarray:
        """Return the standard normal numbers `(count, A)` for the next actions; `(count, 0)` if there is no noise."""

    @abstractmethod
    def behave(self, columns: torch.Tensor, normals: np.ndarray) -> torch.Tensor:
        """Return the actions in [-1, 1] to which exploration adds noise."""

    def to_network_action(self, actions: np.ndarray) -> np.ndarray:
        """Scale the environment's actions to those of the networks, `(B, A)` in [-1, 1]."""
        return self.policy.from_environment(actions)

    def update_critic(self, batch: Transitions, target: torch.Tensor, lr: Rate, ranks: WeightedRanks) -> Outputs:
        """Descend `sum_k mean weight * (q_k - target)^2 / 2`; return metrics, and the mean of |TD errors| `(B,)`."""
        critic = self.critic_learner.network
        q, trace = critic.trace(batch.obs, batch.action)
        errors = q - target
        d_q = batch.weight * errors / len(target)
        critic.write_gradient(trace, d_q)
        ranks.average(self.critic_learner.gradient)
        self.critic_learner.step(lr)
        metrics = {"critic_loss": 0.5 * (d_q * errors).sum(), "q_value": q.mean()}
        return metrics, errors.abs().mean(dim=0)

    def action_loss(self, actions: torch.Tensor, d_actions: torch.Tensor) -> float | torch.Tensor:
        """Return the loss of the squared actions `(B, A)`, and add its derivatives to `d_actions`."""
        if not self.config.action_l2:
            return 0.0
        d_actions.add_(actions, alpha=2 * self.config.action_l2 / actions.numel())
        return self.config.action_l2 * (actions**2).mean()

    def update_targets(self) -> None:
        """Update the target networks."""
        for learner in (self.actor_learner, self.critic_learner):
            learner.update_target(self.config.tau)


def _is_supported(space: spaces.Space) -> TypeGuard[spaces.Box]:
    """Return whether a space is a Box of floats, not empty, with finite bounds that differ in each dimension."""
    if not isinstance(space, spaces.Box) or not np.issubdtype(space.dtype, np.floating) or 0 in space.shape:
        return False
    low, high = bounds_of(space)
    return bool(np.isfinite([low, high]).all() and (low < high).all())
