"""How environments are stepped, and which way is the fastest for a given one."""

import time
from typing import Literal

import gymnasium as gym

from AsyncPPO.backends.base import (
    Backend,
    Care,
    EnvError,
    EnvFactory,
    Infos,
    Layout,
    Plan,
    Replica,
    available_cores,
    check_finite,
)
from AsyncPPO.backends.block import ENV_ERROR, EnvBlock
from AsyncPPO.backends.inline import InlineBackend
from AsyncPPO.backends.process import ProcessBackend
from AsyncPPO.backends.vector import PoolBlock, make_pool

BackendName = Literal["auto", "inline", "process", "vector"]
OnEnvError = Literal["raise", "restart"]

WAKE_SECONDS = 5e-6
"""What a vector step costs in worker processes beyond what it costs in one, measured on two cores: telling them to step
and waiting for the last one."""
TRIAL_SECONDS = 0.1
"""How long a trial of an environment's speed may take."""


def choose_backend(env: gym.Env, num_envs: int, num_workers: int, steps: int = 1) -> tuple[BackendName, str]:
    """Time a few real steps of `env` and pick the backend that should be faster; say why.

    Args:
        env: one of them; it is reset.
        num_envs: how many there will be.
        num_workers: how many processes there may be.
        steps: vector steps from one meeting of the processes to the next.

    Returns:
        The backend's name, and a sentence with the measurement behind it.
    """
    workers = min(num_workers, num_envs)
    seconds = _seconds_per_step(env)
    inline = num_envs * seconds
    process = -(-num_envs // workers) * seconds + WAKE_SECONDS / steps
    name: BackendName = "process" if workers > 1 and process < inline else "inline"
    return name, (
        f"a step takes {seconds * 1e6:.0f} us, so {num_envs} environments should take {inline * 1e6:.0f} us in one "
        f"process and {process * 1e6:.0f} us in {workers} workers"
    )


def _seconds_per_step(env: gym.Env) -> float:
    env.action_space.seed(0)
    env.reset(seed=0)
    steps, spent, deadline = 0, 0.0, time.perf_counter() + TRIAL_SECONDS
    while steps < 500 and time.perf_counter() < deadline:
        action = env.action_space.sample()
        start = time.perf_counter()
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()
        spent += time.perf_counter() - start
        steps += 1
    return spent / steps


__all__ = [
    "ENV_ERROR",
    "Backend",
    "BackendName",
    "Care",
    "EnvBlock",
    "EnvError",
    "EnvFactory",
    "Infos",
    "InlineBackend",
    "Layout",
    "OnEnvError",
    "Plan",
    "PoolBlock",
    "ProcessBackend",
    "Replica",
    "available_cores",
    "check_finite",
    "choose_backend",
    "make_pool",
]
