"""OffPolicy: agents that learn from a replay buffer."""

from OffPolicy.base import OffPolicyAgent
from OffPolicy.config import DDPGConfig, DQNConfig, OffPolicyConfig, SACConfig, TD3Config
from OffPolicy.ddpg import DDPG
from OffPolicy.dqn import DQN
from OffPolicy.her import Hindsight
from OffPolicy.priorities import Priorities, SumTree
from OffPolicy.replay import Replay, Transitions
from OffPolicy.sac import SAC
from OffPolicy.td3 import TD3

__all__ = [
    "DDPG",
    "DQN",
    "SAC",
    "TD3",
    "DDPGConfig",
    "DQNConfig",
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
