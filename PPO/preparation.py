"""From a batch of experience to the rows that gradient steps are made of."""

from dataclasses import dataclass

import numpy as np
import torch

from PPO.actor_critic import ActorCritic, Past
from PPO.advantages import explained_variance, extrinsic_advantage, intrinsic_advantage
from PPO.analytic import AnalyticActorCritic
from PPO.losses import standardise
from PPO.memory import Batch, Rows
from PPO.rnd import RND
from utils import COMPOSITE, reward_unit, split_parts


@dataclass(frozen=True)
class Credit:
    """How rewards become advantages; see the arguments of `PPO`."""

    gamma: float
    gae_lambda: float
    intrinsic_gamma: float
    beta: float
    normalize: str
    """As `normalize_advantage`; what is done in each minibatch is not done here."""


class Preparation:
    """A batch, and what the networks say of it."""

    @torch.no_grad()
    def __init__(
        self, batch: Batch, policy: ActorCritic, twin: AnalyticActorCritic | None, rnd: RND | None, credit: Credit
    ) -> None:
        """Standardise the observations; reward what is new in them.

        Args:
            batch: M rows with E ends.
            policy: which acted.
            twin: computes its values, if it has one.
            rnd: its statistics are updated.
            credit: how rewards count.

        Raises:
            ValueError: what a policy with a core remembered is missing.
        """
        self.batch, self.policy, self.credit, self._twin = batch, policy, credit, twin
        self._device = policy.value_head.normal.weight.device
        self.columns = self._on_device(policy.features.flatten(batch.obs))
        self._obs = policy.standardise(self.columns)
        self._final_obs = policy.standardise(self._on_device(policy.features.flatten(batch.final_obs)))
        self._past, self._past_of_ends = self._pasts()
        self._next_obs = self._obs.new_empty(len(self._obs), 0)
        self._novelty: np.ndarray | None = None
        if rnd is not None:
            next_obs = self._on_device(policy.features.flatten(batch.next_obs))
            self._next_obs = next_obs[:, : policy.features.columns].float()
            self._novelty = rnd.reward(self._next_obs, batch.stretch_ends, batch.env_ids)

    @torch.no_grad()
    def rows(self) -> tuple[Rows, dict[str, float]]:
        """Return the rows, and metrics; update the statistics of the returns."""
        values, advantage, returns = self._assess()
        head = self.policy.value_head
        old_value = head.update(returns, values)
        draw, log_prob = self._behaviour()
        metrics = {
            "explained_variance": explained_variance(
                *(side[:, 0].double().cpu().numpy() for side in (values, returns))
            ),
            "entropy": -log_prob.mean().item(),
        }
        if self._novelty is not None:
            metrics["intrinsic_reward"] = float(self._novelty.mean())
        scaled, target = self._scaled(advantage), head.stats(returns)
        rows = Rows(self._obs, draw, log_prob, scaled, target, old_value, self._next_obs, *self._past)
        return rows, metrics

    @torch.no_grad()
    def reassess(self, rows: Rows) -> Rows:
        """Return rows with the advantages and targets that the critic gives them now."""
        _, advantage, returns = self._assess()
        return rows._replace(advantage=self._scaled(advantage), target=self.policy.value_head.stats(returns))

    def _assess(self) -> tuple[torch.Tensor, np.ndarray, torch.Tensor]:
        """Return values `(M, V)`, advantages float64 `(M,)` and returns `(M, V)`, in units of reward."""
        batch, credit = self.batch, self.credit
        values = self._value(self._obs, self._past)
        final_values = self._value(self._final_obs, self._past_of_ends)
        value, final_value = values.double().cpu().numpy(), final_values.double().cpu().numpy()
        advantage = extrinsic_advantage(batch, value[:, 0], final_value[:, 0], credit.gamma, credit.gae_lambda)
        returns = [advantage + value[:, 0]]
        if self._novelty is not None:
            intrinsic = intrinsic_advantage(
                batch, self._novelty, value[:, 1], final_value[:, 1], credit.intrinsic_gamma, credit.gae_lambda
            )
            advantage = advantage + credit.beta * intrinsic
            returns.append(intrinsic + value[:, 1])
        return values, advantage, self._tensor(np.stack(returns, axis=1))

    def _scaled(self, advantage: np.ndarray) -> torch.Tensor:
        """Return advantages `(M,)` as gradients are to take them, or as what standardises them can."""
        stats = self.policy.value_head.stats
        if self.credit.normalize == "none":
            return self._tensor(advantage)
        if self.credit.normalize == "returns":
            return self._tensor(advantage) / stats.std[0].float()
        size = sum(np.sqrt(stats.var.tolist()) * [1.0, self.credit.beta][: len(stats.var)])
        in_range = self._tensor(advantage / reward_unit(size))
        return standardise(in_range) if self.credit.normalize == "batch" else in_range

    def _value(self, obs: torch.Tensor, past: Past) -> torch.Tensor:
        if self._twin is None:
            return self.policy.value(obs, past)
        return self.policy.value_head.stats.inverse(torch.from_numpy(self._twin.value(obs.numpy())))

    def _behaviour(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the draws behind the actions, and their log-probabilities under the policy that acted.

        A hand-written loop may not have stored them; as long as nothing was learnt in between, the policy that acted is
        the present one.
        """
        extras = self.batch.extras
        draw = self._tensor(extras["draw"]) if "draw" in extras else self.policy.policy_head.to_draw(self._actions())
        if "log_prob" in extras:
            return draw, self._tensor(extras["log_prob"])
        return draw, self.policy.distribution(self._obs, self._past).log_prob(draw)

    def _actions(self) -> torch.Tensor | list[torch.Tensor]:
        """Return the actions `(M, ...)`; of a Dict or Tuple space those of each part."""
        action, space = self.batch.action, self.policy.action_space
        if isinstance(space, COMPOSITE):
            return [self._on_device(part) for part in split_parts(space, action)]
        return self._tensor(action)

    def _pasts(self) -> tuple[Past, Past]:
        """Return the past of the rows, and that of what followed their ends."""
        batch, policy = self.batch, self.policy
        if policy.core is None:
            return policy.no_past(len(self._obs)), policy.no_past(len(self._final_obs))
        if "core" not in batch.extras:
            raise ValueError("a policy with a core learns from what it remembered: keep the extras that act() returns")
        state = self._tensor(batch.extras["core"])
        starts = self._on_device(np.append(True, batch.ends[:-1]))
        ends = np.flatnonzero(batch.ends)
        _, after = policy.step(self._obs[ends], state[ends])
        return (state, starts), (after, policy.no_past(len(ends))[1])

    def _on_device(self, rows: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(rows, device=self._device)

    def _tensor(self, rows: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(rows, dtype=torch.float32, device=self._device)
