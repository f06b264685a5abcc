"""The random streams of an environment's spaces, from which it may sample as well as from `np_random`."""

import copy
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import gymnasium as gym
from gymnasium import spaces

from parallel_rl.utils import spawn_seeds

NAMES = ("observation_space", "action_space")
ENTROPY = 2**64
"""No seed that somebody chose is as large: Gymnasium's own, of a generator that got none, have 128 bits."""


def layers(env: gym.Env) -> Iterator[gym.Env]:
    """Yield the wrappers of an environment, then the environment itself."""
    while isinstance(env, gym.Wrapper):
        yield env
        env = env.env
    yield env


def own_spaces(env: gym.Env, others: set[int]) -> None:
    """Replace the spaces of an environment that it shares with its class or with other environments by copies.

    Args:
        env: the environment.
        others: identities of the spaces of other environments; those of this one are added.
    """
    copies: dict[int, gym.Space] = {}
    for layer, name, space in list(_named_spaces(env)):
        if id(space) in others or space is getattr(type(layer), name, None):
            own = copies.setdefault(id(space), copy.deepcopy(space))
            with suppress(AttributeError):  # a property, which makes a new one every time
                setattr(layer, name, own)
    others.update(id(space) for *_, space in _named_spaces(env))


def seed_spaces(env: gym.Env, seed: int) -> None:
    """Seed all spaces of an environment and its wrappers."""
    every_space = _spaces(env)
    for space, number in zip(every_space, spawn_seeds(seed, len(every_space)), strict=True):
        space.seed(number)


def warn_if_unseeded(env: gym.Env, seed: int) -> None:
    """Warn if an environment, after a reset with a seed, has its random numbers from a generator with fresh entropy."""
    own = getattr(env.unwrapped, "_np_random_seed", None)
    if isinstance(own, int) and own != seed and own >= ENTROPY:
        warnings.warn(
            f"{type(env.unwrapped).__name__}.reset does not call super().reset(seed=seed): random numbers of its "
            "np_random do not follow from the seed, so a run that uses them cannot be repeated",
            RuntimeWarning,
            stacklevel=2,
        )


def space_states(env: gym.Env) -> list[dict[str, Any]]:
    """Return the states of the spaces' random streams."""
    return [dict(part.np_random.bit_generator.state) for space in _spaces(env) for part in _parts(space)]


def restore_spaces(env: gym.Env, states: list[dict[str, Any]]) -> None:
    """Restore the streams of the spaces.

    Raises:
        ValueError: the number of spaces differs.
    """
    parts = [part for space in _spaces(env) for part in _parts(space)]
    for part, state in zip(parts, states, strict=True):
        part.np_random.bit_generator.state = state


def _named_spaces(env: gym.Env) -> Iterator[tuple[gym.Env, str, gym.Space]]:
    for layer in layers(env):
        for name in NAMES:
            # a wrapper that changes no space has none of its own; vars() is avoided, since it makes attributes slower
            space = getattr(layer, f"_{name}" if isinstance(layer, gym.Wrapper) else name, None)
            if isinstance(space, gym.Space):
                yield layer, name, space


def _spaces(env: gym.Env) -> list[gym.Space]:
    """Return the spaces of all layers, each once."""
    return [*{id(space): space for *_, space in _named_spaces(env)}.values()]


def _parts(space: gym.Space) -> Iterator[gym.Space]:
    yield space
    if isinstance(space, spaces.Dict | spaces.Tuple):
        for part in space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces:
            yield from _parts(part)
