"""The state of an environment as plain values, to save it to a file and restore it.

It works for environments that are Python objects made of numbers, strings, arrays, random generators, collections of
these and other such objects (Gymnasium's classic control and toy text, and its wrappers). For other environments only
the random streams are saved: for simulators that are not written in Python (Box2D, MuJoCo, an emulator), and if an
environment holds one object under two names.
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from types import BuiltinFunctionType, FunctionType
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from AsyncPPO.backends.streams import layers, restore_spaces, space_states
from parallel_rl.utils import State, check_like, whole_number

Snapshot = dict[str, Any]
"""`random`: the random streams of each layer of wrappers. `spaces`: those of its spaces (missing in older snapshots).
`layers`: the attributes of each layer, or None."""
CONSTANT = (gym.Space, EnvSpec, type, FunctionType, BuiltinFunctionType)
"""Attributes of these types are not saved: they stay as the constructor made them."""
ARGUMENTS = "_saved_kwargs"
"""The attribute in which Gymnasium's wrappers store their arguments."""
PARTS = {"random", "spaces", "layers"}
"""The keys of a snapshot."""
LAST_POSITION = {"pos": 624, "buffer_pos": 4}
"""The last position in the buffer of the generators that have one (MT19937, Philox)."""
COLLECTIONS: dict[type, str] = {list: "list", tuple: "tuple", set: "set", deque: "deque"}


class _Empty:
    """An object without state of its own."""


class Unreadable(TypeError):
    """An environment that holds a native object, or one object twice."""


def snapshot(env: gym.Env) -> Snapshot:
    """Return the state of an environment as plain values and arrays."""
    random = [_generators(layer) for layer in layers(env)]
    state: Snapshot = {"random": random, "spaces": space_states(env), "layers": None}
    with suppress(Unreadable):
        reader = _Reader()
        state["layers"] = [reader.described(layer) for layer in layers(env)]
    return state


def restore(env: gym.Env, state: Snapshot, options: dict[str, Any] | None = None) -> None:
    """Restore an environment to `state`, which may have only the random streams.

    Args:
        env: the environment.
        state: the result of `snapshot`.
        options: of the reset before the attributes are set.

    Raises:
        ValueError: the state does not fit; the next episode of the environment is not affected.
    """
    for layer, generators in zip(layers(env), state["random"], strict=True):
        vars(layer).update({name: _generator(numbers) for name, numbers in generators.items()})
    if state["layers"] is not None:
        env.reset(options=options)  # it may create attributes to restore
        for layer, description in zip(layers(env), state["layers"], strict=True):
            _restore_attributes(layer, description)
    if "spaces" in state:
        restore_spaces(env, state["spaces"])


def check_saved(state: State, finished: np.ndarray, obs: np.ndarray) -> None:
    """Check that a state of `EnvVectorizer.state` fits these environments.

    Args:
        state: its `environments` are snapshots, or empty.
        finished: their mask `(N,)`.
        obs: their observations `(N, ...)`.

    Raises:
        ValueError, LookupError, TypeError: it does not fit.
    """
    count = len(finished)
    if len(state["finished"]) != count:
        raise ValueError(f"the saved state is of {len(state['finished'])} environments, not of {count}")
    check_like(state["finished"], finished, "mask of environments")
    check_like(state["obs"], obs, "observations")
    seeds = [whole_number(seed, "seed") for seed in state["next_seeds"]]
    snapshots = [{"spaces", *snapshot} for snapshot in state["environments"]]
    if len(seeds) != count or snapshots not in ([], [PARTS] * count):
        raise ValueError(f"the saved state has no {count} environments and seeds in it")


def _generators(layer: gym.Env) -> dict[str, Any]:
    generators = {name: value for name, value in vars(layer).items() if isinstance(value, np.random.Generator)}
    return {name: generator.bit_generator.state for name, generator in generators.items()}


def _generator(state: dict[str, Any]) -> np.random.Generator:
    kinds = {kind.__name__: kind for kind in np.random.BitGenerator.__subclasses__()}
    generator = np.random.Generator(kinds[state["bit_generator"]]())
    for position, numbers in (("pos", state["state"]), ("buffer_pos", state)):
        if not 0 <= numbers.get(position, 0) <= LAST_POSITION[position]:  # NumPy does not check it
            raise ValueError(f"a random generator cannot be at {numbers[position]}")
    generator.bit_generator.state = state
    return generator


