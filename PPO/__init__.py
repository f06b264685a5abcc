"""Proximal Policy Optimization, optionally with Random Network Distillation."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from PPO.config import PPOConfig
from PPO.memory import Memory

if TYPE_CHECKING:
    from PPO.actor_critic import ActorCritic
    from PPO.agent import PPO
    from PPO.rnd import RND

__all__ = ["PPO", "RND", "ActorCritic", "Memory", "PPOConfig"]


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is asked for: a replica in a worker process does without."""
    homes = {"PPO": "agent", "RND": "rnd", "ActorCritic": "actor_critic"}
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"PPO.{homes[name]}"), name)
