"""What an environment consists of, as plain values, so that it can be kept in a file and go on from there.

It works for environments that are Python objects made of numbers, strings, arrays, random generators, collections of
such and other such objects (Gymnasium's classic control and toy text, and its wrappers). A simulator that is not
written in Python (Box2D, MuJoCo, an emulator) cannot be read this way; of those only the random streams are kept.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import BuiltinFunctionType, FunctionType
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

Snapshot = dict[str, Any]
"""`random`: the random streams of each layer of wrappers; `layers`: each with all its attributes, or None."""
CONSTANT = (gym.Space, EnvSpec, type, FunctionType, BuiltinFunctionType)
"""Attributes of these types stay as they are made."""
ARGUMENTS = "_saved_kwargs"
"""Where Gymnasium's wrappers keep what they were made with."""
COLLECTIONS: dict[type, str] = {list: "list", tuple: "tuple", set: "set", deque: "deque"}


class _Empty:
    """What an object without anything of its own is like."""


class Unreadable(TypeError):
    """An environment that holds a foreign object."""


def snapshot(env: gym.Env) -> Snapshot:
    """Return what an environment consists of, in plain values and arrays."""
    state: Snapshot = {"random": [_generators(layer) for layer in _layers(env)], "layers": None}
    with suppress(Unreadable, RecursionError):
        state["layers"] = [_described(layer) for layer in _layers(env)]
    return state


def restore(env: gym.Env, state: Snapshot) -> None:
    """Make an environment what `state` says; one that could not be read gets its random streams back.

    Raises:
        ValueError: the state is that of another kind of environment.
    """
    layers = list(_layers(env))
    if state["layers"] is None:
        for layer, generators in zip(layers, state["random"], strict=True):
            vars(layer).update({name: _generator(numbers) for name, numbers in generators.items()})
        return
    kinds = [type(layer).__qualname__ for layer in layers]
    saved = [layer["object"] for layer in state["layers"]]
    if kinds != saved:
        raise ValueError(f"the saved environment is made of {' around '.join(saved)}, not of {' around '.join(kinds)}")
    for layer, description in zip(layers, state["layers"], strict=True):
        _put_back(layer, description)


def _layers(env: gym.Env) -> Iterator[gym.Env]:
    """Go through wrappers to the environment itself."""
    while isinstance(env, gym.Wrapper):
        yield env
        env = env.env
    yield env


def _described(thing: Any) -> dict[str, Any]:
    """Return the attributes of an object of a Python class, those of the objects that it has among them.

    Raises:
        Unreadable: there is something else in it, or in its class.
    """
    if type(thing).__basicsize__ > _Empty.__basicsize__ or not hasattr(thing, "__dict__"):
        raise Unreadable
    inner = thing.env if isinstance(thing, gym.Wrapper) else None
    attributes = {}
    for name, value in vars(thing).items():
        if isinstance(value, CONSTANT) or name == ARGUMENTS or (inner is not None and value is inner):
            continue
        try:
            attributes[name] = _plain(value)
        except Unreadable:
            attributes[name] = _described(value)
    return {"object": type(thing).__qualname__, "attributes": attributes}


def _put_back(thing: Any, description: dict[str, Any]) -> None:
    """Give an object the attributes that `_described` found; the objects that it has stay the same ones."""
    own = vars(thing)
    for name, value in description["attributes"].items():
        if not (isinstance(value, dict) and "object" in value):
            own[name] = _unplain(value)
        elif type(own.get(name)).__qualname__ == value["object"]:
            _put_back(own[name], value)
        else:
            raise ValueError(f"{name} of {description['object']} was a {value['object']}")


def _generators(layer: gym.Env) -> dict[str, Any]:
    generators = {name: value for name, value in vars(layer).items() if isinstance(value, np.random.Generator)}
    return {name: generator.bit_generator.state for name, generator in generators.items()}


def _generator(state: dict[str, Any]) -> np.random.Generator:
    kinds = {kind.__name__: kind for kind in np.random.BitGenerator.__subclasses__()}
    generator = np.random.Generator(kinds[state["bit_generator"]]())
    generator.bit_generator.state = state
    return generator


def _plain(value: Any) -> Any:
    """Return a value as JSON and arrays know it: collections and generators under the name of their kind.

    Raises:
        Unreadable: there is something else in it.
    """
    kind = type(value)
    if value is None or kind in {bool, int, float, str}:
        return value
    if isinstance(value, np.ndarray | np.generic):
        return _plain_array(value)
    if kind in COLLECTIONS:
        size = {"maxlen": value.maxlen} if kind is deque else {}
        return {COLLECTIONS[kind]: [_plain(part) for part in value], **size}
    if kind is dict:
        return {"dict": [[_plain(key), _plain(part)] for key, part in value.items()]}
    if kind is np.random.Generator:
        return {"generator": value.bit_generator.state}
    raise Unreadable


def _plain_array(value: np.ndarray | np.generic) -> dict[str, Any]:
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        return {"scalar": value.item(), "dtype": value.dtype.str}
    if type(value) is np.ndarray and value.dtype.kind in "biuf":
        return {"array": value.copy()}
    if type(value) is np.ndarray and value.dtype.kind == "S":
        return {"bytes": np.frombuffer(value.tobytes(), np.uint8), "dtype": value.dtype.str, "shape": value.shape}
    raise Unreadable


def _unplain(value: Any) -> Any:
    """Undo `_plain`."""
    if not isinstance(value, dict):
        return value
    kind, content = next(iter(value.items()))
    make: dict[str, Callable[[Any], Any]] = {
        "array": np.copy,
        "bytes": lambda array: np.frombuffer(array.tobytes(), value["dtype"]).reshape(value["shape"]),
        "scalar": lambda number: np.dtype(value["dtype"]).type(number),
        "dict": lambda pairs: {_unplain(key): _unplain(part) for key, part in pairs},
        "generator": _generator,
        "list": lambda parts: [_unplain(part) for part in parts],
        "tuple": lambda parts: tuple(_unplain(part) for part in parts),
        "set": lambda parts: {_unplain(part) for part in parts},
        "deque": lambda parts: deque((_unplain(part) for part in parts), value["maxlen"]),
    }
    return make[kind](content)
