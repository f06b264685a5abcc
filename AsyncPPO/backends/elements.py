"""Checked conversion of elements of spaces into rows: no rounding, no overflow, only existing choices."""

import math
from collections.abc import Callable
from operator import index as whole
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from AsyncPPO.backends.base import EnvError
from parallel_rl.utils import COMPOSITE, leaves, name_of, row_type, rows_of, split_parts
from parallel_rl.utils.spaces import DiscreteValues, whole_numbers

WriteObs = Callable[[int, Any], None]
"""Write an observation into the row of environment `index`."""


def misfit(numbers: np.ndarray, dtype: np.dtype) -> str | None:
    """Return what is wrong with numbers if converting them to `dtype` would change one; otherwise None.

    Neither fractions nor numbers that are too large may become whole numbers.
    """
    given, wanted = numbers.dtype.kind, dtype.kind
    if given not in "biu" and not given == wanted == "f":
        return f"type {numbers.dtype}"
    if wanted != "f" and _wraps(numbers, dtype):
        return f"whole numbers from {numbers.min()} to {numbers.max()}" if numbers.ndim else str(numbers)
    return None


def _wraps(numbers: Any, dtype: np.dtype) -> bool:
    """Return whether converting whole numbers to `dtype` changes one."""
    if np.can_cast(numbers.dtype, dtype) or not numbers.size:
        return False
    least, largest = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return int(numbers.min()) < least or int(numbers.max()) > largest


def observation_writer(space: gym.Space, rows: np.ndarray, first: int) -> WriteObs:
    """Return a function that writes observations of environments `first`, `first + 1`, ... into `rows` `(n, ...)`."""
    return _writer(space, rows, first, "")


def _writer(space: gym.Space, rows: np.ndarray, first: int, where: str) -> WriteObs:
    parts: Any = None
    if isinstance(space, spaces.Dict):
        parts = space.spaces.items()
    elif isinstance(space, spaces.Tuple):
        parts = enumerate(space.spaces)
    if parts is not None:
        writers = {key: _writer(part, rows[str(key)], first, f"{where} {key!r}") for key, part in parts}
        return _PartsWriter(writers).write
    if isinstance(space, spaces.Discrete):
        return _ChoiceWriter(space, rows, first, where).write
    return _Writer(space, rows, first, where).write


class _PartsWriter:
    """Writes each part of an element of a Dict or a Tuple."""

    def __init__(self, writers: dict[Any, WriteObs]) -> None:
        self._writers = list(writers.items())

    def write(self, index: int, obs: Any) -> None:
        for key, write in self._writers:
            try:
                part = obs[key]
            except (LookupError, TypeError, ValueError) as error:
                raise EnvError(f"environment {index} returned an observation without {str(key)!r}") from error
            write(index, part)


class _Writer:
    """Writes elements of a space without parts."""

    def __init__(self, space: gym.Space, rows: np.ndarray, first: int, where: str) -> None:
        self._space, self._rows, self._first, self._where = space, rows, first, where
        self._shape, self._dtype = rows.shape[1:], rows.dtype
        self._choices = None if isinstance(space, spaces.Box) else DiscreteValues(space)

    def write(self, index: int, obs: Any) -> None:
        if not isinstance(obs, np.ndarray):
            try:
                obs = np.asarray(obs)
            except ValueError as error:
                raise EnvError(f"environment {index} returned an observation that is not an array: {error}") from error
        if obs.shape != self._shape:
            raise self._misfit(index, f"an observation of shape {obs.shape}", str(self._shape))
        if obs.dtype is not self._dtype and (fault := misfit(obs, self._dtype)):
            wanted = self._dtype if fault.startswith("type") else self._space
            raise self._misfit(index, f"an observation of {fault}", str(wanted))
        if self._choices is not None and not self._choices.have(obs):
            raise self._misfit(index, f"the observation {obs}", str(self._space))
        self._rows[index - self._first] = obs

    def _misfit(self, index: int, what: str, wanted: str) -> EnvError:
        part = f" for{self._where}" if self._where else ""
        return EnvError(f"environment {index} returned {what}; its space says {wanted}{part}")


