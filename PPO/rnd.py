"""RND: an intrinsic reward for novel observations.

Source: Burda et al. 2018, "Exploration by Random Network Distillation" (arXiv:1810.12894).
"""

import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from parallel_rl.networks import RunningNorm, linear_layer
from parallel_rl.utils import Features
from PPO.actor_critic import ActorCritic
from PPO.companions import Companion, RewardScale, Transitions, encoder

OBS_CLIP = 5.0
"""Limit on the absolute value of whitened observations (section 2.4)."""
OUTPUTS = 64
"""The number of random features to predict."""
HIDDEN_SIZE = 64


class RND(Companion):
    """A predictor learns the output of a fixed random target network; its error is large where observations are novel.

    Its `state_dict` holds both networks, the whitening and the scale of the reward.
    """

    def __init__(
        self, beta: float = 0.001, gamma: float = 0.99, update_proportion: float = 0.25, warmup: int = 1000
    ) -> None:
        """Store the settings; `build` makes the networks.

        Args:
            beta: coefficient of the intrinsic advantage.
            gamma: discount factor of the intrinsic reward.
            update_proportion: fraction of each minibatch that trains the predictor (table 5).
            warmup: number of observations that the whitening needs before the reward is used.
        """
        super().__init__()
        self.beta, self.gamma, self.update_proportion, self.warmup = beta, gamma, update_proportion, warmup

    def build(self, features: Features, action_space: spaces.Space, generator: torch.Generator) -> None:
        """Make the networks: MLPs, which for images follow convolutions."""
        self.whiten, self.return_stats = RunningNorm(features.columns, OBS_CLIP), RewardScale(self.gamma)
        self.target, self.predictor = (
            nn.Sequential(
                encoder(features, [HIDDEN_SIZE] * layers, generator),
                linear_layer(HIDDEN_SIZE, OUTPUTS, 2**0.5, generator),
            )
            for layers in (1, 3)
        )
        self.target.requires_grad_(False)

    def error(self, white: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Return the mean squared error of the predictor for each row `(B,)`."""
        return (self.predictor(white) - features).pow(2).mean(dim=-1)

    @torch.no_grad()
    def reward(self, transitions: Transitions) -> np.ndarray:
        """Return the scaled error at the next observations, float64 `(M,)`; zeros while the whitening warms up."""
        warm = self.whiten.count >= self.warmup
        self.whiten.update(transitions.next_obs, transitions.ranks)
        if not warm:
            return np.zeros(len(transitions.next_obs))
        error = self.error(*self.targets(transitions)).double().cpu().numpy()
        return self.return_stats.scale(error, transitions.batch, transitions.ranks)

    @torch.no_grad()
    def targets(self, transitions: Transitions) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the whitened next observations `(M, D)`, and the target network's features of them `(M, F)`."""
        white = self.whiten(transitions.next_obs)
        return white, self.target(white)

    def loss(
        self, targets: tuple[torch.Tensor, ...], rng: np.random.Generator, policy: ActorCritic | None = None
    ) -> torch.Tensor:
        """Return the predictor's mean error over a random fraction of the rows."""
        white, features = targets
        chosen = torch.from_numpy(np.flatnonzero(rng.random(len(white)) < self.update_proportion)).to(white.device)
        return self.error(white[chosen], features[chosen]).sum() / max(len(chosen), 1)
