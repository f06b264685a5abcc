"""Gradients of minibatches by autograd, on any device and for any network."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from PPO.losses import LossMetrics
from PPO.memory import Rows
from PPO.minibatches import Minibatch, Targets, select_rows

LossOfMinibatch = Callable[[Minibatch], tuple[torch.Tensor, LossMetrics]]


class Autograd:
    """The gradients of the minibatches of an update; `fast.shards.ShardedGradient` is its counterpart."""

    def __init__(
        self, loss: LossOfMinibatch, gradients: Sequence[torch.Tensor], targets: Sequence[Targets] = ()
    ) -> None:
        """Store the loss, the vectors to write its gradients into, and the targets of companions that it includes."""
        self._loss, self._gradients, self._targets = loss, gradients, targets

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
