"""Names of arguments and settings, and what the error for an unknown one suggests."""

from collections.abc import Callable, Collection, Iterable
from difflib import get_close_matches
from functools import wraps
from inspect import signature
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

SB3_NAMES = {
    "learning_rate": "lr",
    "clip_range": "policy_clip",
    "n_epochs": "k_epochs",
    "gae_lambda": "GAE_lambda",
    "ent_coef": "entropy_coef",
    "vf_coef": "value_coef",
    "net_arch": "hidden_sizes",
    "n_envs": "num_envs",
}
"""Arguments of Stable-Baselines3 that have other names here."""


def check_names(names: Iterable[str], known: Collection[str], others: Iterable[str], by: str) -> None:
    """Check the names of keyword arguments.

    Args:
        names: those given.
        known: those that exist.
        others: the names of further arguments, which the message may suggest.
        by: the name of the caller, for the message.

    Raises:
        TypeError: a name is unknown; the message suggests the nearest one, or ours for one of Stable-Baselines3.
    """
    for name in names:
        if name not in known:
            hint = suggestion(name, [*known, *others])
            raise TypeError(f"{by}() got an unexpected keyword argument {name!r}{hint}")


def names_checked(function: Callable[P, T]) -> Callable[P, T]:
    """Let the error for an unknown keyword argument of a function, or of a class's `__init__`, suggest a name."""
    known, by = signature(function).parameters, function.__qualname__.removesuffix(".__init__")

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        check_names(kwargs, known, (), by)
        return function(*args, **kwargs)

    return checked


def suggestion(name: str, known: Collection[str], similarity: float = 0.6) -> str:
    """Return `: did you mean 'NAME'?`, or an empty text if no name is near.

    For a name of Stable-Baselines3 it is ours, otherwise the nearest.

    Args:
        name: an unknown name.
        known: those that exist.
        similarity: the least similarity of a near name, from 0 to 1.
    """
    ours = SB3_NAMES.get(name, name)
    near = [ours] if ours in known else get_close_matches(name, known, 1, similarity)
    return f": did you mean {near[0]!r}?" if near else ""
