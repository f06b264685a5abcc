"""The parts that RLPlay's snippet leaves out: an environment, an actor and a loss."""

from types import SimpleNamespace
from typing import Any

import gymnasium
import torch
from torch import nn

from Rollouts import BaseActorModule, Fragment

gym = SimpleNamespace(make=lambda env_id: gymnasium.make("CartPole-v1"))


class Actor(BaseActorModule):
    def __init__(self) -> None:
        super().__init__()
        self.policy, self.value = (
            nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, size)) for size in (2, 1)
        )  # fmt: skip

    def reset(self, hx: Any, at: Any) -> Any:
        return hx

    def step(self, stepno, obs, act, rew, fin, /, *, hx, virtual):  # type: ignore[no-untyped-def]
        logits, value = self.policy(obs), self.value(obs)[..., 0]
        return torch.distributions.Categorical(logits=logits).sample(), (), {"logits": logits, "value": value}


def rl_algorithm_loss(fragment: Fragment, actor: Actor) -> tuple[torch.Tensor, dict[str, float]]:
    """Advantage actor-critic, one step."""
    _, _, info = actor.step(*fragment.before, hx=fragment.hx, virtual=False)
    target = fragment.after.rew + 0.99 * fragment.following("value")
    log_prob = torch.distributions.Categorical(logits=info["logits"]).log_prob(fragment.after.act)
    advantage = target - info["value"]
    loss = (0.5 * advantage**2 - log_prob * advantage.detach()).mean()
    return loss, {"loss": loss.item()}
