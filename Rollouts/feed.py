"""The feed of fragments: an endless generator."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import nn

from AsyncPPO import EnvVectorizer
from AsyncPPO.factory import number_of_copies
from Rollouts.actor import Actor, check_signatures, device_of
from Rollouts.collector import Collector
from Rollouts.fragment import Fragment
from Rollouts.workers import lagged_feed


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
    """Return an endless feed of fragments; the actor's weights may change between two.

    The feed is a generator: it makes the environments when its first fragment is asked for, and closes them when it is
    closed, dropped, or an error comes out of it.

    Args:
        envs: a list of B environments (which are copied), ids or callables; or one of them, for `num_envs` copies.
        actor: a `BaseActorModule`, or another object with its `step` and `reset`.
        n_steps: T, the length of fragments.
        num_envs: B, for one environment; by default 1.
        num_workers: how many further processes step the environments; 0 for this one. Environments `k * B / n` to
            `(k + 1) * B / n` are worker k's, and always the same columns of a fragment.
        lag: 0: each fragment is by the weights of the moment that it is asked for. 1: workers collect the next one
            while this one is learnt from: each but the first is by the weights of one fragment ago.
        sticky: whether an environment that finishes waits for the next fragment: until then its rows repeat the last
            one, with a reward of 0, and `fragment.env["valid"]` is False.
        device: where the actor is and the fragments are to be; by default where the first parameter of the actor is.
        seed: of the environments' random streams, as `EnvVectorizer` has it. The actor draws from the global ones of
            this process (`torch.manual_seed`); with `lag=1` from those of its workers, which `seed` seeds, too.
        on_env_error: as `EnvVectorizer`; with `restart` the step that failed is not `valid`, and truncated. With
            `lag=1` a worker that died begins its fragment again, in new episodes.
        step_timeout: seconds that a step or reset of an environment may take; it needs workers.

    Raises:
        TypeError: the actor is none.
        ValueError: a number that is too small; or what does not go together.
    """
    check_signatures(type(actor))
    if n_steps < 1:
        raise ValueError(f"n_steps must be at least 1, not {n_steps}")
    if num_workers < 0:
        raise ValueError(f"num_workers must not be negative, not {num_workers}")
    if lag not in (0, 1):
        raise ValueError(f"lag must be 0 or 1, not {lag}")
    if lag and not num_workers:
        raise ValueError("lag=1 needs num_workers >= 1: they collect while this process learns")
    if step_timeout is not None and not num_workers:
        raise ValueError("step_timeout needs num_workers >= 1: this process would hang itself")
    num_envs = number_of_copies(envs, num_envs, 1)
    device = torch.device(device or device_of(actor))
    faults: dict[str, Any] = {"seed": seed, "on_env_error": on_env_error, "step_timeout": step_timeout}
    if lag:
        if not isinstance(actor, nn.Module):
            raise TypeError(f"lag=1 needs a torch module, whose weights travel to the workers, not {actor!r:.200}")
        return lagged_feed(
            envs, num_envs, actor, n_steps, num_workers=num_workers, sticky=sticky, device=device, **faults
        )  # fmt: skip
    workers: dict[str, Any] = {"backend": "inline"}
    if num_workers:
        alone = on_env_error == "raise" and step_timeout is None  # otherwise all are in workers anyway
        workers = {"backend": "process", "num_workers": num_workers, "asynchronous": alone}
    return _feed(envs, num_envs, {**workers, **faults}, actor, n_steps, sticky, device)


def _feed(
    envs: Any,
    num_envs: int,
    options: dict[str, Any],
    actor: Actor,
    n_steps: int,
    sticky: bool,
    device: torch.device,
) -> Iterator[Fragment]:
    with EnvVectorizer(envs, num_envs, autoreset=True, **options) as vectorizer:
        collector = Collector(vectorizer, actor, n_steps, sticky=sticky, device=device)
        while True:
            yield collector.collect()
