"""The learner: Proximal Policy Optimisation, optionally with Random Network Distillation."""

from PPO.actor_critic import ActorCritic
from PPO.agent import PPO
from PPO.memory import Memory
from PPO.rnd import RND

__all__ = ["PPO", "RND", "ActorCritic", "Memory"]
