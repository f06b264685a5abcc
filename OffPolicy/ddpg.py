"""DDPG, and the base of DDPG and TD3: deterministic policies that follow the gradient of a critic."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from OffPolicy.base import OffPolicyAgent
from OffPolicy.config import DDPGConfig, DeterministicConfig, ForDDPG
from OffPolicy.continuous import ContinuousAgent, DeterministicActor
from OffPolicy.learner import Outputs, Rate, Tensors, WeightedRanks
from OffPolicy.noise import make_noise
from OffPolicy.perturbed import PerturbedActor
from OffPolicy.replay import Transitions
from parallel_rl.utils import ALONE, MadeWith, Metrics, Ranks, State, Trajectory, episode_ends, own_stream


class DeterministicAgent(ContinuousAgent):
    """The base of DDPG and TD3: a deterministic actor, and noise on its actions."""

    config: DeterministicConfig

    def _make_networks(self, generator: torch.Generator) -> Any:
        networks = super()._make_networks(generator)
        self.noise_process = make_noise(self.config.action_noise, self.action_dim)
        return networks

    def _make_actor(self, columns: int, generator: torch.Generator) -> nn.Module:
        return DeterministicActor(columns, self.action_dim, self.config, generator)

    def normals(self, count: int) -> np.ndarray:
        """Return the numbers for the noise on actions."""
        return self.rng.standard_normal((count, 0 if self.noise_process is None else self.action_dim))

    def behave(self, columns: torch.Tensor, normals: np.ndarray) -> torch.Tensor:
        """Return the actor's actions."""
        return self.actor_learner.network(columns)

    def initial_state(self, num_envs: int, /) -> np.ndarray | None:
        """Return the state of the noise on actions at the start of an episode, zeros; None if it has none."""
        return None if self.noise_process is None else self.noise_process.initial_state(num_envs)

    def improve_actor(self, batch: Transitions, lr: Rate, ranks: WeightedRanks) -> Tensors:
        """Ascend the first critic's value of the actor's actions (Silver et al. 2014, theorem 1); return the losses."""
        actor, critic = self.actor_learner.network, self.critic_learner.network
        actions, trace = actor.trace(batch.obs)
        q, q_trace = critic.trace(batch.obs, actions, 1)
        d_actions = critic.action_gradient(q_trace, torch.full_like(q, -1 / len(actions)), self.action_dim)
        losses = {"actor_loss": -q.mean() + self.action_loss(actions, d_actions)}
        losses |= self.cloning_loss(batch, actions, d_actions, ranks)
        actor.write_gradient(trace, actions, d_actions)
        ranks.average(self.actor_learner.gradient)
        self.actor_learner.step(lr)
        return losses


class DDPG(DeterministicAgent):
    """Deep deterministic policy gradient (Lillicrap et al. 2016, arXiv:1509.02971).

    With `parameter_noise` it explores by noise on the actor's parameters, whose standard deviation is adaptive
    (Plappert et al. 2018, arXiv:1706.01905).
    """

    config_class = DDPGConfig
    config: DDPGConfig
    for_env = MadeWith(ForDDPG)(OffPolicyAgent.make_for_env)
    critics = 1
    perturbation: PerturbedActor | None = None

    def _make_networks(self, generator: torch.Generator) -> Any:
        networks = super()._make_networks(generator)
        if self.config.parameter_noise:
            self.perturbation = PerturbedActor(self.actor_learner, self.config.parameter_noise, self.rng)
        return networks

    def behave(self, columns: torch.Tensor, normals: np.ndarray) -> torch.Tensor:
        """Return the actor's actions; with parameter noise, those of the perturbed actor."""
        return super().behave(columns, normals) if self.perturbation is None else self.perturbation.network(columns)

    @torch.no_grad()
    def make_update(
        self, batch: Transitions, noise: torch.Tensor, lr: Rate, ranks: WeightedRanks, delayed: bool
    ) -> Outputs:
        """Make one update.

        y = r + discount * Q_target(s', pi_target(s')),  critic: (Q(s, a) - y)^2 / 2,  actor: -Q(s, pi(s))
        """
        actor, critic = self.actor_learner, self.critic_learner
        target = self.target(batch, critic.target(batch.next_obs, actor.target(batch.next_obs))[0])
        metrics, errors = self.update_critic(batch, target, lr, ranks)
        metrics |= self.improve_actor(batch, lr, ranks)
        self.update_targets()
        return metrics, errors

    def observe(self, trajectories: Sequence[Trajectory], ranks: Ranks = ALONE, /) -> None:
        """Add trajectories to the replay buffer; sample other parameter noise if the first environment's episode ended.

        So the noise lasts for an episode (Plappert et al. 2018, section 3), and all environments have the same.
        """
        super().observe(trajectories, ranks)
        if self.perturbation is not None:
            first = [one for one in trajectories if one.env_id == 0]
            if ranks.all_gather(any(episode_ends(one.terminated, one.truncated).any() for one in first))[0]:
                self.perturbation.resample()

    def update(self, progress: float, workers: Any = None, ranks: Ranks = ALONE, /) -> Metrics:
        """Make the updates that are due, and perturb the actor that they made."""
        metrics = super().update(progress, workers, ranks)
        if metrics and self.perturbation is not None:
            metrics["parameter_noise"] = self.perturbation.std
            with own_stream(ranks, self.rng):
                rows = self.replay.sample(self.batch_size, self.rng)
            self.perturbation.perturb(self.policy.columns(self.policy.features.flatten(self.replay.obs[rows])), ranks)
        return metrics

    def load_weights(self, directory: str | os.PathLike[str], /) -> None:
        """Load what `save_weights` saved; the actor is not perturbed until the next update."""
        super().load_weights(directory)
        if self.perturbation is not None:
            self.perturbation.reset()

    def _load_networks(self, state: State) -> None:
        """Restore the networks; the actor is not perturbed until the next update."""
        super()._load_networks(state)
        if self.perturbation is not None:
            self.perturbation.reset()

    def state(self) -> State:
        """Return everything, with the perturbation."""
        return super().state() | ({} if self.perturbation is None else {"perturbation": self.perturbation.state()})

    def load_state(self, state: State, /) -> None:
        """Restore everything, with the perturbation; a run without `parameter_noise` has none."""
        super().load_state(state)
        saved = state.get("perturbation")
        if self.perturbation is not None and saved is not None:
            self.perturbation.load_state(saved)
