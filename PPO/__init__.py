"""Proximal Policy Optimization, and its companions: further losses and intrinsic rewards."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from PPO.config import PPOConfig
from PPO.memory import Memory

if TYPE_CHECKING:
    from PPO.actor_critic import ActorCritic
    from PPO.agent import PPO
    from PPO.companions import Companion, RewardScale, Transitions
    from PPO.icm import ICM
    from PPO.rnd import RND

__all__ = ["ICM", "PPO", "RND", "ActorCritic", "Companion", "Memory", "PPOConfig", "RewardScale", "Transitions"]
HOMES = {
    "ActorCritic": "actor_critic",
    "Companion": "companions",
    "ICM": "icm",
    "PPO": "agent",
    "RND": "rnd",
    "RewardScale": "companions",
    "Transitions": "companions",
}


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first used, since a replica in a worker process needs no torch."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"PPO.{HOMES[name]}"), name)
