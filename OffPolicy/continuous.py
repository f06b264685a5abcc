"""The base of DDPG, TD3 and SAC: actions in [-1, 1], an actor, and critics."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeGuard

import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from OffPolicy.base import OffPolicyAgent
from OffPolicy.config import ContinuousConfig
from OffPolicy.demonstrations import load_demonstrations
from OffPolicy.learner import Learner
from OffPolicy.noise import NormalNoise
from OffPolicy.policy import Policy
from OffPolicy.replay import Replay
from OffPolicy.sampler import Minibatch, Sample, Sampler
from parallel_rl.networks import Ensemble
from parallel_rl.utils import Features, Trajectory, action_units, bounds_of

ACTOR_GAIN = 0.01
"""Gain of the last layer of actors: the first actions hardly depend on the observation."""


class Critic(nn.Module):
    """K critics: from columns `(B, C)` and actions `(B, A)` in [-1, 1] to values `(K, B)`."""

    def __init__(self, count: int, columns: int, actions: int, config: ContinuousConfig, generator: torch.Generator):
        """Make the layers."""
        super().__init__()
        self.layers = Ensemble(count, columns + actions, config.hidden_sizes, 1, config.activation, generator)

    def forward(self, columns: torch.Tensor, actions: torch.Tensor, count: int | None = None) -> torch.Tensor:
        """Return values `(K, B)`, or those of the first `count` critics."""
        return self.layers(torch.cat([columns, actions], dim=1), count)[..., 0]


class DeterministicActor(nn.Module):
    """An actor: from columns `(B, C)` to actions `(B, A)` in [-1, 1]."""

    def __init__(self, columns: int, actions: int, config: ContinuousConfig, generator: torch.Generator) -> None:
        """Make the layers."""
        super().__init__()
        self.layers = Ensemble(1, columns, config.hidden_sizes, actions, config.activation, generator, ACTOR_GAIN)

    def forward(self, columns: torch.Tensor) -> torch.Tensor:
        """Return actions `(B, A)`."""
        return self.layers(columns)[0].tanh()


class ContinuousPolicy(Policy):
    """Chooses actions in [-1, 1], and scales them to the bounds of the action space."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Box, *arguments: Any, **options: Any):
        """Store the parts, and the action space, whose bounds are finite."""
        super().__init__(observation_space, *arguments, **options)
        self.action_space = action_space
        self.offset, self.scale = (units.astype(np.float32) for units in action_units(*bounds_of(action_space)))

    def choose(self, columns: torch.Tensor, deterministic: bool) -> torch.Tensor:
        """Return actions `(B, A)` in [-1, 1]; this base class has a deterministic actor."""
        return self.networks["actor"](columns)

    def actions(self, columns: torch.Tensor, deterministic: bool) -> np.ndarray:
        """Return float32 `(B, ...)`, inside the bounds."""
        return self.to_environment(self.choose(columns, deterministic).cpu().numpy())

    def to_environment(self, actions: np.ndarray) -> np.ndarray:
        """Scale actions `(B, A)` in [-1, 1] to those of the environment."""
        scaled = (self.offset + self.scale * actions).reshape(-1, *self.action_space.shape)
        return np.clip(scaled, self.action_space.low, self.action_space.high).astype(self.action_space.dtype)

    def from_environment(self, actions: np.ndarray) -> np.ndarray:
        """Undo `to_environment`."""
        return np.clip((actions.reshape(len(actions), -1) - self.offset) / self.scale, -1, 1).astype(np.float32)


