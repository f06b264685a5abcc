"""The collector and the loop: many environments at once, and PPO on what they live through."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from AsyncPPO.backends import EnvError
from AsyncPPO.evaluation import evaluate, evaluate_episodes
from AsyncPPO.factory import env_factory, make_env
from AsyncPPO.memory import VecMemory
from AsyncPPO.vectorizer import EnvVectorizer
from AsyncPPO.wrappers import ActionMasks

if TYPE_CHECKING:
    from AsyncPPO.atari import make_atari
    from AsyncPPO.trainer import AsyncPPO

__all__ = [
    "ActionMasks",
    "AsyncPPO",
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
    """Import the trainer and Atari when they are asked for: one needs torch, and worker processes do without."""
    homes = {"AsyncPPO": "trainer", "make_atari": "atari"}
    if name in homes:
        return getattr(import_module(f"AsyncPPO.{homes[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
