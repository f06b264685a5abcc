"""Numbers in the last info of an episode, such as whether it was a success."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from AsyncPPO.backends.base import EnvError

SUCCESS = "is_success"
"""The key of an info with whether an episode was a success. It is always read, also under the name `success`."""
SUCCESS_NAMES = (SUCCESS, "success")


def with_success(info_keys: Sequence[str]) -> tuple[str, ...]:
    """Return the requested keys, and `SUCCESS`, each once.

    Raises:
        TypeError: they are not a list of strings.
    """
    if isinstance(info_keys, str | Iterator):
        what = "the string" if isinstance(info_keys, str) else "the iterator"
        raise TypeError(f"info_keys must be a list of names, not {what} {info_keys!r}")
    for key in info_keys:
        if not isinstance(key, str):
            raise TypeError(f"info_keys must be a list of names, not of {key!r}")
    return (*dict.fromkeys([SUCCESS, *info_keys]),)


def numbers_in(index: int, info: dict[str, Any], keys: Sequence[str]) -> list[float]:
    """Return the numbers in the last info of an episode of environment `index`; NaN for missing ones.

    Raises:
        EnvError: a requested value is not a number.
    """
    return [_number(index, info, key) for key in keys]


def _number(index: int, info: dict[str, Any], key: str) -> float:
    names = SUCCESS_NAMES if key == SUCCESS else (key,)
    value = next((info[name] for name in names if name in info), math.nan)
    try:
        return float(np.asarray(value, np.float64).item())
    except (TypeError, ValueError, OverflowError):
        if key == SUCCESS:  # `SUCCESS` was not requested: its value must not end the run
            return math.nan
        raise EnvError(f"environment {index}: its info {key!r} is not a number, but {value!r}") from None
