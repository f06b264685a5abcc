"""The generator of fragments."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from AsyncPPO import EnvVectorizer
from AsyncPPO.factory import number_of_copies
from AsyncPPO.making import check_faults
from parallel_rl.utils import counted
from parallel_rl.utils.names import names_checked
from Rollouts.actor import Actor, check_actor, device_for
from Rollouts.checks import check_single
from Rollouts.collector import FragmentCollector
from Rollouts.fragment import Fragment
from Rollouts.workers import lagged_feed


@names_checked
def rollout(
    envs: Any,
    actor: Actor,
    n_steps: int = 51,
    num_envs: int | None = None,
    *,
    num_workers: int = 0,
    lag: int = 0,
    sticky: bool = False,
    device: torch.device | str | None = None,
    seed: int | Sequence[int] | None = None,
    on_env_error: Literal["raise", "restart"] = "raise",
    step_timeout: float | None = None,
) -> Iterator[Fragment]:
    """Return an endless generator of fragments; you may change the actor's weights between any two.

    The first `next` makes the environments. They are closed when the generator is closed or dropped, or raises an
    error.

    Args:
        envs: a list of B environments (which are copied), ids or callables; or one of these, used `num_envs` times.
        actor: a `BaseActorModule`, or another object with its `step` and `reset`.
        n_steps: T, the length of fragments.
        num_envs: B, if `envs` is not a list; by default 1.
        num_workers: number of worker processes that step the environments; 0 for this process. Worker k of n steps
            environments `k * B / n` to `(k + 1) * B / n`. Environment i is always column i of a fragment.
        lag: 0: each fragment is collected with the weights at the time of its `next`. 1: workers collect the next
            fragment while you learn from this one, so all but the first come from weights that are one fragment old.
        sticky: whether a finished environment waits for the next fragment. Until then its rows repeat the last one,
            with a reward of 0, and `fragment.env["valid"]` is False.
        device: of the actor and the fragments; by default that of the actor's first parameter.
        seed: of the environments' random streams, as for `EnvVectorizer`. The actor samples from the global random
            streams of this process (`torch.manual_seed`), or with `lag=1` from those of the workers, seeded by `seed`.
        on_env_error: as for `EnvVectorizer`. With `restart`, a failed step is truncated and not `valid`. With `lag=1`,
            a restarted worker begins its fragment again, in new episodes.
        step_timeout: seconds that a step or reset of an environment may take; it needs workers.

    Raises:
        TypeError: the actor lacks a method, or `envs` is a `VectorEnv`.
        ValueError: a number is too small, two arguments exclude each other, or torch does not find the device.
    """
    check_actor(type(actor))
    check_single(envs)
    n_steps, num_workers = counted("n_steps", n_steps), counted("num_workers", num_workers, least=0)
    _check(num_workers, lag, on_env_error, step_timeout)
    num_envs = number_of_copies(envs, num_envs, 1, ("envs", "num_envs"))
    collecting: dict[str, Any] = {"actor": actor, "n_steps": n_steps, "sticky": sticky}
    collecting["device"] = device_for(actor, device)
    stepping: dict[str, Any] = {"seed": seed, "on_env_error": on_env_error, "step_timeout": step_timeout}
    if lag:
        if not isinstance(actor, nn.Module):
            raise TypeError(f"lag=1 needs a torch module, whose weights travel to the workers, not {actor!r:.200}")
        return lagged_feed(envs, num_envs, num_workers, **collecting, **stepping)
    if num_workers:
        alone = on_env_error == "raise" and step_timeout is None  # else workers must step all environments
        stepping |= {"backend": "process", "num_workers": num_workers, "asynchronous": alone}
    else:
        stepping["backend"] = "inline"
    make_envs = partial(EnvVectorizer, envs, num_envs, autoreset=True, **stepping)
    return _feed(make_envs, partial(FragmentCollector, **collecting))


def _check(num_workers: int, lag: int, on_env_error: str, step_timeout: float | None) -> None:
    check_faults(on_env_error, step_timeout)
    if lag not in (0, 1):
        raise ValueError(f"lag must be 0 or 1, not {lag}")
    if lag and not num_workers:
        raise ValueError("lag=1 needs num_workers >= 1: they collect while this process learns")
    if step_timeout is not None and not num_workers:
        raise ValueError("step_timeout needs num_workers >= 1: this process cannot interrupt its own step")


def _feed(
    make_envs: Callable[[], EnvVectorizer], make_collector: Callable[[EnvVectorizer], FragmentCollector]
) -> Iterator[Fragment]:
    with make_envs() as envs:
        collector = make_collector(envs)
        while True:
            yield collector.collect()