class ContinuousAgent(OffPolicyAgent):
    """An agent that explores and learns with actions in [-1, 1]."""

    config: ContinuousConfig
    policy: ContinuousPolicy
    policy_class: type[ContinuousPolicy] = ContinuousPolicy
    critics: int
    """K, the number of critics."""
    has_target_actor = True
    noise: NormalNoise | None = None
    demos: Sampler | None = None
    """Samples demonstrations; None without them."""

    def _make_networks(self, generator: torch.Generator) -> tuple[Policy, dict[str, Learner]]:
        space, features, name = self.action_space, Features.of(self.observation_space), type(self).__name__
        if not _is_supported(space):
            raise TypeError(f"{name} needs a Box of float actions with different, finite bounds, not {space}")
        if features.images:
            raise TypeError(f"{name} takes no images, and {self.observation_space} has some")
        config, self.action_dim = self.config, int(np.prod(space.shape))
        actor = self._make_actor(features.columns, generator).to(config.device)
        critic = Critic(self.critics, features.columns, self.action_dim, config, generator).to(config.device)
        self.actor_learner, self.critic_learner = Learner(actor, self.has_target_actor), Learner(critic)
        policy = self.policy_class(
            self.observation_space,
            space,
            {"actor": actor, "critic": critic},
            obs_clip=config.obs_clip if config.normalize_obs else None,
            rng=self.rng,
            settings=self.meaning(),
        )
        return policy, {"actor": self.actor_learner, "critic": self.critic_learner}

    @abstractmethod
    def _make_actor(self, columns: int, generator: torch.Generator) -> nn.Module:
        """Return the actor's network."""

    def explore(self, obs: Any, env_ids: np.ndarray) -> np.ndarray:
        """Return random actions until `learning_starts`, later noisy ones, or random with probability `eps_greedy`."""
        rows, _ = self.policy.features.rows(obs)
        draws = self.rng.uniform(-1, 1, (len(rows), self.action_dim))
        if self.steps < self.learning_starts:
            return self.policy.to_environment(draws)
        with torch.no_grad():
            actions = self.behave(self.policy.columns(rows)).cpu().numpy()
        if self.noise is not None:
            actions = np.clip(actions + self.noise.sample(env_ids, self.rng), -1, 1)
        random = self.rng.random((len(rows), 1)) < self.config.eps_greedy
        return self.policy.to_environment(np.where(random, draws, actions))

    def behave(self, columns: torch.Tensor) -> torch.Tensor:
        """Return the actions in [-1, 1] to which exploration adds noise."""
        return self.policy.choose(columns, deterministic=False)

    def to_network_action(self, actions: np.ndarray) -> np.ndarray:
        """Scale the environment's actions to those of the networks, `(B, A)` in [-1, 1]."""
        return self.policy.from_environment(actions)

    def update_critic(self, q: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> tuple[float, torch.Tensor]:
        """Descend `sum_k mean weight * (q_k - target)^2 / 2`; return the loss, and the TD errors `(B,)`."""
        errors = q.detach() - target
        gradient = weight * errors / len(weight)
        self.critic_learner.descend(q, self.current_lr, gradient=gradient)
        return 0.5 * (gradient * errors).sum().item(), errors.abs().mean(dim=0)

    def update_actor(self, loss: torch.Tensor, actions: torch.Tensor, batch: Minibatch) -> float:
        """Descend the actor's loss, plus those of its squared actions `(B, A)` and of behavior cloning."""
        if self.config.action_l2:
            loss = loss + self.config.action_l2 * (actions**2).mean()
        if self.demos is not None:
            shown = slice(self.config.batch_size, None)
            loss = loss + self.config.demo_weight * self.cloning_loss(batch.obs[shown], batch.action[shown])
        self.actor_learner.descend(loss, self.current_lr)
        return loss.item()

    def cloning_loss(self, obs: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
        """Return the mean of |pi(s) - a|^2 over demonstrated actions `(D, A)`, where pi is deterministic.

        With `q_filter`, only actions with Q_1(s, a) > Q_1(s, pi(s)) count (Nair et al. 2018, arXiv:1709.10089,
        equations 5 and 6).
        """
        own = self.policy.choose(obs, deterministic=True)
        distance = ((own - shown) ** 2).sum(dim=1)
        if self.config.q_filter:
            critic = self.critic_learner.fixed
            distance = distance * (critic(obs, shown, 1) > critic(obs, own.detach(), 1))[0]
        return distance.mean()

    def observe(self, trajectories: Sequence[Trajectory], /) -> None:
        """Add trajectories to the replay buffer; load the demonstrations first.

        Raises:
            FileNotFoundError, ModuleNotFoundError, ValueError: as `load_demonstrations`.
        """
        if self.config.demo_path is not None and self.demos is None:
            self._load_demonstrations(self.config.demo_path)
        super().observe(trajectories)

    def _load_demonstrations(self, source: str) -> None:
        episodes = load_demonstrations(source, self.observation_space, self.goal_functions)
        rows = sum(len(episode) + 1 for episode in episodes)
        replay = Replay(max(rows, 2), self.observation_space, self.action_space, num_envs=1)
        self.demos = Sampler(replay, replace(self.config, prioritized=False), self.goal_functions, self.rng)
        self.demos.extend(episodes)

    def _minibatches(self, sample: Sample) -> Iterator[tuple[np.ndarray, Minibatch]]:
        """Append demonstrated transitions to each minibatch."""
        if self.demos is None:
            yield from super()._minibatches(sample)
            return
        size = self.config.demo_batch_size
        shown = self._batch(self.demos.sample(self.config, size * (len(sample.rows) // self.batch_size), 1.0))
        for number, (rows, batch) in enumerate(super()._minibatches(sample)):
            part = slice(number * size, (number + 1) * size)
            yield (
                rows,
                Minibatch(*[torch.cat([own, of_demos[part]]) for own, of_demos in zip(batch, shown, strict=True)]),
            )

    def update_targets(self) -> None:
        """Update the target networks."""
        for learner in (self.actor_learner, self.critic_learner):
            learner.update_target(self.config.tau)


def _is_supported(space: spaces.Space) -> TypeGuard[spaces.Box]:
    """Return whether a space is a Box of floats, with finite bounds that differ in each dimension."""
    if not isinstance(space, spaces.Box) or not np.issubdtype(space.dtype, np.floating):
        return False
    low, high = bounds_of(space)
    return bool(np.isfinite([low, high]).all() and (low < high).all())
