"""Companions: further losses and intrinsic rewards, for `PPO(companions=[...])`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from parallel_rl.networks import Perception, RunningNorm, mlp
from parallel_rl.utils import ALONE, Batch, Features, Ranks, discounted_sums
from PPO.actor_critic import ActorCritic

RESERVED = {"policy", "value"}
"""Names that the metrics and the weight file of PPO use."""


@dataclass(frozen=True)
class Transitions:
    """The M transitions of an update, for companions: the trajectories one after the other, on the agent's device."""

    batch: Batch
    """The transitions as arrays, with the ends of episodes and trajectories."""
    features: Features
    """The columns of observations."""
    action: torch.Tensor
    """`(M, ...)`, raw actions: before squashing and scaling; discrete ones count from 0."""
    ranks: Ranks = ALONE
    """The ranks that learn together, for `RunningNorm.update`."""

    @cached_property
    def obs(self) -> torch.Tensor:
        """Float32 `(M, D)`, not normalized, without the action mask."""
        return self._columns(self.batch.obs)

    @cached_property
    def next_obs(self) -> torch.Tensor:
        """Float32 `(M, D)`, the next observations before any reset, not normalized, without the action mask."""
        return self._columns(self.batch.next_obs)

    def _columns(self, obs: np.ndarray) -> torch.Tensor:
        columns = torch.as_tensor(self.features.flatten(obs), device=self.action.device)
        return columns[:, : self.features.columns].float()


class Companion(nn.Module):
    """A further loss, an intrinsic reward, or both.

    Its parameters and buffers are saved with the weights and in checkpoints. Its other public attributes are its
    settings; a checkpoint loads only into a companion with the same settings.
    """

    name: str = ""
    """Its name in metrics (`rnd_loss`, `rnd_reward`) and files (`RND_weights.pth`); by default that of the class."""
    beta: float | None = None
    """Coefficient of the advantage of its reward; None without a reward."""
    gamma: float = 0.99
    """Discount factor of its reward."""
    episodic: bool = False
    """Whether the return of its reward ends with an episode."""
    shares: bool = False
    """Whether its loss also trains the policy."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Name a companion after its class."""
        super().__init_subclass__(**keywords)
        if "name" not in vars(cls):
            cls.name = cls.__name__

    @property
    def learns(self) -> bool:
        """Whether it has a loss."""
        return type(self).loss is not Companion.loss

    def build(self, features: Features, action_space: spaces.Space, generator: torch.Generator) -> None:
        """Make the networks for the spaces of the agent.

        Args:
            features: the columns of observations.
            action_space: of the agent.
            generator: of the initial weights.
        """

    def reward(self, transitions: Transitions) -> np.ndarray:
        """Return the intrinsic reward `(M,)`; each update calls this once, so it can update statistics."""
        raise NotImplementedError(f"{self.name} has beta={self.beta}, but no reward()")

    def targets(self, transitions: Transitions) -> tuple[torch.Tensor, ...]:
        """Return tensors `(M, ...)` for `loss`; each update calls this once, after `reward`."""
        return ()

    def loss(self, targets: tuple[torch.Tensor, ...], rng: np.random.Generator, policy: ActorCritic) -> torch.Tensor:
        """Return the loss of a minibatch, a number.

        Args:
            targets: the rows of `targets` for the minibatch.
            rng: the only source of randomness.
            policy: the agent's networks; this loss trains them only if the companion `shares`.
        """
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """Return its settings as plain values."""
        own = {name: value for name, value in vars(self).items() if name[0] != "_" and name != "training"}
        named = {name: getattr(self, name) for name in ("name", "beta", "gamma", "episodic")}
        return {name: value for name, value in (named | own).items() if isinstance(value, PLAIN)}


PLAIN = (bool, int, float, str, type(None))


class RewardScale(RunningNorm):
    """Divides an intrinsic reward by the running standard deviation of its discounted sum over past steps.

    So a value of beta has about the same effect for any intrinsic reward. Source: Burda et al. 2018 (arXiv:1810.12894),
    section 2.4, and the authors' code.
    """

    discounted: torch.Tensor

    def __init__(self, gamma: float) -> None:
        """Start with no statistics.

        Args:
            gamma: discount of the sum, which continues from one trajectory of an environment to the next.
        """
        super().__init__(1)
        self.gamma = gamma
        self.register_buffer("discounted", torch.zeros(0, dtype=torch.float64), persistent=False)

    def scale(self, reward: np.ndarray, batch: Batch, ranks: Ranks = ALONE) -> np.ndarray:
        """Update the statistics with rewards `(M,)` of all ranks; return these divided by the standard deviation."""
        sums = self.past_returns(reward, batch.trajectory_ends, batch.env_ids)
        self.update(torch.from_numpy(sums).unsqueeze(-1), ranks)
        return reward / self.std.item()

    def past_returns(self, reward: np.ndarray, trajectory_ends: np.ndarray, env_ids: np.ndarray) -> np.ndarray:
        """Return, for each row, the discounted sum of the rewards up to it; store each environment's last sum.

        Args:
            reward: `(M,)`, of the trajectories one after the other.
            trajectory_ends: bool `(M,)`, the last row of each of the S trajectories.
            env_ids: `(S,)`, the environment that each trajectory belongs to.
        """
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


def encoder(features: Features, hidden_sizes: Sequence[int], generator: torch.Generator) -> nn.Sequential:
    """Return ReLU layers for whitened columns; images first pass through convolutions.

    `(B, D)` to `(B, hidden_sizes[-1])`.
    """
    if not features.images:
        return mlp(features.vector, hidden_sizes, "relu", generator)
    # whitened pixels are not divided by 255 once more: 1 is their unit
    whitened = replace(features, images=tuple(replace(image, high=1.0) for image in features.images))
    perception = Perception(whitened, generator)
    return nn.Sequential(perception, *mlp(perception.outputs, hidden_sizes, "relu", generator))


def scales_of(companions: Sequence[Companion]) -> dict[str, RewardScale]:
    """Return the reward scales of companions, by the companion's name and the attribute."""
    return {
        f"{companion.name}.{place}": module
        for companion in companions
        for place, module in companion.named_modules()
        if isinstance(module, RewardScale)
    }


def check_companions(companions: Sequence[Any]) -> None:
    """Check the companions of an agent.

    Raises:
        TypeError: something is not a `Companion`.
        ValueError: a name is taken, or cannot be part of a file name, or a reward has no `beta`.
    """
    names = {*RESERVED}
    for companion in companions:
        if not isinstance(companion, Companion):
            raise TypeError(f"a companion is 'rnd', 'icm' or an object of a subclass of Companion, not {companion!r}")
        if not companion.name.isidentifier():
            raise ValueError(f"a companion's name is letters and digits, not {companion.name!r}")
        if companion.beta is None and type(companion).reward is not Companion.reward:
            raise ValueError(f"the companion {companion.name} has a reward, but no beta, the coefficient of it")
        if companion.name.lower() in names:
            raise ValueError(f"two companions cannot both be called {companion.name!r}: give one another name")
        names.add(companion.name.lower())
