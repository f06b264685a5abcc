"""Names of keyword arguments, and what the error for an unknown one suggests."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches

SB3_NAMES = {"learning_rate": "lr", "clip_range": "policy_clip", "net_arch": "hidden_sizes", "n_envs": "num_envs"}
"""Names of arguments in Stable-Baselines3 that are unlike ours."""


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
    all_known = [*known, *others]
    for name in names:
        if name not in known:
            ours = SB3_NAMES.get(name, name)
            near = [ours] if ours in all_known else get_close_matches(name, all_known, 1)
            hint = f": did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"{by}() got an unexpected keyword argument {name!r}{hint}")
