"""Which backend steps a given environment: what goes together, and what is the fastest."""

import math
import os
from statistics import median
from time import perf_counter
from typing import Any, Literal

import gymnasium as gym
import numpy as np

from AsyncPPO.backends.children import choose_start_method

BackendName = Literal["auto", "inline", "process", "vector"]
OnEnvError = Literal["raise", "restart"]

WAKE_SECONDS = 5e-6
"""What a vector step costs in worker processes beyond what it costs in one, measured on two cores: telling them to step
and waiting for the last one."""
TRIAL_SECONDS, TRIAL_STEPS = 0.1, 500
"""How long a trial of an environment's speed may take, at most."""


def available_cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_backend(
    env: gym.Env,
    num_envs: int,
    num_workers: int,
    steps: int = 1,
    seed: int | None = 0,
    options: dict[str, Any] | None = None,
) -> tuple[BackendName, str]:
    """Time a few real steps of `env` and pick the backend that should be faster; say why.

    Args:
        env: one of them; it is reset.
        num_envs: how many there will be.
        num_workers: how many processes there may be.
        steps: vector steps from one meeting of the processes to the next.
        seed: of its first reset.
        options: of its resets.

    Returns:
        The backend's name, and a sentence with the measurement behind it.
    """
    workers = min(num_workers, num_envs)
    seconds = _seconds_per_step(env, seed, options)
    inline = num_envs * seconds
    process = -(-num_envs // workers) * seconds + WAKE_SECONDS / steps
    name: BackendName = "process" if workers > 1 and process < inline else "inline"
    return name, (
        f"a step takes {seconds * 1e6:.0f} us, so {num_envs} environments should take {inline * 1e6:.0f} us in one "
        f"process and {process * 1e6:.0f} us in {workers} workers"
    )


def _seconds_per_step(env: gym.Env, seed: int | None, options: dict[str, Any] | None) -> float:
    """Return what a step takes on average: the median of five means, since a pause of the machine's spoils only one."""
    env.action_space.seed(0)
    env.reset(seed=seed, options=options)
    seconds: list[float] = []
    deadline = perf_counter() + TRIAL_SECONDS
    while len(seconds) < TRIAL_STEPS and perf_counter() < deadline:
        action = env.action_space.sample()
        start = perf_counter()
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset(options=options)
        seconds.append(perf_counter() - start)
    return median(part.mean() for part in np.array_split(seconds, min(5, len(seconds))))


def check_ways(
    backend: str,
    asynchronous: bool,
    on_env_error: str,
    step_timeout: float | None,
    close_timeout: float,
    start_method: str | None,
) -> None:
    """Check that ways of stepping are known and go together.

    Raises:
        ValueError: they do not.
    """
    if backend not in ("auto", "inline", "process", "vector"):
        raise ValueError(f"backend must be 'auto', 'inline', 'process' or 'vector', not {backend!r}")
    if on_env_error not in ("raise", "restart"):
        raise ValueError(f"on_env_error must be 'raise' or 'restart', not {on_env_error!r}")
    if step_timeout is not None and not 0 < step_timeout < math.inf:
        raise ValueError(f"step_timeout must be positive and finite, not {step_timeout}")
    choose_start_method(start_method)
    if not 0 <= close_timeout < math.inf:
        raise ValueError(f"close_timeout must be finite and not negative, not {close_timeout}")
    if asynchronous and backend in ("inline", "vector"):
        raise ValueError(f"the {backend} backend steps when the caller waits for it: it cannot be asynchronous")
    if step_timeout is not None and backend in ("inline", "vector"):
        raise ValueError(f"step_timeout needs worker processes: the {backend} backend would hang itself")
    if on_env_error == "restart" and (backend == "vector" or asynchronous):
        what = "asynchronous environments" if asynchronous else "the vector backend"
        raise ValueError(f"on_env_error='restart' does not go with {what}")
