"""The base of agents that may also learn from demonstrations: in each minibatch, and by cloning their actions."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from OffPolicy.base import OffPolicyAgent
from OffPolicy.config import ContinuousConfig
from OffPolicy.demonstrations import load_demonstrations
from OffPolicy.learner import Learner, Tensors, WeightedRanks
from OffPolicy.replay import Replay, Transitions
from OffPolicy.sampler import Sampler, shares
from parallel_rl.utils import ALONE, Ranks, Trajectory


class ImitatingAgent(OffPolicyAgent):
    """An agent with a critic of continuous actions; with `demo_path` it also learns from demonstrations.

    They have a replay buffer of their own. Each minibatch ends with some of them, so that the critic learns from them
    as from all transitions, and the loss of the actor has `cloning_loss` (Nair et al. 2018, arXiv:1709.10089).
    """

    config: ContinuousConfig
    critic_learner: Learner[Any]
    """Its network turns columns `(B, C)`, actions `(B, A)` in [-1, 1], and the number K of critics, into `(K, B)`."""
    demos: Sampler | None = None
    """Samples demonstrations; None without them, and until they are needed."""

    def take_share(self, own: slice, total: int) -> None:
        """Make room for this rank's part of the replay buffer, and load all demonstrations.

        Raises:
            FileNotFoundError, ModuleNotFoundError, ValueError: as `load_demonstrations`.
        """
        super().take_share(own, total)
        self._load_demonstrations()

    def observe(self, trajectories: Sequence[Trajectory], ranks: Ranks = ALONE, /) -> None:
        """Add trajectories to the replay buffer; load the demonstrations first.

        Raises:
            FileNotFoundError, ModuleNotFoundError, ValueError: as `load_demonstrations`.
        """
        self._load_demonstrations()
        super().observe(trajectories, ranks)

    def _load_demonstrations(self) -> None:
        if self.config.demo_path is None or self.demos is not None:
            return
        spaces = self.observation_space, self.action_space
        episodes = load_demonstrations(self.config.demo_path, *spaces, self.goal_functions)
        rows = sum(len(episode) + 1 for episode in episodes)
        replay = Replay(max(rows, 2), self.observation_space, self.action_space, num_envs=1)
        self.demos = Sampler(replay, replace(self.config, prioritized=False), self.goal_functions, self.rng)
        self.demos.extend(episodes)

    def _weighted(self, ranks: Ranks, counts: Sequence[int]) -> WeightedRanks:
        """Return the ranks of an update; each has demonstrations in proportion to its rows."""
        if self.demos is None:
            return super()._weighted(ranks, counts)
        total = self.config.demo_batch_size
        demos = shares(counts, total)[ranks.rank]
        return WeightedRanks(ranks, (counts[ranks.rank] + demos) / (self.batch_size + total), demos)

    def _split(self, transitions: Transitions, size: int, ranks: WeightedRanks) -> Iterator[Transitions]:
        """Yield minibatches of `size` sampled transitions, with this rank's demonstrations at the end of each."""
        batches = super()._split(transitions, size, ranks)
        if self.demos is None or not ranks.demos:
            return batches
        _, shown = self.demos.sample(self.config, len(transitions.obs) // size * ranks.demos, 1.0)
        pairs = zip(batches, super()._split(shown, ranks.demos, ranks), strict=True)
        return (Transitions(*map(torch.cat, zip(own, demos, strict=True))) for own, demos in pairs)

    def cloning_loss(
        self, batch: Transitions, actions: torch.Tensor, d_actions: torch.Tensor, ranks: WeightedRanks
    ) -> Tensors:
        """Return `demo_weight` times the mean of |pi(s) - a|^2 over demonstrations, by name, and add its derivatives.

        With `q_filter`, only demonstrated actions with Q_1(s, a) > Q_1(s, pi(s)) count (Nair et al. 2018, equations 5
        and 6).

        Args:
            batch: a minibatch that ends with this rank's demonstrations.
            actions: pi(s) `(B, A)`, the deterministic actions.
            d_actions: receives the derivatives of the loss by them.
            ranks: the weighted mean of their losses is the loss of all demonstrations.
        """
        if not ranks.demos:
            return {} if self.demos is None else {"cloning_loss": actions.new_zeros(())}
        demo_rows = slice(-ranks.demos, None)
        obs, own = batch.obs[demo_rows], actions[demo_rows]
        difference = own - batch.action[demo_rows]
        if self.config.q_filter:
            critic = self.critic_learner.network
            difference *= (critic(obs, batch.action[demo_rows], 1) > critic(obs, own, 1))[0, :, None]
        weight = self.config.demo_weight / (self.config.demo_batch_size * ranks.weight)
        d_actions[demo_rows] += 2 * weight * difference
        return {"cloning_loss": weight * (difference**2).sum()}
