"""Parameters in one vector."""

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
