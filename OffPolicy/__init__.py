"""OffPolicy: agents that learn from a replay buffer."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from OffPolicy.config import DDPGConfig, DQNConfig, OffPolicyConfig, SACConfig, TD3Config
from OffPolicy.her import GoalFunctions, Hindsight
from OffPolicy.priorities import Priorities, SumTree
from OffPolicy.replay import Replay, Transitions

if TYPE_CHECKING:
    from OffPolicy.base import OffPolicyAgent
    from OffPolicy.ddpg import DDPG
    from OffPolicy.dqn import DQN
    from OffPolicy.sac import SAC
    from OffPolicy.td3 import TD3

__all__ = [
    "DDPG",
    "DQN",
    "SAC",
    "TD3",
    "DDPGConfig",
    "DQNConfig",
    "GoalFunctions",
    "Hindsight",
    "OffPolicyAgent",
    "OffPolicyConfig",
    "Priorities",
    "Replay",
    "SACConfig",
    "SumTree",
    "TD3Config",
    "Transitions",
]
HOMES = {"DDPG": "ddpg", "DQN": "dqn", "OffPolicyAgent": "base", "SAC": "sac", "TD3": "td3"}


def __getattr__(name: str) -> Any:
    """Import an agent when it is first used, so that its config, and with it `--help`, needs no torch."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"OffPolicy.{HOMES[name]}"), name)
