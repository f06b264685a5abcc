"""Optimiser: the gradient steps of an update."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from networks import flatten, limit_norm
from PPO.actor_critic import ActorCritic
from PPO.analytic import AnalyticActorCritic
from PPO.losses import Metrics, Objective
from PPO.memory import Rows
from PPO.rnd import RND

LARGE_NETWORK = 1_000_000
"""Weights from which on torch's own calls cost little, and more than one thread pays."""


class Optimiser:
    """Adam on the parameters of a policy and, if there is one, of RND's predictor, each in one vector."""

    def __init__(
        self,
        policy: ActorCritic,
        rnd: RND | None,
        objective: Objective,
        *,
        lr: float,
        max_grad_norm: float,
        target_kl: float | None,
        analytic: bool,
    ) -> None:
        """Move the parameters into vectors.

        Args:
            policy: learns by `objective`.
            rnd: its predictor learns by its own loss.
            objective: what the policy minimises.
            lr: step size.
            max_grad_norm: limit on the norm of the policy's gradient.
            target_kl: an update ends when the policy has moved further than 1.5 times this.
            analytic: whether to take the gradient that is written out, where it applies.
        """
        self.policy, self.rnd, self.objective = policy, rnd, objective
        self.max_grad_norm, self.target_kl = max_grad_norm, target_kl
        parameters, self._policy_gradient = flatten(policy.parameters())
        vectors = [parameters]
        if rnd is not None:
            predictor_parameters, self._rnd_gradient = flatten(rnd.predictor.parameters())
            vectors.append(predictor_parameters)
        self.adam = torch.optim.Adam(vectors, lr, eps=1e-5, fused=True)
        small = len(parameters) < LARGE_NETWORK
        self.threads = 1 if small else None
        self.analytic: AnalyticActorCritic | None = None
        if analytic and small and AnalyticActorCritic.applies_to(policy):
            self.analytic = AnalyticActorCritic(policy)

    def update(
        self, minibatches: Iterable[Rows], lr: float, clip: float, generator: torch.Generator
    ) -> dict[str, float]:
        """Take a step for each of the minibatches; return the means of their metrics."""
        for group in self.adam.param_groups:
            group["lr"] = lr
        steps: list[Metrics] = []
        for rows in minibatches:
            metrics = self.policy_gradient(rows, clip)
            if self.target_kl is not None and metrics["approx_kl"] > 1.5 * self.target_kl:
                steps = steps or [metrics]
                break
            metrics["grad_norm"] = limit_norm(self._policy_gradient, self.max_grad_norm)
            if self.rnd is not None:
                metrics["rnd_loss"] = self._predictor_gradient(self.rnd, rows, generator)
            self.adam.step()
            steps.append(metrics)
        return {name: _mean([step[name] for step in steps]) for name in steps[0]}

    def policy_gradient(self, rows: Rows, clip: float) -> Metrics:
        """Write the gradient of the objective into the policy's parameters."""
        if self.analytic is not None:
            return self.analytic.gradient(self.objective, rows, clip)
        self._policy_gradient.zero_()
        loss, metrics = self.objective.loss(self.policy, rows, clip)
        loss.backward()
        return metrics

    def _predictor_gradient(self, rnd: RND, rows: Rows, generator: torch.Generator) -> torch.Tensor:
        """Write the gradient of RND's loss into its predictor's parameters."""
        self._rnd_gradient.zero_()
        loss = rnd.loss(rows.next_obs, generator)
        loss.backward()
        return loss.detach()


def _mean(values: Sequence[Any]) -> float:
    return (torch.stack(tuple(values)).mean() if torch.is_tensor(values[0]) else np.mean(values)).item()
