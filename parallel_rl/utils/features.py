"""Features: observations of any space as rows of numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from gymnasium import spaces

from parallel_rl.utils.counts import rows_in_words
from parallel_rl.utils.parts import ACTION_MASK, Image, Numbers, image_of, is_image, is_single, numbers_of
from parallel_rl.utils.spaces import choices_of, leaves, location, name_of, part_of

Array = TypeVar("Array", bound=Any)  # an array, or a tensor
FORBIDDEN = -1e8
"""The logit of a masked action: its probability is 0, and unlike an infinity it leads to no NaN."""


@dataclass(frozen=True)
class Features:
    """Converts observations to rows of numbers: first the vector, then the images, then the action mask.

    Two converters that give the same rows are equal.
    """

    numbers: tuple[Numbers, ...]
    images: tuple[Image, ...]
    mask: Numbers | None = None

    @classmethod
    def of(cls, space: spaces.Space) -> "Features":
        """Make the converter of an observation space.

        A Box is an image if it has the shape of one (see `Image`) and holds uint8, bool, or another type with bounds 0
        and 1, 0 and 255, or (uint16) 0 and 65535.

        Raises:
            TypeError: a space whose elements are not arrays of one shape, or are empty.
        """
        numbers, images, mask = [], [], None
        for keys, leaf in leaves(space):
            if not math.prod(leaf.shape or ()):
                raise TypeError(f"the observation space {leaf}{location(keys)} is not supported: it has no elements")
            if keys[:1] == (ACTION_MASK,) and len(keys) > 1:
                raise TypeError(
                    f"{ACTION_MASK} of {space} must be one array: the masks of all choices one after the other"
                )
            if keys == (ACTION_MASK,):
                mask = numbers_of(leaf, keys)
            elif is_image(leaf):
                images.append(image_of(leaf, keys))
            elif isinstance(leaf, spaces.Discrete | spaces.MultiDiscrete):
                numbers.append(numbers_of(leaf, keys, *zip(*choices_of(leaf), strict=True)))
            else:
                numbers.append(numbers_of(leaf, keys))
        if not numbers and not images:
            raise TypeError(f"the observation space {space} is not supported: it has no elements")
        return cls(tuple(numbers), tuple(images), mask)

    @property
    def vector(self) -> int:
        """The number of columns of plain numbers, which come first."""
        return sum(part.columns for part in self.numbers)

    @property
    def columns(self) -> int:
        """The number of columns that networks get: all but those of the mask."""
        return self.vector + sum(image.columns for image in self.images)

    @property
    def width(self) -> int:
        """The number of columns of a row."""
        return self.columns + (self.mask.columns if self.mask else 0)

    def split(self, rows: Array) -> tuple[Array, Array | None]:
        """Return the columns of rows `(B, width)` that networks get, and the action mask if there is one."""
        return (rows, None) if self.mask is None else (rows[:, : self.columns], rows[:, self.columns :])

    def parts(self, columns: Array) -> dict[str, Array]:
        """Return the parts of observations by their keys, for an encoder of your own: `parts(columns)["camera"]`.

        The keys of a nested part are joined by dots, and the parts of a Tuple are "0", "1" and so on.

        Args:
            columns: `(B, columns)`, as an encoder gets them.

        Returns:
            `(B, k)` for numbers and one-hot codes, and `(B, *shape)` for images.
        """
        inputs: list[Numbers | Image] = [*self.numbers, *self.images]
        parts, start = {}, 0
        for part in inputs:
            own = columns[:, start : start + part.columns]
            parts[name_of(part.keys)] = own.reshape(len(own), *part.shape) if isinstance(part, Image) else own
            start += part.columns
        return parts

    def check_mask(self, rows: np.ndarray, first_choices: Sequence[int] | np.ndarray = (0,)) -> None:
        """Check that the mask, if there is one, allows a choice of each discrete action in each row.

        Args:
            rows: `(B, width)`.
            first_choices: `(K,)`, the column of the first choice of each of K actions.

        Raises:
            ValueError: a row allows no action.
        """
        _, mask = self.split(rows)
        if mask is not None and not (allowed := np.logical_or.reduceat(mask > 0, first_choices, axis=1)).all():
            raise ValueError(f"no action is allowed in {rows_in_words(~allowed.all(axis=1))}")

    def check_mask_size(self, choices: int, action_space: spaces.Space) -> None:
        """Check that the mask, if there is one, has an entry for each of the `choices` of an action space.

        Raises:
            ValueError: it has more or fewer.
        """
        if self.mask is not None and self.mask.columns != choices:
            raise ValueError(
                f"the action mask has {self.mask.columns} entries, but {action_space} has {choices} choices"
            )

    def fit(self, space: spaces.Space) -> bool:
        """Return whether observations of a space can be converted; plain numbers may also be flat."""
        other = Features.of(space)
        if other == self or other.columns != self.columns or other._plain is None or self._plain is None:
            return other == self
        return 1 in (len(other._plain.shape), len(self._plain.shape))

    def rows(self, states: Any) -> tuple[np.ndarray, bool]:
        """Convert observations to rows of numbers; also return whether there was a single observation.

        Args:
            states: one element of the space or several: an array `(M, ...)`, a structured one, or a dict or tuple of
                arrays `(M, ...)`. Each may also be flat. M elements of a flat Box of numbers may have any shape.

        Returns:
            `(M, width)`; uint8 if all columns are pixels of bytes, else float32.

        Raises:
            ValueError: the states have another shape, or values that are not in the space (pixels, choices), or are
                what `reset` or `step` of an environment returns.
        """
        if isinstance(states, tuple) and states and isinstance(states[-1], dict) and not self._ends_with_dict(states):
            raise ValueError("the states are what reset or step returns: obs, info = env.reset()")
        try:
            arrays = [np.asarray(part_of(states, part.keys)) for part in self._parts]
        except (LookupError, TypeError, ValueError) as error:
            named = ", ".join(name_of(part.keys) for part in self._parts)
            due = f"have the parts {named}" if named else "be an array of numbers"
            raise ValueError(f"the states must {due}: {error!r}") from None
        single = is_single(self._parts[0], arrays[0])
        lead = () if single else arrays[0].shape[:1]
        for index, (part, array) in enumerate(zip(self._parts, arrays, strict=True)):
            if array.shape != (*lead, *part.shape) or lead == (0,):
                self._check_shape(part, array, lead)
            arrays[index] = array.reshape(1 if single else len(array), -1)
            if fault := part.fault(arrays[index]):
                raise ValueError(f"{_states(part)} {fault}")
        return self._join(arrays), single

    def flatten(self, rows: np.ndarray) -> np.ndarray:
        """Convert rows of the space `(M, ...)` to `(M, width)`, without checks."""
        return self._join([part_of(rows, part.keys).reshape(len(rows), -1) for part in self._parts])

    def _check_shape(self, part: Numbers | Image, array: np.ndarray, lead: tuple[int, ...]) -> None:
        """Check the shape of a part of a single observation, where `lead` is (), or of M observations, `(M,)`."""
        shape, size = array.shape[len(lead) :], math.prod(part.shape)
        any_shape = lead and part is self._plain and len(part.shape) == 1
        fits = shape == part.shape or (math.prod(shape) == size and (len(shape) == 1 or any_shape))
        if array.shape[: len(lead)] != lead or not fits:
            several = str(("M", *part.shape)).replace("'", "")
            raise ValueError(
                f"{_states(part)} have shape {array.shape}, but the agent takes {part.shape}, or {several} for M states"
            )
        if lead == (0,):
            raise ValueError(f"there are no states: {_states(part)} have shape {array.shape}")

    @cached_property
    def _plain(self) -> Numbers | None:
        """The numbers of a Box or a MultiBinary, if observations have no other parts."""
        (first, *others), numbers = self._parts, self.numbers
        return numbers[0] if numbers and not (others or first.keys or numbers[0].choices) else None

    def _ends_with_dict(self, states: tuple[Any, ...]) -> bool:
        """Return whether observations are tuples whose last part, as that of `states`, is a dict."""
        return any(part.keys[:1] == (len(states) - 1,) and len(part.keys) > 1 for part in self._parts)

    @cached_property
    def _parts(self) -> list[Numbers | Image]:
        return [*self.numbers, *self.images, *([self.mask] if self.mask else [])]

    def _join(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        columns = [part.flatten(array) for part, array in zip(self._parts, arrays, strict=True)]
        if len(columns) == 1:
            return columns[0]
        return np.concatenate([part.astype(np.float32, copy=False) for part in columns], axis=1)


def why_nan(rows: np.ndarray, weights: Mapping[str, Any]) -> str:
    """Return why actions for rows `(N, width)` are NaN: the rows or the tensors of weights are, or neither."""
    wrong = ~np.isfinite(rows).all(axis=1)
    if wrong.any():
        return f"the observation is NaN or infinite in {rows_in_words(wrong)}"
    finite = all(tensor.isfinite().all() for tensor in weights.values())
    why = "and so are the weights: the encoder or the actor_critic makes it" if finite else "the weights are not"
    return f"the action is NaN, though the observations are finite: {why}"


def _states(part: Numbers | Image) -> str:
    return f"the states of {name_of(part.keys)}" if part.keys else "the states"
