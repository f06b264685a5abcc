"""The collector and the loop: many environments at once, and PPO on what they live through."""

from AsyncPPO.backends import EnvError
from AsyncPPO.memory import VecMemory
from AsyncPPO.rollout import evaluate
from AsyncPPO.trainer import AsyncPPO
from AsyncPPO.vectorizer import EnvVectorizer, env_factory

__all__ = ["AsyncPPO", "EnvError", "EnvVectorizer", "VecMemory", "env_factory", "evaluate"]
