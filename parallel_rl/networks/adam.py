"""Adam on parameters that lie in one vector."""

from collections.abc import Iterable

import torch
from torch import nn

from parallel_rl.networks.flat import flatten


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
        torch._fused_adam_(
            [self.vector], [self.gradient], [mean], [square], [], [steps],
            lr=lr, beta1=0.9, beta2=0.999, weight_decay=0.0, eps=self.eps, amsgrad=False, maximize=False,
        )  # fmt: skip

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Copy the moments and the step count of another."""
        for name, tensor in state.items():
            self.state[name].copy_(tensor)
