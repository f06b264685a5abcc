"""Records of settings: plain values by name, also of spaces; and how two records differ."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from parallel_rl.utils.schedules import LostSchedule

LARGEST_SPACE = 2**26
"""Limit on the size of an element, so that a forged file cannot fill the memory."""


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


def describe_space(space: spaces.Space) -> dict[str, Any]:
    """Return a Box, a Discrete, a MultiDiscrete, a MultiBinary, or a Dict or a Tuple of these, as plain values.

    Raises:
        TypeError: the space has another type.
    """
    if isinstance(space, spaces.Dict):
        return {"Dict": [[key, describe_space(part)] for key, part in space.spaces.items()]}
    if isinstance(space, spaces.Tuple):
        return {"Tuple": [describe_space(part) for part in space.spaces]}
    if isinstance(space, spaces.Box):
        low, high = _short(space.low), _short(space.high)
        return {"Box": {"low": low, "high": high, "shape": list(space.shape), "dtype": space.dtype.name}}
    if isinstance(space, spaces.Discrete):
        return {"Discrete": {"n": int(space.n), "start": int(space.start), "dtype": space.dtype.name}}
    if isinstance(space, spaces.MultiDiscrete):
        return {
            "MultiDiscrete": {
                "nvec": space.nvec.tolist(), "start": space.start.tolist(), "dtype": space.dtype.name,
            }
        }  # fmt: skip
    if isinstance(space, spaces.MultiBinary):
        return {"MultiBinary": list(space.shape)}
    raise TypeError(f"the space {space} cannot be described")


def make_space(description: Any) -> spaces.Space:
    """Return the space that `describe_space` described.

    Raises:
        ValueError: it does not describe a space.
    """
    try:
        ((kind, parts),) = description.items()
        return _MAKERS[kind](parts)
    except Exception as error:  # whatever Gymnasium and NumPy raise for wrong values
        raise ValueError(f"no space is described by {description!r:.100}: {error!r:.200}") from error


def _short(bound: np.ndarray) -> Any:
    """Return a bound as nested lists, or as one number if all are equal."""
    return bound.flat[0].item() if bound.size and (bound == bound.flat[0]).all() else bound.tolist()


def _box(parts: dict[str, Any]) -> spaces.Box:
    dtype, shape = np.dtype(parts["dtype"]), parts["shape"]
    if dtype.kind not in "biuf" or math.prod(shape) > LARGEST_SPACE:
        raise ValueError(f"no Box of {dtype} {shape}")
    low, high = (np.full(shape, parts[bound], dtype) for bound in ("low", "high"))
    return spaces.Box(low, high, dtype=dtype.type)


def _discrete(parts: dict[str, Any]) -> spaces.Discrete:
    # Gymnasium before 1.3 knows int64 alone, and takes no type
    other_type = {} if parts["dtype"] == "int64" else {"dtype": np.dtype(parts["dtype"]).type}
    return spaces.Discrete(parts["n"], start=parts["start"], **other_type)


def _pair(pair: Any) -> tuple[Any, spaces.Space]:
    key, description = pair
    return key, make_space(description)


_MAKERS: dict[str, Any] = {
    "Box": _box,
    "Discrete": _discrete,
    "MultiDiscrete": lambda parts: spaces.MultiDiscrete(
        np.array(parts["nvec"]), np.dtype(parts["dtype"]).type, start=np.array(parts["start"])
    ),
    "MultiBinary": lambda shape: spaces.MultiBinary(shape[0] if len(shape) == 1 else shape),
    "Dict": lambda pairs: spaces.Dict([*map(_pair, pairs)]),  # pairs keep their order
    "Tuple": lambda parts: spaces.Tuple([*map(make_space, parts)]),
}
