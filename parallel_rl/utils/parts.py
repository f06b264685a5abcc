"""Parts of observations: numbers and images, and how images are recognized."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeGuard

import numpy as np
from gymnasium import spaces

from parallel_rl.utils.spaces import DiscreteValues, Keys, leaves, name_of

ACTION_MASK = "action_mask"
"""The key of the allowed actions in a Dict observation."""
SMALLEST_IMAGE = 5
"""Height or width below which an image counts as numbers."""
PIXEL_HIGH = 255
SMALLEST_MATRIX = 32
"""Rows or columns below which a matrix counts as numbers, unless its values go up to 255."""
MANY_COLUMNS = 4096
"""A Box with at least this many elements may be meant as an image, whatever its shape."""


@dataclass(frozen=True)
class Numbers:
    """Columns with the numbers of a Box or MultiBinary, or with the one-hot code of a Discrete or MultiDiscrete."""

    keys: Keys
    shape: tuple[int, ...]
    choices: tuple[int, ...] = ()
    """The number of choices of each dimension; empty for numbers."""
    starts: tuple[int, ...] = ()
    """The first choice of each dimension."""
    values: DiscreteValues | None = field(default=None, compare=False, repr=False)
    """Checks the values of observations in a space other than a Box; None for a Box."""

    @property
    def columns(self) -> int:
        """The number of columns."""
        return sum(self.choices) or math.prod(self.shape)

    def flatten(self, rows: np.ndarray) -> np.ndarray:
        """Convert flat elements `(M, size)` to float32 `(M, columns)`."""
        if not self.choices:
            return rows.astype(np.float32, copy=False)
        hot = [rows[:, k : k + 1] - self.starts[k] == np.arange(count) for k, count in enumerate(self.choices)]
        return np.concatenate(hot, axis=1).astype(np.float32)

    def fault(self, rows: np.ndarray) -> str | None:
        """Return in words which of the flat elements `(M, size)` is not in the space; None without a fault."""
        if self.values is None or self.values.include(elements := rows.reshape(len(rows), *self.shape)):
            return None
        wrong = next(element for element in elements if not self.values.include(element))
        return f"have {wrong.tolist()}, which is not in {self.values.space}"


@dataclass(frozen=True)
class Image:
    """Columns with the pixels of an image, or of a stack of images.

    The shape is (H, W), (H, W, C), (C, H, W), (S, H, W, C) or (S, C, H, W); networks see S * C channels.
    """

    keys: Keys
    shape: tuple[int, ...]
    high: float
    """The brightest value."""
    dtype: Literal["uint8", "float32"] = "uint8"
    """Type of the columns."""

    @property
    def columns(self) -> int:
        """The number of columns."""
        return math.prod(self.shape)

    def flatten(self, rows: np.ndarray) -> np.ndarray:
        """Convert flat elements `(M, size)` to `(M, columns)`."""
        return rows.astype(self.dtype, copy=False)

    def fault(self, rows: np.ndarray) -> str | None:
        """Return in words why flat elements `(M, size)` are not such images; None without a fault."""
        bytes_, given = self.dtype == "uint8", rows.dtype
        if given.kind == "b" or (given == np.uint8) == bytes_:
            return None
        if given.kind in "iu" and rows.min() >= 0 and rows.max() <= self.high:
            return None
        kind = "whole numbers" if bytes_ else "numbers"
        range_ = f"from {rows.min():g} to {rows.max():g}"
        return f"have {given} pixels {range_}, but the agent takes {kind} from 0 to {self.high:g}"

    @property
    def planes(self) -> tuple[int, ...]:
        """The full shape: `(S, C, H, W)` if `channels_first`, else `(S, H, W, C)`."""
        return (1,) * (4 - len(self.shape)) + self.shape

    @property
    def channels_first(self) -> bool:
        """Whether the channels come first.

        Of the last three dimensions, if just one neighboring pair is equal, that pair is rows and columns. Otherwise
        the smaller one of the first and the third is the channels.
        """
        _, first, second, third = self.planes
        if (first == second) != (second == third):
            return second == third
        return first < third

    @property
    def size(self) -> tuple[int, int, int]:
        """(S * C, H, W)."""
        stacked, first, second, third = self.planes
        return (stacked * first, second, third) if self.channels_first else (stacked * third, first, second)


def numbers_of(space: spaces.Space, keys: Keys, choices: tuple[int, ...] = (), starts: tuple[int, ...] = ()) -> Numbers:
    """Return the part of an observation with the numbers or choices of a space."""
    values = None if isinstance(space, spaces.Box) else DiscreteValues(space)
    return Numbers(keys, tuple(space.shape or ()), choices, starts, values)


def unseen_images(space: spaces.Space) -> Iterator[str]:
    """Yield the parts of an observation that have the shape or size of images, but count as numbers."""
    for keys, leaf in leaves(space):
        if not isinstance(leaf, spaces.Box | spaces.MultiBinary) or keys == (ACTION_MASK,) or is_image(leaf):
            continue
        of_bytes = isinstance(leaf, spaces.Box) and (leaf.low == 0).all() and (leaf.high == PIXEL_HIGH).all()
        tiny = of_bytes and len(leaf.shape) in (3, 4)
        if tiny or _has_shape_of_image(tuple(leaf.shape), SMALLEST_MATRIX) or math.prod(leaf.shape) >= MANY_COLUMNS:
            yield f"{name_of(keys) or 'the observation'}, {leaf}"


def is_image(space: spaces.Space) -> TypeGuard[spaces.Box]:
    """Return whether a space is of images, by its bounds, its dtype and its shape."""
    if not isinstance(space, spaces.Box):
        return False
    high = float(np.max(space.high, initial=0))
    varies = (space.low != 0).any() or (space.high != high).any()
    white = (1, PIXEL_HIGH, 2**16 - 1) if space.dtype == np.uint16 else (1, PIXEL_HIGH)
    if not _holds_bytes(space) and (varies or high not in white):
        return False
    return _has_shape_of_image(space.shape, SMALLEST_IMAGE if high == PIXEL_HIGH else SMALLEST_MATRIX)


def image_of(space: spaces.Box, keys: Keys) -> Image:
    """Return the part of an observation with the images of a space."""
    return Image(keys, space.shape, float(np.max(space.high)) or 1.0, "uint8" if _holds_bytes(space) else "float32")


def _holds_bytes(space: spaces.Box) -> bool:
    return space.dtype in (np.uint8, np.bool_)


def _has_shape_of_image(shape: tuple[int, ...], smallest_matrix: int) -> bool:
    if len(shape) not in (2, 3, 4):
        return False
    return min(Image((), shape, 1.0).size[1:]) >= (smallest_matrix if len(shape) == 2 else SMALLEST_IMAGE)


def is_single(part: Numbers | Image, array: np.ndarray) -> bool:
    """Return whether an array is a part of a single observation, perhaps flat."""
    if part.shape in (array.shape, array.shape[1:]):
        return array.shape == part.shape
    return array.shape == (math.prod(part.shape),)
