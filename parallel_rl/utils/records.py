"""Records of settings: plain values by name, and how two of them differ."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from parallel_rl.utils.described import describe_space
from parallel_rl.utils.schedules import LostSchedule


def plain(value: Any) -> Any:
    """Return a setting as a file returns it: arrays and tuples as lists, functions, classes and spaces described."""
    if isinstance(value, spaces.Space):
        return describe_space(value)
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, LostSchedule):
        return value.was
    if callable(value):
        return f"{value.__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    return value


def in_words(
    names: Iterable[str], saved: Mapping[str, Any], own: Mapping[str, Any], text: Callable[[Any], str] = repr
) -> list[str]:
    """Return the values under some names in two records, in words: `lr is 1 there and 2 here`."""
    return [f"{name} is {text(saved.get(name))} there and {text(own[name])} here" for name in names]


def check_equal(saved: Mapping[str, Any], own: Mapping[str, Any], source: str) -> None:
    """Check that two records have the same values under the names that both have.

    Args:
        saved: of a checkpoint; an older version may have more or fewer names.
        own: of this trainer or agent.
        source: the origin of `saved`, for the message.

    Raises:
        ValueError: values differ; the message lists them.
    """
    different = [name for name in saved if name in own and saved[name] != plain(own[name])]
    if different:
        raise ValueError(f"{source} does not fit: {'; '.join(in_words(different, saved, own))}")
