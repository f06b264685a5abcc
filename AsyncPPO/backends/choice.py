"""The choice of a backend: a trial of which one is the fastest."""

import copy
import math
import os
from collections.abc import Callable, Iterator
from statistics import median
from time import perf_counter
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from parallel_rl.utils import ACTION_MASK, choices_of, global_streams_kept

BackendName = Literal["auto", "inline", "process", "vector"]
OnEnvError = Literal["raise", "restart"]

WAKE_SECONDS = 5e-6
"""Overhead of worker processes in a vector step, in seconds, measured on two cores."""
TRIAL_SECONDS, TRIAL_STEPS = 0.1, 500
"""Limits on the trial of an environment's speed."""


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_backend(
    env: gym.Env,
    num_envs: int,
    num_workers: int,
    steps: int = 1,
    seed: int | None = 0,
    options: dict[str, Any] | None = None,
) -> tuple[BackendName, str]:
    """Time a few steps of `env`; return the backend that should be faster, and the reason.

    Args:
        env: one of the environments; it is reset.
        num_envs: their number.
        num_workers: the largest number of processes.
        steps: vector steps between two synchronizations of the processes.
        seed: of its first reset.
        options: of its resets.

    Returns:
        The backend's name, and a sentence with the measurement. If the trial fails, the backend is `process`: a wrong
        choice of workers costs less for a cheap environment than a wrong choice of one process for an expensive one.
    """
    workers = min(num_workers, num_envs)
    try:
        with global_streams_kept():
            seconds = _seconds_per_step(env, seed, options)
    except (Exception, SystemExit) as error:
        backend: BackendName = "process" if workers > 1 else "inline"
        return backend, f"its speed is not known, since a trial failed ({type(error).__name__}: {error})"
    inline = num_envs * seconds
    process = -(-num_envs // workers) * seconds + WAKE_SECONDS / steps
    name: BackendName = "process" if workers > 1 and process < inline else "inline"
    return name, (
        f"a step takes {seconds * 1e6:.0f} us, so {num_envs} environments should take {inline * 1e6:.0f} us in one "
        f"process and at best {process * 1e6:.0f} us in {workers} worker{'s' if workers > 1 else ''}"
    )


def _seconds_per_step(env: gym.Env, seed: int | None, options: dict[str, Any] | None) -> float:
    """Return the duration of a step: the median of five means, so that a pause of the machine does not count."""
    sample = _sampler(env)
    obs, info = env.reset(seed=seed, options=options)
    seconds: list[float] = []
    deadline = perf_counter() + TRIAL_SECONDS
    while len(seconds) < TRIAL_STEPS and perf_counter() < deadline:
        action = sample(obs, info)
        start = perf_counter()
        obs, _, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            obs, info = env.reset(options=options)
        seconds.append(perf_counter() - start)
    return median(part.mean() for part in np.array_split(seconds, min(5, len(seconds))))


def _sampler(env: gym.Env) -> Callable[[Any, Any], Any]:
    """Return a function that samples an allowed action, given an observation and an info."""
    space, rng = copy.deepcopy(env.action_space), np.random.default_rng(0)
    space.seed(0)
    choices = [] if isinstance(space, spaces.Box) else choices_of(space)

    def sample(obs: Any, info: Any) -> Any:
        mask = _mask(env, obs, info) if choices else None
        if mask is None or mask.size != sum(count for count, _ in choices):
            return space.sample()
        parts = np.split(mask.flatten(), np.cumsum([count for count, _ in choices])[:-1])
        draws = (
            first + rng.choice(np.flatnonzero(allowed)) for allowed, (_, first) in zip(parts, choices, strict=True)
        )
        return _element(space, draws)

    return sample


def _mask(env: gym.Env, obs: Any, info: Any) -> np.ndarray | None:
    """Return the mask of allowed actions, if there is one, in the form of `ActionMasks`."""
    if isinstance(env.observation_space, spaces.Dict) and ACTION_MASK in env.observation_space.spaces:
        return np.asarray(obs[ACTION_MASK])
    if env.has_wrapper_attr("action_masks"):
        return np.asarray(env.get_wrapper_attr("action_masks")())
    return np.asarray(info[ACTION_MASK]) if ACTION_MASK in info else None


def _element(space: gym.Space, draws: Iterator[Any]) -> Any:
    """Return an element of a space with the sampled choices, in their order, and random numbers elsewhere."""
    if isinstance(space, spaces.Dict):
        return {name: _element(part, draws) for name, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_element(part, draws) for part in space.spaces)
    if isinstance(space, spaces.Box):
        return space.sample()
    shape = space.shape or ()
    return np.array([next(draws) for _ in range(math.prod(shape))], space.dtype).reshape(shape)[()]
