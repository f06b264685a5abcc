"""Makes the backend of an `EnvVectorizer`."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv

from AsyncPPO.backends import (
    CLOSE_SECONDS,
    Backend,
    BackendName,
    EnvBlock,
    EnvPool,
    FaultPolicy,
    InlineBackend,
    Layout,
    OnEnvError,
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
from AsyncPPO.factory import EnvLike, env_factories, like, sample_env
from parallel_rl.utils import counted, is_vectorized

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stepping:
    """How to step environments; the fields are arguments of `EnvVectorizer`, with its defaults.

    Raises:
        ValueError: an argument is invalid, or two are not compatible.
    """

    backend: BackendName = "auto"
    num_workers: int | None = None
    start_method: StartMethod | None = "auto"
    plan: Plan | None = None
    asynchronous: bool = False
    on_env_error: OnEnvError = "raise"
    step_timeout: float | None = None
    close_timeout: float = CLOSE_SECONDS

    def __post_init__(self) -> None:
        if self.num_workers is not None:
            counted("num_workers", self.num_workers)
        if self.backend not in ("auto", "inline", "process", "vector"):
            raise ValueError(f"backend must be 'auto', 'inline', 'process' or 'vector', not {self.backend!r}")
        check_faults(self.on_env_error, self.step_timeout)
        choose_start_method(self.start_method)
        if not 0 <= self.close_timeout < math.inf:
            raise ValueError(f"close_timeout must be finite and not negative, not {self.close_timeout}")
        if self.asynchronous and self.backend in ("inline", "vector"):
            raise ValueError(f"the {self.backend} backend steps only while the caller waits: it cannot be asynchronous")
        if self.step_timeout is not None and self.backend in ("inline", "vector"):
            raise ValueError(f"step_timeout needs worker processes: the {self.backend} backend cannot interrupt a step")
        if self.on_env_error == "restart" and (self.backend == "vector" or self.asynchronous):
            what = "asynchronous environments" if self.asynchronous else "the vector backend"
            raise ValueError(f"on_env_error='restart' does not work with {what}")

    @property
    def processes(self) -> int:
        """The largest number of processes that step."""
        return int(self.num_workers or available_cores())

    @property
    def fault_policy(self) -> FaultPolicy:
        """What to do if an environment fails."""
        return FaultPolicy(self.on_env_error == "restart", self.step_timeout)


def check_faults(on_env_error: str, step_timeout: float | None) -> None:
    """Check what is to happen if an environment fails or hangs.

    Raises:
        ValueError: an argument is invalid.
    """
    if on_env_error not in ("raise", "restart"):
        raise ValueError(f"on_env_error must be 'raise' or 'restart', not {on_env_error!r}")
    if step_timeout is not None and not 0 < step_timeout < math.inf:
        raise ValueError(f"step_timeout must be positive and finite, not {step_timeout}")


@dataclass(frozen=True)
class MadeBackend:
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
    stepping: Stepping,
    *,
    seed: int | None,
    reset_options: dict[str, Any] | None,
) -> MadeBackend:
    """Make N environments and the backend that steps them; the errors are those of `EnvVectorizer`.

    Args:
        env: as for `EnvVectorizer`.
        num_envs: N.
        stepping: how to step them.
        seed: of the first environment in the trial of its speed.
        reset_options: of that trial.
    """
    if is_vectorized(env) or stepping.backend == "vector":
        pool, reason = _pool(env, num_envs, stepping)
        backend: Backend = InlineBackend(partial(PoolBlock, pool), _layout(num_envs, pool), stepping.plan)
        return _made_backend(backend, "vector", reason, pool)
    factories = env_factories(env, num_envs)
    with sample_env(factories[0]) as sample:
        name, reason = _choose(sample, num_envs, stepping, seed, reset_options)
        layout = _layout(num_envs, sample)
        factories = [like(sample, factory) for factory in factories]
    if name == "inline":
        block = partial(EnvBlock, factories, 0, fault_policy=stepping.fault_policy)
        return _made_backend(InlineBackend(block, layout, stepping.plan), name, reason, sample)
    method, why = choose_start_method(stepping.start_method)
    reason += f"; start method {method}, since {why}" if why else ""
    backend = ProcessBackend(
        factories,
        layout,
        stepping.processes,
        method,
        stepping.plan,
        stepping.asynchronous,
        stepping.fault_policy,
        stepping.close_timeout,
    )
    return _made_backend(backend, name, reason, sample)


def _pool(env: Any, num_envs: int, stepping: Stepping) -> tuple[EnvPool | VectorEnvPool, str]:
    """Return N environments in one object, and why they are."""
    if not is_vectorized(env):
        return make_pool(env, num_envs), "as chosen"
    if stepping.backend not in ("auto", "vector"):
        raise ValueError(
            f"backend={stepping.backend!r} does not work with a VectorEnv, which steps its environments itself"
        )
    if stepping.asynchronous or stepping.fault_policy != FaultPolicy() or stepping.plan is not None:
        raise ValueError(
            "a VectorEnv is stepped as a whole, by this process: it can neither be asynchronous nor "
            "restart or interrupt an environment, nor let replicas act"
        )
    pool = env if isinstance(env, VectorEnv) else env(num_envs=num_envs)
    if not isinstance(pool, VectorEnv) or pool.num_envs != num_envs:
        raise TypeError(f"the function of num_envs={num_envs} must make a VectorEnv of that size, not {pool!r}")
    return VectorEnvPool(pool, owned=pool is not env), "since they are one VectorEnv"


def _choose(
    sample: gym.Env, num_envs: int, stepping: Stepping, seed: int | None, reset_options: dict[str, Any] | None
) -> tuple[BackendName, str]:
    """Return the backend for environments like `sample`, and why."""
    if stepping.backend != "auto":
        return stepping.backend, "as chosen"
    if stepping.asynchronous or stepping.fault_policy != FaultPolicy():
        return "process", "since environments that are asynchronous or may fail need processes"
    if reason := why_no_children():
        return "inline", reason
    steps = 1 if stepping.plan is None else stepping.plan.horizon
    return choose_backend(sample, num_envs, stepping.processes, steps, seed, reset_options)


def _layout(num_envs: int, env: Any) -> Layout:
    return Layout.of(num_envs, env.observation_space, env.action_space)


def _made_backend(backend: Backend, name: BackendName, reason: str, env: Any) -> MadeBackend:
    logger.info("%s backend: %s", name, reason)
    return MadeBackend(backend, name, reason, env.spec, env.observation_space, env.action_space)
