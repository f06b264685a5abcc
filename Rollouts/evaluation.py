"""Evaluation of an actor with its current weights."""

import copy
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from AsyncPPO import EnvVectorizer
from AsyncPPO.factory import number_of_copies
from parallel_rl.utils import counted
from Rollouts.actor import Actor, check_actor, device_for
from Rollouts.checks import check_single
from Rollouts.collector import FragmentCollector, streams_kept

STRIDE = 64
"""Steps between two checks whether all episodes are over."""


def evaluations(
    env: Any,
    actor: Actor,
    episodes: int = 10,
    *,
    device: torch.device | str | None = None,
    seed: int | Sequence[int] | None = None,
    max_steps: int = 10_000,
) -> Iterator[np.ndarray]:
    """Return an endless generator of evaluations: each `next` runs whole episodes with the actor's current weights.

    A copy of the actor in `eval()` mode acts in new episodes, one in each environment. The actor and the global random
    streams do not change. A policy can use `self.training` to act deterministically in evaluations.

    Args:
        env: as for `rollout`.
        actor: as for `rollout`.
        episodes: number of episodes, all at once.
        device: as for `rollout`.
        seed: of the environments.
        max_steps: episodes are truncated after this many steps, with a warning.

    Yields:
        Undiscounted returns float64 `(episodes,)`.

    Raises:
        TypeError: the actor lacks a method, or `env` is a `VectorEnv`.
        ValueError: `episodes` or `max_steps` is below 1, `env` is a list of another length, or torch does not find the
            device.
    """
    check_actor(type(actor))
    check_single(env)
    episodes, max_steps = number_of_copies(env, episodes, 1, ("env", "episodes")), counted("max_steps", max_steps)
    return _evaluations(env, actor, episodes, device_for(actor, device), seed, max_steps)


def _evaluations(
    env: Any, actor: Actor, episodes: int, device: torch.device, seed: int | Sequence[int] | None, max_steps: int
) -> Iterator[np.ndarray]:
    with EnvVectorizer(env, episodes, backend="inline", seed=seed, autoreset=True) as envs:
        while True:
            copied = copy.deepcopy(actor)
            if isinstance(copied, nn.Module):
                copied.eval()
            with streams_kept(device):
                returns = _returns(envs, FragmentCollector(envs, copied, STRIDE, sticky=True, device=device), max_steps)
            yield returns


def _returns(envs: EnvVectorizer, collector: FragmentCollector, max_steps: int) -> np.ndarray:
    """Return the returns of the first episode in each environment."""
    returns, over = np.zeros(envs.num_envs), np.zeros(envs.num_envs, np.bool_)
    for done in range(0, max_steps, STRIDE):
        collector.n_steps = min(STRIDE, max_steps - done)
        fragment = collector.collect()
        returns += fragment.state.rew[1:].sum(0, dtype=torch.float64).numpy(force=True)
        over |= fragment.state.fin[1:].any(0).numpy(force=True)
        if over.all():
            return returns
        envs.finished[:] = over  # finished environments are not stepped further
    warnings.warn(
        f"{np.count_nonzero(~over)} of {len(over)} episodes were truncated after {max_steps:,} steps", stacklevel=3
    )
    return returns
