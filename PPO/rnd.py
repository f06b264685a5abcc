"""RND: an intrinsic reward for novel observations.

Source: Burda et al. 2018, "Exploration by Random Network Distillation" (arXiv:1810.12894).
"""

import numpy as np
import torch
from torch import nn

from parallel_rl.networks import RunningNorm, linear_layer, mlp
from parallel_rl.utils import discounted_sums

OBS_CLIP = 5.0
"""Whitened observations are clipped to this (section 2.4)."""


class RND(nn.Module):
    """A predictor learns the output of a fixed random target network; its error is large where observations are novel.

    Its `state_dict` holds both networks, the whitening and the scale of the reward.
    """

    discounted: torch.Tensor

    def __init__(
        self,
        observ_dim: int,
        *,
        gamma: float = 0.99,
        features: int = 64,
        hidden_size: int = 64,
        update_proportion: float = 0.25,
        warmup: int = 1000,
        generator: torch.Generator | None = None,
    ) -> None:
        """Make the networks.

        Args:
            observ_dim: D, features of a flattened observation.
            gamma: discount of the intrinsic return, whose running std divides the reward.
            features: size of the random features to be predicted.
            hidden_size: of both networks.
            update_proportion: share of each minibatch that the predictor learns from (table 5).
            warmup: observations that whitening has to have seen before the reward counts.
            generator: of the initial weights.
        """
        super().__init__()
        generator = generator or torch.Generator().manual_seed(torch.seed())
        self.gamma, self.update_proportion, self.warmup = gamma, update_proportion, warmup
        self.whiten = RunningNorm(observ_dim, OBS_CLIP)
        self.return_stats = RunningNorm(1)
        self.register_buffer("discounted", torch.zeros(0, dtype=torch.float64), persistent=False)
        self.target = nn.Sequential(
            mlp(observ_dim, [hidden_size], "relu", generator),
            linear_layer(hidden_size, features, 2**0.5, generator),
        ).requires_grad_(False)
        self.predictor = nn.Sequential(
            mlp(observ_dim, [hidden_size] * 3, "relu", generator),
            linear_layer(hidden_size, features, 2**0.5, generator),
        )

    def targets(self, next_obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return observations `(B, D)` whitened, and the target's features `(B, F)` of them."""
        white = self.whiten(next_obs)
        return white, self.target(white)

    def error(self, white: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Return the mean squared error of the predictor for each row `(B,)`."""
        return (self.predictor(white) - features).pow(2).mean(dim=-1)

    @torch.no_grad()
    def observe(self, next_obs: torch.Tensor, trajectory_ends: np.ndarray, env_ids: np.ndarray) -> np.ndarray:
        """Update the statistics with next observations; return the intrinsic reward of each.

        The reward is the prediction error divided by the running std of its discounted sum over the past, which
        goes on from one trajectory of an environment to its next (section 2.4 and the authors' code).

        Args:
            next_obs: `(M, D)`, trajectory after trajectory.
            trajectory_ends: bool `(M,)`, the last row of each of the S trajectories.
            env_ids: `(S,)`, the environment that each trajectory belongs to.

        Returns:
            float64 `(M,)`; zeros while the whitening warms up.
        """
        warm = self.whiten.count >= self.warmup
        self.whiten.update(next_obs)
        if not warm:
            return np.zeros(len(next_obs))
        error = self.error(*self.targets(next_obs)).double().cpu().numpy()
        self.return_stats.update(torch.from_numpy(self._past_returns(error, trajectory_ends, env_ids)).unsqueeze(-1))
        return error / self.return_stats.std.item()

    def loss(self, white: torch.Tensor, features: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Return the predictor's mean error over a random share of the rows."""
        chosen = torch.from_numpy(np.flatnonzero(rng.random(len(white)) < self.update_proportion)).to(white.device)
        return self.error(white[chosen], features[chosen]).sum() / max(len(chosen), 1)

    def _past_returns(self, reward: np.ndarray, trajectory_ends: np.ndarray, env_ids: np.ndarray) -> np.ndarray:
        """Return each row's discounted sum of the rewards up to it, and keep each environment's last."""
        missing = int(env_ids.max()) + 1 - len(self.discounted)
        if missing > 0:
            self.discounted = torch.cat([self.discounted, self.discounted.new_zeros(missing)])
        sums = []
        for env_id, rewards in zip(
            env_ids.tolist(), np.split(reward, np.flatnonzero(trajectory_ends)[:-1] + 1), strict=True
        ):
            decay = np.full(len(rewards), self.gamma)
            sums.append(discounted_sums(rewards, decay, self.discounted[env_id].item()))
            self.discounted[env_id] = sums[-1][-1]
        return np.concatenate(sums)
