"""Small actors with known answers."""

from typing import Any

import torch
from torch import Tensor, nn

from Rollouts import BaseActorModule


class Chance(BaseActorModule):
    """Acts on chance and on what it sees, by arithmetic that does not depend on the size of a batch."""

    def __init__(self, act: Any = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))
        self.act = act or self.choose

    def choose(self, total: Tensor) -> Tensor:
        return torch.where(torch.rand(total.shape) < 0.5, 1, 0) ^ (total > 0).long()

    def total(self, obs: Any) -> Tensor:
        if isinstance(obs, dict | tuple):
            return sum(self.total(part) for part in (obs.values() if isinstance(obs, dict) else obs))  # type: ignore[return-value]
        return obs.double().sum(tuple(range(2, obs.ndim))) if obs.ndim > 2 else obs.double()

    def forward(self, obs: Any, *, stepno: Tensor, rew: Tensor, **_: Any) -> tuple[Tensor, tuple, dict[str, Tensor]]:
        total = self.total(obs)
        value = self.weight * total + 100 * stepno + rew
        return self.act(total), (), {"value": value}


class StepCounter(BaseActorModule):
    """Its recurrent state counts the steps of the episode; it returns the state before the step."""

    def forward(self, obs: Tensor, *, hx: Any, **_: Any) -> tuple[Tensor, Any, dict[str, Tensor]]:
        if hx is None:
            hx = {"count": torch.full((2, obs.shape[1], 1), 7)}
        act = torch.ones(obs.shape[:2], dtype=torch.int64)
        return act, {"count": hx["count"] + 1}, {"count": hx["count"][:1, :, 0]}


class Scripted(BaseActorModule):
    """Does, step after step, what a list says for each environment; afterwards 0.

    Its value of n, the last number of an observation, is 10 + 10 * n.
    """

    def __init__(self, *script: list[int]) -> None:
        super().__init__()
        self.script = [*script]

    def forward(self, obs: Tensor, *, virtual: bool, **_: Any) -> tuple[Tensor, tuple, dict[str, Tensor]]:
        act = [0] * obs.shape[1] if virtual or not self.script else self.script.pop(0)
        return torch.tensor([act]), (), {"value": 10 + 10 * obs[..., -1]}
