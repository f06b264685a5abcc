"""Callables that make environments, from an environment, an id, a spec or a callable."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv

from AsyncPPO.backends import EnvError, EnvFactory, close_env
from AsyncPPO.progress import warn_if_long
from parallel_rl.utils import check_env_id, counted, register_games
from parallel_rl.utils.names import fault_of_call

EnvLike = gym.Env | str | EnvSpec | EnvFactory | VectorEnv | Callable[[int], VectorEnv]
"""An environment, an id, a spec, or a callable that makes one; or N in one object, or a function of N that makes it."""


def number_of_copies(env: Any, num_envs: int | None, default: int, names: tuple[str, str] = ("env", "num_envs")) -> int:
    """Return the number of parallel environments: as given, the length of a list, or the default.

    `names` are those of the first two arguments in an error.

    Raises:
        ValueError: fewer than one, or a list of another length than `num_envs`.
    """
    listed = len(env) if isinstance(env, list | tuple) else env.num_envs if isinstance(env, VectorEnv) else None
    if listed is not None and num_envs not in (None, listed):
        what = "has" if isinstance(env, VectorEnv) else "is a list of"
        raise ValueError(
            f"{names[1]} is {num_envs}, but {names[0]} {what} {listed}: it must have one for each environment"
        )
    number = num_envs if listed is None else listed
    return default if number is None else counted(names[1], number)


def env_factories(env: EnvLike | Sequence[EnvLike], num_envs: int) -> list[EnvFactory]:
    """Return a callable for each of N environments: `env_factory` of `env`, or of each in a list.

    Raises:
        ValueError, TypeError: as `env_factory`.
    """
    if isinstance(env, list | tuple):
        return [env_factory(element) for element in env]
    return [env_factory(env)] * num_envs  # type: ignore[arg-type]


def env_factory(env: EnvLike, /, **kwargs: Any) -> EnvFactory:
    """Return a callable that makes environments like `env`.

    Args:
        env: an environment, its id (with the module that registers it and a colon in front, if needed), its spec, or a
            callable that makes it. The ids of MinAtar, Atari and Gymnasium-Robotics need no module.
        kwargs: of `gymnasium.make`, for an id.

    Raises:
        ValueError: an unknown environment id, for which the message suggests the nearest known one; or its module
            cannot be imported.
        TypeError: not an environment, an id, a spec or a callable; a callable that needs arguments; or an environment
            that can be neither copied nor remade.
    """
    if isinstance(env, str):
        check_env_id(env)
        return partial(_make, env, gym.registry.get(env), **kwargs)
    if isinstance(env, EnvSpec):
        return lambda: gym.make(env, disable_env_checker=True)
    if isinstance(env, gym.Env):
        original: gym.Env = env
        try:
            copy.deepcopy(original)
        except Exception as error:
            spec = original.spec
            if spec is None:
                raise TypeError(
                    f"{original} can neither be copied ({error}) nor made from a spec: pass a callable that makes it"
                ) from error
            return lambda: gym.make(spec, disable_env_checker=True)
        return lambda: copy.deepcopy(original)
    if callable(env):
        if fault := fault_of_call(env):
            raise TypeError(
                f"a callable that makes an environment is called without arguments, but this one is {fault}; if it "
                "makes a VectorEnv, call its argument num_envs"
            )
        return env  # type: ignore[return-value]
    raise TypeError(f"env must be an environment, an id, an EnvSpec or a callable that makes one, not {env!r}")


def make_env(factory: EnvFactory) -> gym.Env:
    """Make one environment.

    Raises:
        EnvError: it could not be made.
        TypeError: what was made is not an environment.
    """
    try:
        with warn_if_long(lambda: "the first environment to be made"):
            env = factory()
    except (Exception, SystemExit) as error:
        raise EnvError.unmade(0, error) from error
    if isinstance(env, VectorEnv):
        raise TypeError("the callable made a VectorEnv: pass that itself, or a function of `num_envs` that makes it")
    if not isinstance(env, gym.Env):
        raise TypeError(f"the callable that makes environments returned {env!r}, which is not a gymnasium.Env")
    return env


def like(env: gym.Env, factory: EnvFactory) -> EnvFactory:
    """Return a callable that makes what `factory` makes, and checks that its spaces are those of `env`."""
    return partial(_make_like, factory, env.observation_space, env.action_space)


@contextmanager
def sample_env(factory: EnvFactory) -> Iterator[gym.Env]:
    """Make one environment to read its spaces, and close it; a failure to close is logged.

    Raises:
        EnvError: it could not be made.
        TypeError: what was made is not an environment.
    """
    env = make_env(factory)
    try:
        yield env
    finally:
        close_env(0, env)


def _make_like(factory: EnvFactory, observation_space: gym.Space, action_space: gym.Space) -> gym.Env:
    env = factory()
    for name, first in (("observation", observation_space), ("action", action_space)):
        space = getattr(env, f"{name}_space")
        if space != first:
            raise ValueError(f"its {name} space is {space}, but the first environment's is {first}")
    return env


def _make(env_id: str, spec: EnvSpec | None, /, **kwargs: Any) -> gym.Env:
    """Make an environment; a process that is not a fork may lack what its parent has registered."""
    register_games(env_id)
    registered = spec is None or env_id in gym.registry
    return gym.make(env_id if registered else spec, **{"disable_env_checker": True, **kwargs})  # type: ignore[arg-type]
