"""Makes the backend of an `EnvVectorizer`."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv

from AsyncPPO.backends import (
    Backend,
    BackendName,
    EnvBlock,
    EnvPool,
    FaultPolicy,
    InlineBackend,
    Layout,
    Plan,
    PoolBlock,
    ProcessBackend,
    StartMethod,
    VectorEnvPool,
    available_cores,
    choose_backend,
    choose_start_method,
    make_pool,
    why_no_children,
)
from AsyncPPO.factory import EnvLike, env_factories, is_vectorized, like, sample_env

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ways:
    """How to step environments; the fields are arguments of `EnvVectorizer`."""

    backend: BackendName
    num_workers: int | None
    start_method: StartMethod | None
    plan: Plan | None
    asynchronous: bool
    fault_policy: FaultPolicy
    close_timeout: float

    @property
    def processes(self) -> int:
        """The largest number of processes that step."""
        return int(self.num_workers or available_cores())


@dataclass(frozen=True)
class Made:
    """A backend, and facts about its environments."""

    backend: Backend
    name: BackendName
    reason: str
    """Why this backend."""
    spec: EnvSpec | None
    observation_space: Any
    action_space: Any


def make_backend(
    env: EnvLike | Sequence[EnvLike],
    num_envs: int,
    ways: Ways,
    *,
    seed: int | None,
    reset_options: dict[str, Any] | None,
) -> Made:
    """Make N environments and the backend that steps them; the errors are those of `EnvVectorizer`.

    Args:
        env: as for `EnvVectorizer`.
        num_envs: N.
        ways: how to step them.
        seed: of the first environment in the trial of its speed.
        reset_options: of that trial.
    """
    if is_vectorized(env) or ways.backend == "vector":
        pool, reason = _pool(env, num_envs, ways)
        backend: Backend = InlineBackend(partial(PoolBlock, pool), _layout(num_envs, pool), ways.plan)
        return _made(backend, "vector", reason, pool)
    factories = env_factories(env, num_envs)
    with sample_env(factories[0]) as sample:
        name, reason = _choose(sample, num_envs, ways, seed, reset_options)
        layout = _layout(num_envs, sample)
        factories = [like(sample, factory) for factory in factories]
    if name == "inline":
        block = partial(EnvBlock, factories, 0, fault_policy=ways.fault_policy)
        return _made(InlineBackend(block, layout, ways.plan), name, reason, sample)
    method, why = choose_start_method(ways.start_method)
    reason += f"; start method {method}, since {why}" if why else ""
    backend = ProcessBackend(
        factories,
        layout,
        ways.processes,
        method,
        ways.plan,
        ways.asynchronous,
        ways.fault_policy,
        ways.close_timeout,
    )
    return _made(backend, name, reason, sample)


def _pool(env: Any, num_envs: int, ways: Ways) -> tuple[EnvPool | VectorEnvPool, str]:
    """Return N environments in one object, and why they are."""
    if not is_vectorized(env):
        return make_pool(env, num_envs), "as chosen"
    if ways.backend not in ("auto", "vector"):
        raise ValueError(
            f"backend={ways.backend!r} does not work with a VectorEnv, which steps its environments itself"
        )
    if ways.asynchronous or ways.fault_policy != FaultPolicy() or ways.plan is not None:
        raise ValueError(
            "a VectorEnv is stepped as a whole, by this process: it can neither be asynchronous nor "
            "restart or interrupt an environment, nor let replicas act"
        )
    pool = env if isinstance(env, VectorEnv) else env(num_envs=num_envs)
    if not isinstance(pool, VectorEnv) or pool.num_envs != num_envs:
        raise TypeError(f"the function of num_envs={num_envs} must make a VectorEnv of that size, not {pool!r}")
    return VectorEnvPool(pool, owned=pool is not env), "since they are one VectorEnv"


def _choose(
    sample: gym.Env, num_envs: int, ways: Ways, seed: int | None, reset_options: dict[str, Any] | None
) -> tuple[BackendName, str]:
    """Return the backend for environments like `sample`, and why."""
    if ways.backend != "auto":
        return ways.backend, "as chosen"
    if ways.asynchronous or ways.fault_policy != FaultPolicy():
        return "process", "since environments that are asynchronous or may fail need processes"
    if reason := why_no_children():
        return "inline", reason
    steps = 1 if ways.plan is None else ways.plan.horizon
    return choose_backend(sample, num_envs, ways.processes, steps, seed, reset_options)


def _layout(num_envs: int, env: Any) -> Layout:
    return Layout.of(num_envs, env.observation_space, env.action_space)


def _made(backend: Backend, name: BackendName, reason: str, env: Any) -> Made:
    logger.info("%s backend: %s", name, reason)
    return Made(backend, name, reason, env.spec, env.observation_space, env.action_space)