class _Reader:
    """Describes one environment; it records which objects it has seen, since none may occur twice."""

    def __init__(self) -> None:
        self._seen: dict[int, Any] = {}
        self._arrays: list[np.ndarray] = []

    def described(self, thing: Any) -> dict[str, Any]:
        """Return the attributes of an object of a Python class, including those of the objects in it.

        Raises:
            Unreadable: there is something else in it, or in its class.
        """
        if type(thing).__basicsize__ > _Empty.__basicsize__ or not hasattr(thing, "__dict__"):
            raise Unreadable
        self._check_new(thing)
        inner = thing.env if isinstance(thing, gym.Wrapper) else None
        attributes = {}
        for name, value in vars(thing).items():
            if isinstance(value, CONSTANT) or name == ARGUMENTS or (inner is not None and value is inner):
                continue
            if isinstance(value, Enum):
                attributes[name] = {"enum": value.name}
            elif hasattr(value, "__dict__"):
                attributes[name] = self.described(value)
            else:
                attributes[name] = self._plain(value)
        return {"object": type(thing).__qualname__, "attributes": attributes}

    def _check_new(self, thing: Any) -> None:
        if id(thing) in self._seen:
            raise Unreadable
        self._seen[id(thing)] = thing

    def _plain(self, value: Any) -> Any:
        """Return a value in terms of JSON and arrays: collections and generators under the name of their kind.

        Raises:
            Unreadable: there is something else in it.
        """
        kind = type(value)
        if value is None or kind in {bool, int, float, str}:
            return value
        if isinstance(value, np.generic) and value.dtype.kind in "biufU":
            return {"scalar": value.item(), "dtype": value.dtype.str}
        if kind is not tuple:
            self._check_new(value)
        if kind in COLLECTIONS:
            size = {"maxlen": value.maxlen} if kind is deque else {}
            return {COLLECTIONS[kind]: [self._plain(part) for part in value], **size}
        if kind is dict:
            return {"dict": [[self._plain(key), self._plain(part)] for key, part in value.items()]}
        if kind is np.random.Generator:
            return {"generator": value.bit_generator.state}
        return self._plain_array(value)

    def _plain_array(self, value: Any) -> dict[str, Any]:
        if type(value) is not np.ndarray or any(np.may_share_memory(value, other) for other in self._arrays):
            raise Unreadable
        self._arrays.append(value)
        if value.dtype.kind == "S":
            return {"bytes": np.frombuffer(value.tobytes(), np.uint8), "dtype": value.dtype.str, "shape": value.shape}
        if value.dtype.kind in "biuf":
            return {"array": value.copy()}
        raise Unreadable


def _restore_attributes(thing: Any, description: dict[str, Any]) -> None:
    """Set the described attributes of an object; the objects in it keep their identity."""
    own = vars(thing)
    if type(thing).__qualname__ != description["object"]:
        raise ValueError(f"a {description['object']} was saved, and there is a {type(thing).__qualname__}")
    for name, value in description["attributes"].items():
        if isinstance(value, dict) and "object" in value:
            _restore_attributes(own.get(name), value)
        elif not (isinstance(value, dict) and "enum" in value):
            own[name] = _from_plain(value)
        elif value["enum"] in getattr(type(own.get(name)), "__members__", {}):
            own[name] = type(own[name])[value["enum"]]
        else:
            raise ValueError(f"{name} was {value['enum']}")


def _from_plain(value: Any) -> Any:
    """Undo `_Reader._plain`."""
    if not isinstance(value, dict):
        return value
    kind, content = next(iter(value.items()))
    make: dict[str, Callable[[Any], Any]] = {
        "array": np.copy,
        "bytes": lambda array: np.frombuffer(array.tobytes(), value["dtype"]).reshape(value["shape"]),
        "scalar": lambda number: np.dtype(value["dtype"]).type(number),
        "dict": lambda pairs: {_from_plain(key): _from_plain(part) for key, part in pairs},
        "generator": _generator,
        "list": lambda parts: [_from_plain(part) for part in parts],
        "tuple": lambda parts: tuple(_from_plain(part) for part in parts),
        "set": lambda parts: {_from_plain(part) for part in parts},
        "deque": lambda parts: deque((_from_plain(part) for part in parts), value["maxlen"]),
    }
    return make[kind](content)
