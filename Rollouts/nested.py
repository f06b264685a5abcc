"""Nested containers (dicts, lists, tuples and named tuples) with tensors or arrays in them."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from gymnasium import spaces

from parallel_rl.utils import row_type

Nested = Any
"""A tensor, an array, or a dict, list or tuple of these; `()` and None are empty."""


def tree_map(function: Callable[..., Any], tree: Nested, *others: Nested) -> Nested:
    """Return a container like `tree`, with the results of `function(leaf, *leaves of the others at the same place)`.

    Raises:
        ValueError: another container has a different structure.
    """
    if isinstance(tree, dict):
        if any(not isinstance(other, dict) or other.keys() != tree.keys() for other in others):
            raise ValueError(f"a dict with the keys {[*tree]} is needed in each place, not {_types_of(others)}")
        return {key: tree_map(function, part, *(other[key] for other in others)) for key, part in tree.items()}
    if isinstance(tree, tuple | list):
        if any(not isinstance(other, tuple | list) or len(other) != len(tree) for other in others):
            raise ValueError(f"a tuple of {len(tree)} is needed in each place, not {_types_of(others)}")
        parts = [tree_map(function, *places) for places in zip(tree, *others, strict=True)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    if tree is None:
        return None
    return function(tree, *others)


def tree_leaves(tree: Nested, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves, each with a name: its keys, joined by dots."""
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, tuple | list) else None
    if parts is not None:
        for key, part in parts:
            yield from tree_leaves(part, f"{name}.{key}" if name else str(key))
    elif tree is not None:
        yield name, tree


def allocate(space: spaces.Space, *lead: int) -> Nested:
    """Return arrays `(*lead, ...)` for elements of a space: zeros, or the first choice of a discrete space."""
    if isinstance(space, spaces.Dict):
        return {key: allocate(part, *lead) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(allocate(part, *lead) for part in space.spaces)
    shape, dtype = row_type(space)
    array = np.zeros((*lead, *shape), dtype)
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete) and np.any(space.start):
        array[...] = space.start
    return array


def unpack(space: spaces.Space, rows: np.ndarray) -> Nested:
    """Convert rows of a space to a container of arrays; rows of a Dict or a Tuple are a structured array."""
    if isinstance(space, spaces.Dict):
        return {key: unpack(part, rows[str(key)]) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(unpack(part, rows[str(number)]) for number, part in enumerate(space.spaces))
    return rows


def _types_of(others: tuple[Nested, ...]) -> str:
    return ", ".join(str([*other]) if isinstance(other, dict) else type(other).__name__ for other in others)
