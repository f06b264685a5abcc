"""Learner: a network with its optimizer and its target network."""

from itertools import islice
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import nn

from parallel_rl.networks import Adam, average_vectors, copy_on, limit_norm
from parallel_rl.utils import ALONE, Metrics, Ranks, State, check_like, mean_metrics

M = TypeVar("M", bound=nn.Module)
ADAM_EPS = 1e-8
Tensors = dict[str, torch.Tensor]
"""Metrics of an update, `()` each, by name."""
Outputs = tuple[Tensors, torch.Tensor]
"""Metrics of an update, and the TD errors `(B,)`."""
Rate = float | torch.Tensor
"""A learning rate. For a graph on a GPU it is a tensor."""


class WeightedRanks(NamedTuple):
    """The ranks of an update, of which each has some rows of a minibatch."""

    ranks: Ranks = ALONE
    weight: float = 1.0
    """The fraction of the rows that this rank has, demonstrations included."""
    demos: int = 0
    """The number of its rows that are demonstrations: the last ones."""

    def average(self, *vectors: torch.Tensor) -> None:
        """Turn means over this rank's rows, vectors, into means over the rows of all ranks, in place."""
        average_vectors(self.ranks, vectors, self.weight)

    def mean(self, metrics: Metrics) -> Metrics:
        """Return the means of metrics over the rows of all ranks, given those over this rank's rows."""
        return mean_metrics(self.ranks, self.weight, metrics)


ONE = WeightedRanks()


class Learner(Generic[M]):
    """A network whose parameters lie in one vector, so that an Adam step or a target update is one operation."""

    def __init__(self, network: M, has_target: bool = True) -> None:
        """Move the parameters into a vector.

        Args:
            network: on its device.
            has_target: whether to make a target network, which starts with the same weights.
        """
        self.network = network
        self._parameters = list(network.parameters())
        self.optimizer = Adam(self._parameters, eps=ADAM_EPS)
        self._gradients: list[Any] = [parameter.grad for parameter in self._parameters]  # views of one vector
        self.vector, self.gradient = self.optimizer.vector, self.optimizer.gradient
        self._target_vector = self.vector.clone() if has_target else None
        self.target: M = network if self._target_vector is None else copy_on(network, self._target_vector)

    def step(self, lr: Rate) -> None:
        """Take a step of size `lr` down the gradient in the parameters' `grad`."""
        self.optimizer.step(lr)

    def descend(self, loss: torch.Tensor, lr: Rate, ranks: WeightedRanks, max_grad_norm: float) -> None:
        """Take a step down the gradient of a loss `()`, the mean over this rank's rows; its norm is limited first."""
        torch._foreach_copy_(self._gradients, torch.autograd.grad(loss, self._parameters))
        ranks.average(self.gradient)
        limit_norm(self.gradient, max_grad_norm)
        self.step(lr)

    def update_target(self, tau: float) -> None:
        """Update the target, if there is one: target <- (1 - tau) target + tau network."""
        if self._target_vector is not None:
            self._target_vector.lerp_(self.vector, tau)

    def state(self) -> State:
        """Return everything, for `utils.save_state`; the arrays are views."""
        return {name: tensor.detach().cpu().numpy() for name, tensor in self._tensors().items()}

    def check_state(self, state: State, what: str) -> None:
        """Check that `load_state` can restore a state; otherwise raise a `ValueError`, which calls it `what`."""
        for name, array in self.state().items():
            check_like(state[name], array, f"{name} of the {what}")

    def load_state(self, state: State) -> None:
        """Restore what `state` returned."""
        for name, tensor in self._tensors().items():
            tensor.copy_(torch.as_tensor(state[name]))

    def _tensors(self) -> dict[str, torch.Tensor]:
        target = {} if self._target_vector is None else {"target": self._target_vector}
        return {"parameters": self.vector, **target, **self.optimizer.state}


def read_means(collected: dict[str, list[torch.Tensor]]) -> Metrics:
    """Return the means of tensors `()` by name; all are read at once, since a GPU makes each reading wait."""
    values = iter(torch.stack([value for values in collected.values() for value in values]).tolist())
    return {name: sum(islice(values, len(tensors))) / len(tensors) for name, tensors in collected.items()}
