"""The arguments of `for_env` of each agent, for type checkers and editors: its settings and its other arguments."""

from dataclasses import field
from typing import Any

from OffPolicy.config import DDPGConfig, DQNConfig, OffPolicyConfig, SACConfig, TD3Config
from OffPolicy.her import GoalFunctions
from parallel_rl.utils import Config, settings_class


@settings_class
class ForEnv(Config):
    """The arguments of all agents."""

    env: Any = field(kw_only=False)
    config: OffPolicyConfig | None = None
    goal_functions: GoalFunctions | None = None
    seed: int | None = None


@settings_class
class ForDQN(ForEnv, DQNConfig):
    """The arguments of `DQN.for_env`."""


@settings_class
class ForDDPG(ForEnv, DDPGConfig):
    """The arguments of `DDPG.for_env`."""


@settings_class
class ForTD3(ForEnv, TD3Config):
    """The arguments of `TD3.for_env`."""


@settings_class
class ForSAC(ForEnv, SACConfig):
    """The arguments of `SAC.for_env`."""
