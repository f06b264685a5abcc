"""ICM: an intrinsic reward for next observations that are hard to predict.

Source: Pathak et al. 2017, "Curiosity-driven Exploration by Self-supervised Prediction" (arXiv:1705.05363).
"""

import math

import numpy as np
import torch
from gymnasium import spaces
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss, one_hot

from parallel_rl.networks import RunningNorm, linear_layer, mlp
from parallel_rl.utils import Features
from PPO import ActorCritic, Companion, RewardScale, Transitions
from PPO.companions import encoder

OBS_CLIP, FEATURES, HIDDEN_SIZE = 5.0, 64, 64


class ICM(Companion):
    """A forward model predicts the features of the next observation; its error is the reward.

    An inverse model predicts the action from the features of both observations, so features learn only what actions can
    change.
    """

    def __init__(self, beta: float = 0.001, gamma: float = 0.99, forward_share: float = 0.2) -> None:
        """Store the settings: `beta` and `gamma` of the reward, and the weight of the forward model's loss."""
        super().__init__()
        self.beta, self.gamma, self.forward_share = beta, gamma, forward_share

    def build(self, features: Features, action_space: spaces.Space, generator: torch.Generator) -> None:
        """Make the networks."""
        if not isinstance(action_space, spaces.Discrete | spaces.Box):
            raise TypeError(f"ICM takes a Discrete or a Box of actions, not {action_space}")
        self.choices = int(action_space.n) if isinstance(action_space, spaces.Discrete) else 0
        actions = self.choices or math.prod(action_space.shape or ())

        def model(inputs: int, outputs: int) -> nn.Sequential:
            hidden = mlp(inputs, [HIDDEN_SIZE], "relu", generator)
            return nn.Sequential(hidden, linear_layer(HIDDEN_SIZE, outputs, 1.0, generator))

        self.whiten, self.scale = RunningNorm(features.columns, OBS_CLIP), RewardScale(self.gamma)
        self.encoder = encoder(features, [HIDDEN_SIZE, FEATURES], generator)
        self.next_features, self.action = model(FEATURES + actions, FEATURES), model(2 * FEATURES, actions)

    @torch.no_grad()
    def reward(self, transitions: Transitions) -> np.ndarray:
        """Return the error of the forward model, scaled."""
        self.whiten.update(transitions.obs, transitions.ranks)
        error, _ = self.errors(*self.targets(transitions))
        return self.scale.scale(error.double().cpu().numpy(), transitions.batch, transitions.ranks)

    def targets(self, transitions: Transitions) -> tuple[torch.Tensor, ...]:
        """Return observations and next observations, whitened, and actions (choices one-hot)."""
        action = transitions.action
        columns = one_hot(action, self.choices).float() if self.choices else action.flatten(1)
        return self.whiten(transitions.obs), self.whiten(transitions.next_obs), columns

    def errors(
        self, obs: torch.Tensor, next_obs: torch.Tensor, action: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the errors of the forward model `(B,)`, and the mean error of the inverse model."""
        now, following = self.encoder(obs), self.encoder(next_obs)
        predicted = self.next_features(torch.cat([now.detach(), action], dim=1))
        guessed = self.action(torch.cat([now, following], dim=1))
        inverse = cross_entropy(guessed, action) if self.choices else mse_loss(guessed, action)
        return (predicted - following.detach()).pow(2).mean(dim=1), inverse

    def loss(self, targets: tuple[torch.Tensor, ...], rng: np.random.Generator, policy: ActorCritic) -> torch.Tensor:
        """Return the weighted sum of both errors (equation 7)."""
        error, inverse = self.errors(*targets)
        return self.forward_share * error.mean() + (1 - self.forward_share) * inverse
