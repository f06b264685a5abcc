"""Gradients of minibatches by autograd, on any device and for any network."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from PPO.actor_critic import ActorCritic
from PPO.losses import LossMetrics
from PPO.memory import Rows
from PPO.minibatches import Minibatch, Targets, select_rows
from PPO.objective import Objective


class Autograd:
    """The gradients of the minibatches of an update; `fast.shards.ShardedGradient` is its counterpart."""

    def __init__(
        self,
        policy: ActorCritic,
        loss: Callable[[Objective, ActorCritic, Rows], tuple[torch.Tensor, LossMetrics]],
        gradient: torch.Tensor,
        objective: Objective,
    ) -> None:
        """Store the vector `(P,)` to write the gradient of the policy's parameters into.

        Coefficients that change become tensors, since compiled code treats numbers as constants.
        """
        self._policy, self._loss, self._gradient = policy, loss, gradient
        clip, entropy_coef = (
            None if number is None else torch.tensor(number, device=gradient.device)
            for number in (objective.clip, objective.entropy_coef)
        )
        self._objective = objective._replace(clip=clip, entropy_coef=entropy_coef)

    def load(self, rows: Rows) -> None:
        """Store the rows."""
        self._rows = rows

    def shuffle(self, order: np.ndarray) -> Rows:
        """Permute the rows by the order `(M,)`; return them."""
        self._shuffled = self._rows.take(torch.from_numpy(order).to(self._gradient.device))
        return self._shuffled

    def compute(self, start: int, stop: int) -> LossMetrics:
        """Write the gradient of the minibatch of rows `start` to `stop`; return its metrics."""
        self._gradient.zero_()
        loss, metrics = self._loss(self._objective, self._policy, self._shuffled.part(start, stop))
        loss.backward()
        return metrics


LossOfMinibatch = Callable[[Minibatch], tuple[torch.Tensor, LossMetrics]]


class AutogradOfLoss:
    """The gradients of a `PPO.loss` that a subclass overrides; it includes the losses of companions."""

    def __init__(self, loss: LossOfMinibatch, targets: list[Targets], gradients: Sequence[torch.Tensor]) -> None:
        """Store the targets of companions, and the vectors to write the gradients of all parameters into."""
        self._loss, self._targets, self._gradients = loss, targets, gradients

    def load(self, rows: Rows) -> None:
        """Store the rows."""
        self._rows = rows

    def shuffle(self, order: np.ndarray) -> Rows:
        """Permute the rows by the order `(M,)`; return them."""
        self._order, self._shuffled = order, self._rows.take(torch.from_numpy(order).to(self._rows.obs.device))
        return self._shuffled

    def compute(self, start: int, stop: int) -> LossMetrics:
        """Write the gradient of the minibatch of rows `start` to `stop`; return its metrics.

        Raises:
            TypeError: the loss is not what `PPO.loss` returns.
        """
        for gradient in self._gradients:
            gradient.zero_()
        targets = select_rows(self._targets, self._order[start:stop])
        result = self._loss(Minibatch(self._shuffled.part(start, stop), targets))
        if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], dict):
            raise TypeError(f"loss() must return a loss and a dict of metrics, not {type(result).__name__}")
        loss, metrics = result
        loss.backward()
        return {name: metric.detach() if torch.is_tensor(metric) else metric for name, metric in metrics.items()}
