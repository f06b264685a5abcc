"""The collector and the loop: many environments at once, and PPO on what they live through."""

from typing import TYPE_CHECKING, Any

from AsyncPPO.backends import EnvError
from AsyncPPO.factory import env_factory, make_env
from AsyncPPO.memory import VecMemory
from AsyncPPO.rollout import evaluate
from AsyncPPO.vectorizer import EnvVectorizer
from AsyncPPO.wrappers import ActionMasks

if TYPE_CHECKING:
    from AsyncPPO.trainer import AsyncPPO

__all__ = ["ActionMasks", "AsyncPPO", "EnvError", "EnvVectorizer", "VecMemory", "env_factory", "evaluate", "make_env"]


def __getattr__(name: str) -> Any:
    """Import the trainer when it is asked for: it needs torch, and worker processes do without."""
    if name == "AsyncPPO":
        from AsyncPPO.trainer import AsyncPPO

        return AsyncPPO
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