class _ChoiceWriter(_Writer):
    """Writes elements of a Discrete, which usually are not arrays."""

    def __init__(self, space: spaces.Discrete, rows: np.ndarray, first: int, where: str) -> None:
        super().__init__(space, rows, first, where)
        self._least, self._largest = int(space.start), int(space.start + space.n) - 1

    def write(self, index: int, obs: Any) -> None:
        try:
            number = whole(obs)
        except TypeError:
            super().write(index, obs)
            return
        if not self._least <= number <= self._largest:
            raise self._misfit(index, f"the observation {number}", str(self._space))
        self._rows[index - self._first] = number


class Actions:
    """Checks actions and converts them to rows."""

    def __init__(self, space: gym.Space, name: str = "") -> None:
        """Store the space of the actions; for a part of a Dict or Tuple, `name` is the part's name."""
        self._space, (self._shape, self._dtype) = space, row_type(space)
        self._where = f" for {name}" if name else ""
        parts = leaves(space) if isinstance(space, COMPOSITE) else ()
        self._parts = [Actions(part, name_of(keys)) for keys, part in parts]
        self._choices = None if self._parts or isinstance(space, spaces.Box) else DiscreteValues(space)
        self._range = None
        if isinstance(space, spaces.Discrete):
            self._range = range(int(space.start), int(space.start + space.n))

    def rows(self, env_ids: np.ndarray, actions: Any) -> np.ndarray:
        """Return actions for environments `(n,)`, in any form that `EnvVectorizer.step` takes, as rows `(n, ...)`.

        Raises:
            ValueError: the number or shape of the actions is wrong, or `check` raises it.
        """
        if self._dtype.names is not None:
            actions = rows_of(self._space, actions, len(env_ids))
        actions = np.asarray(actions)
        if actions.ndim == 2 and actions.shape[1:] == (math.prod(self._shape),):
            actions = actions.reshape(len(actions), *self._shape)
        if actions.shape != (len(env_ids), *self._shape):
            raise ValueError(
                f"actions have shape {actions.shape}, but {len(env_ids)} environments are running, each with an action "
                f"of shape {self._shape}"
            )
        self.check(env_ids, actions)
        return actions

    def check(self, env_ids: np.ndarray, actions: np.ndarray) -> None:
        """Check actions `(n, ...)` for environments `(n,)`.

        Raises:
            ValueError: an action is not finite, not a whole number where the space needs one, or not one of the
                choices; the message names its environment. Actions outside the bounds of a Box are allowed.
        """
        if self._parts:
            for part, rows in zip(self._parts, split_parts(self._space, actions), strict=True):
                part.check(env_ids, rows)
            return
        if self._range is not None and actions.dtype is self._dtype:  # the usual case, without NumPy's overhead
            numbers = actions.tolist()
            if min(numbers) in self._range and max(numbers) in self._range:
                return
        elif self._fit(actions):
            return
        for env_id, action in zip(env_ids.tolist(), map(np.asarray, actions), strict=True):
            if not self._fit(action):
                what = f"the action {action.tolist()}{self._where}"
                raise ValueError(f"environment {env_id} cannot take {what}: its space is {self._space}")

    def _fit(self, actions: Any) -> bool:
        if actions.dtype.kind == "f":
            if self._dtype.kind == "f":
                if actions.dtype is not self._dtype:
                    with np.errstate(over="ignore"):
                        actions = actions.astype(self._dtype)  # too large a number becomes infinite
                return math.isfinite(np.vdot(actions, actions)) or bool(np.isfinite(actions).all())
            actions = whole_numbers(actions)
            if actions is None:
                return False
        elif actions.dtype.kind not in "biu":
            return False
        if self._choices is not None:
            return self._choices.have(actions)
        return self._dtype.kind == "f" or not _wraps(actions, self._dtype)
