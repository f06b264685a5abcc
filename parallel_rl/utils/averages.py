"""The mean of several states."""

import random
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np

GENERATOR = "bit_generator"
"""A key that only the states of NumPy's random generators have."""


def mean_of_states(states: Sequence[Any], path: str = "") -> Any:
    """Return the mean of trees of the same shape, in new arrays.

    Floats, and arrays or tensors of floats, are averaged. Whole numbers and truth values are counts, so the largest is
    taken. Random generators and their states are taken from the first tree. Anything else must be equal in all.

    Args:
        states: dicts, lists, tuples, arrays, tensors and plain values, nested.
        path: their place in a larger tree, for messages.

    Raises:
        TypeError: a value has another type; the message names its place.
        ValueError: the trees have different shapes; the message names the place.
    """
    first, place = states[0], path or "the state"
    if any(type(state) is not type(first) for state in states):
        kinds = ", ".join(sorted({type(state).__name__ for state in states}))
        raise ValueError(f"states of different kinds have no mean: {place} is of the types {kinds}")
    if isinstance(first, np.random.Generator | random.Random) or (isinstance(first, Mapping) and GENERATOR in first):
        return first
    if isinstance(first, Mapping):
        _check_alike("keys", [state.keys() for state in states], place)
        return {name: mean_of_states([state[name] for state in states], _below(path, name)) for name in first}
    if isinstance(first, list | tuple):
        _check_alike("lengths", [len(state) for state in states], place)
        parts = [mean_of_states(parts, _below(path, index)) for index, parts in enumerate(zip(*states, strict=True))]
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    return _mean_of_leaves(states, place)


def _mean_of_leaves(values: Sequence[Any], place: str) -> Any:
    first = values[0]
    if isinstance(first, np.ndarray | np.generic) or hasattr(first, "detach"):
        _check_alike("shapes", [value.shape for value in values], place)
        return _mean_of_arrays(values)
    if isinstance(first, float):
        return sum(values) / len(values)
    if isinstance(first, int):
        return max(values)
    if isinstance(first, str | bytes | None):
        _check_alike("values", values, place)
        return first
    raise TypeError(f"there is no mean of {place}, a {type(first).__name__}")


def _mean_of_arrays(arrays: Sequence[Any]) -> Any:
    """Return the mean of arrays or tensors, in double precision; the largest elements if they are not floats."""
    first = arrays[0]
    if hasattr(first, "detach"):  # a tensor: torch need not be imported
        if first.is_floating_point():
            return (sum(one.detach().double() for one in arrays) / len(arrays)).to(first.dtype)
        return reduce(lambda one, other: one.maximum(other), arrays)
    if np.issubdtype(first.dtype, np.floating):
        return np.asarray(np.mean(np.stack(arrays), axis=0, dtype=np.float64), first.dtype)
    return np.asarray(np.max(np.stack(arrays), axis=0))


def _check_alike(what: str, values: Sequence[Any], place: str) -> None:
    other = next((value for value in values if value != values[0]), None)
    if other is not None:
        raise ValueError(
            f"states with different {what} have no mean: {place} has {_text(values[0])} and {_text(other)}"
        )


def _below(path: str, name: Any) -> str:
    return f"{path}.{name}" if path else str(name)


def _text(value: Any) -> str:
    return f"{list(value) if hasattr(value, 'isdisjoint') else value!r}"
