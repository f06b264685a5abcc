"""Parallel environments, and the loop that trains an agent in them."""

from typing import TYPE_CHECKING, Any

from AsyncPPO.async_ppo import AsyncPPO
from AsyncPPO.backends import EnvError
from AsyncPPO.evaluation import evaluate, evaluate_episodes
from AsyncPPO.factory import env_factory, make_env
from AsyncPPO.memory import VecMemory
from AsyncPPO.trainer import AsyncTrainer
from AsyncPPO.vectorizer import EnvVectorizer
from AsyncPPO.wrappers import ActionMasks

if TYPE_CHECKING:
    from AsyncPPO.atari import make_atari

__all__ = [
    "ActionMasks",
    "AsyncPPO",
    "AsyncTrainer",
    "EnvError",
    "EnvVectorizer",
    "VecMemory",
    "env_factory",
    "evaluate",
    "evaluate_episodes",
    "make_atari",
    "make_env",
]


def __getattr__(name: str) -> Any:
    """Import Atari only when it is used: it needs optional packages."""
    if name == "make_atari":
        from AsyncPPO.atari import make_atari

        return make_atari
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
