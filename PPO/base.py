"""The base of PPO: its attributes, and the vectors of its parameters."""

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from parallel_rl.networks import Adam
from parallel_rl.utils import Configured
from parallel_rl.utils.threads import LARGE_NETWORK
from PPO.actor_critic import ActorCritic
from PPO.companions import Companion
from PPO.config import PPOConfig
from PPO.exploration import Exploration
from PPO.fast.policy import NumpyPolicy
from PPO.losses import objective_loss
from PPO.memory import Memory

if TYPE_CHECKING:
    ConfigFields = PPOConfig
    """The attributes of `Configured`, for type checkers."""
else:
    ConfigFields = object


class PPOBase(Configured, ConfigFields):
    """The attributes of `PPO`, which its constructor sets."""

    config: PPOConfig
    is_continuous: bool
    observation_space: spaces.Space
    action_space: spaces.Space
    policy: ActorCritic
    _companions: tuple[Companion, ...]
    exploration: Exploration | None
    """The noise of gSDE."""
    rng: np.random.Generator
    memory: Memory
    updates: int
    rewarded: bool
    """Whether there has been a reward other than zero."""

    optimizers: list[Adam]
    """Those of the policy, and of each companion that has parameters."""
    gradients: list[tuple[nn.Parameter, torch.Tensor]]
    """All parameters with their gradients: views of the optimizers' vectors."""
    objective_loss: Any
    """`losses.objective_loss`, compiled if the config says so."""
    numpy_policy: NumpyPolicy | None
    """The policy in NumPy, which is several times faster; None if torch is needed."""
    threads: int | None
    """For torch and NumPy; None for as many as they use by themselves."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """The device of the networks."""
        return torch.device(self.config.device)

    @property
    def companions(self) -> tuple[Companion, ...]:  # type: ignore[override]
        """The companions, in the order of their value functions."""
        return self._companions

    def parameters(self) -> list[nn.Parameter]:
        """Return all trainable parameters: those of the policy and of the companions."""
        all_of_them = (parameter for module in (self.policy, *self.companions) for parameter in module.parameters())
        return [parameter for parameter in all_of_them if parameter.requires_grad]

    def _make_optimizers(self) -> None:
        """Move the parameters into vectors; torch, Adam and the NumPy policy all use views of them."""
        architecture = self.policy.architecture()
        parameters = self.policy.parameters() if architecture is None else self.policy.stacked_parameters()
        own = {
            companion: [parameter for parameter in companion.parameters() if parameter.requires_grad]
            for companion in self.companions
        }
        self.optimizers = [Adam(parameters), *(Adam(learned) for learned in own.values() if learned)]
        self.gradients = [(parameter, parameter.grad) for parameter in self.parameters() if parameter.grad is not None]
        for companion, learned in own.items():
            if companion.learns and not (learned or companion.shares):
                raise ValueError(f"{companion.name} has a loss, but no parameters, and does not share the policy's")
        self.objective_loss = torch.compile(objective_loss) if self.config.compile else objective_loss
        vector = self.optimizers[0].vector
        small = len(vector) < LARGE_NETWORK
        self.threads = 1 if small else None
        self.numpy_policy = None
        if small and architecture is not None and vector.device.type == "cpu":
            statistics = np.zeros((2, architecture.normalized), np.float32)
            self.numpy_policy = NumpyPolicy(architecture, vector.numpy(), statistics)

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes without the views of the parameters; `__setstate__` makes the views again."""
        views = ("optimizers", "gradients", "objective_loss", "numpy_policy")
        attributes = {name: value for name, value in vars(self).items() if name not in views}
        for name in ("policy", "_companions"):  # pickle stores the whole vector for each view; copies are not views
            attributes[name] = copy.deepcopy(attributes[name])
        return attributes | {"moments": [adam.state if adam.state["steps"] else {} for adam in self.optimizers]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the attributes, and make the views again."""
        moments = state.pop("moments")
        vars(self).update(state)
        self._make_optimizers()
        for optimizer, own in zip(self.optimizers, moments, strict=True):
            optimizer.load_state(own)
