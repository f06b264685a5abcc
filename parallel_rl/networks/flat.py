"""Parameters in one vector, and Adam on it."""

import copy
from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
from torch import nn

from parallel_rl.utils import Ranks

M = TypeVar("M", bound=nn.Module)


def flatten(parameters: Iterable[nn.Parameter]) -> tuple[torch.Tensor, torch.Tensor]:
    """Move parameters and their gradients into one vector each; they become views of it.

    Then an optimizer step or the gradient norm is one operation, for any number of layers.

    Returns:
        The vector `(P,)` and its gradient, which is zero. Reset the gradient in place; never set it to None.
    """
    parameters = list(parameters)
    vector = torch.cat([parameter.detach().flatten() for parameter in parameters])
    gradient = torch.zeros_like(vector)
    start = 0
    for parameter in parameters:
        stop = start + parameter.numel()
        parameter.data = vector[start:stop].view_as(parameter)
        parameter.grad = gradient[start:stop].view_as(parameter)
        start = stop
    return vector, gradient


class Adam:
    """Adam (Kingma & Ba 2015, arXiv:1412.6980) on one vector of parameters.

    It calls the kernel of `torch.optim.Adam(fused=True)` directly, since the bookkeeping of that class costs four times
    as much as the arithmetic of a small network.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], eps: float = 1e-5) -> None:
        """Move the parameters into a vector; start with no moments.

        Args:
            parameters: views of `vector` `(P,)` from then on, and their gradients views of `gradient` `(P,)`.
            eps: added to the root of the second moment.
        """
        self.vector, self.gradient = flatten(parameters)
        self.eps = eps
        self.state = {
            "mean": torch.zeros_like(self.vector),
            "square": torch.zeros_like(self.vector),
            "steps": torch.zeros((), device=self.vector.device),
        }

    def step(self, lr: float | torch.Tensor) -> None:
        """Take a step of size `lr` by `gradient`; as a tensor, `lr` is read on its device."""
        mean, square, steps = self.state["mean"], self.state["square"], self.state["steps"]
        steps += 1
        if torch.compiler.is_compiling():  # the kernel cannot be compiled; its parts become one
            mean.lerp_(self.gradient, 1 - 0.9)
            square.mul_(0.999).addcmul_(self.gradient, self.gradient, value=1 - 0.999)
            root = (square / (1 - 0.999**steps)).sqrt() + self.eps
            self.vector.sub_(lr * mean / ((1 - 0.9**steps) * root))
            return
        torch._fused_adam_(
            [self.vector], [self.gradient], [mean], [square], [], [steps],
            lr=lr, beta1=0.9, beta2=0.999, weight_decay=0.0, eps=self.eps, amsgrad=False, maximize=False,
        )  # fmt: skip

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Copy the moments and the step count of another."""
        for name, tensor in state.items():
            self.state[name].copy_(tensor)


def limit_norm(gradient: torch.Tensor, limit: float) -> torch.Tensor | float:
    """Scale a gradient `(P,)` down, in place, to a norm of at most `limit`; return its norm before."""
    norm = torch.linalg.vector_norm(gradient)
    if gradient.device.type != "cpu":  # reading a number would wait for the device
        gradient.mul_((limit / norm).clamp(max=1.0))
        return norm
    number = norm.item()
    if number > limit:
        gradient.mul_(limit / number)
    return number


def average_vectors(ranks: Ranks, vectors: Sequence[torch.Tensor], share: float) -> None:
    """Turn means over this rank's rows into means over the rows of all ranks, in place.

    Args:
        ranks: the ranks.
        vectors: the means.
        share: the fraction of the rows that this rank has.
    """
    if ranks.world_size > 1:
        total = ranks.all_reduce(torch.cat([*vectors]) * share)
        for vector, part in zip(vectors, total.split([*map(len, vectors)]), strict=True):
            vector.copy_(part)


def copy_on(module: M, vector: torch.Tensor) -> M:
    """Return a copy of a module whose parameters are views of `vector` `(P,)`, laid out as by `flatten`.

    The parameters of the copy get no gradients. With the module's own vector, the copy computes the same function, with
    gradients only for its inputs. With a clone of the vector, it is a target network.
    """
    copied = copy.deepcopy(module).requires_grad_(False)
    start = 0
    for parameter in copied.parameters():
        stop = start + parameter.numel()
        parameter.data = vector[start:stop].view_as(parameter)
        start = stop
    return copied
