"""TD3: DDPG with two critics, whose minimum is the target value, and with noise on the target policy's actions."""

import numpy as np
import torch

from OffPolicy.base import OffPolicyAgent
from OffPolicy.config import ForTD3, TD3Config
from OffPolicy.ddpg import DeterministicAgent
from OffPolicy.learner import Outputs, Rate, WeightedRanks
from OffPolicy.replay import Transitions
from parallel_rl.utils import MadeWith


class TD3(DeterministicAgent):
    """Twin delayed deep deterministic policy gradient (Fujimoto et al. 2018, arXiv:1802.09477, algorithm 1)."""

    config_class = TD3Config
    config: TD3Config
    for_env = MadeWith(ForTD3)(OffPolicyAgent.make_for_env)
    critics = 2

    def update_noise(self, count: int) -> np.ndarray:
        """Return the noise on the target policy's actions."""
        return self.rng.standard_normal((count, self.action_dim), np.float32)

    def is_delayed_update(self) -> bool:
        """Return whether the next update includes the actor."""
        return (self.updates + 1) % self.config.policy_delay == 0

    @torch.no_grad()
    def make_update(
        self, batch: Transitions, noise: torch.Tensor, lr: Rate, ranks: WeightedRanks, delayed: bool
    ) -> Outputs:
        """Make one update; every `policy_delay` updates it includes the actor and the target networks.

        a' = clip(pi_target(s') + clip(noise, +-target_noise_clip), +-1)
        y = r + discount * min_k Q_target_k(s', a'),  critics: sum_k (Q_k(s, a) - y)^2 / 2,  actor: -Q_1(s, pi(s))
        """
        next_q = self.critic_learner.target(batch.next_obs, self.smoothed_actions(batch.next_obs, noise))
        metrics, errors = self.update_critic(batch, self.target(batch, next_q.amin(dim=0)), lr, ranks)
        if delayed:
            metrics |= self.improve_actor(batch, lr, ranks)
            self.update_targets()
        return metrics, errors

    def smoothed_actions(self, obs: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return the target policy's actions `(B, A)` with clipped noise, from normal numbers (section 5.3)."""
        limit = self.config.target_noise_clip
        actions = self.actor_learner.target(obs) + (noise * self.config.target_noise).clamp(-limit, limit)
        return actions.clamp(-1, 1)
