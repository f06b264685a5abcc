"""The modes of a population, and the checks of these and other plain arguments."""

import math
from collections.abc import Sequence
from dataclasses import fields
from enum import StrEnum
from typing import Any, Literal, get_args

from AsyncPPO.acting import choose_acting
from AsyncPPO.making import Stepping
from AsyncPPO.settings import TrainerOptions, callbacks_in
from parallel_rl.utils.names import suggestion

OnWorkerError = Literal["raise", "restart"]
SET_BY_POPULATION = {"env", "agent", "num_envs", "steps", "seed", "progress", "ranks"}
"""Arguments of `AsyncTrainer` that a population sets for its members."""


class Mode(StrEnum):
    """Who trains."""

    PARALLEL_COLLECTING = "parallel_collecting"
    """Members send their experience; the main process trains the agent and sends it to the members."""
    PARALLEL_LEARNING = "parallel_learning"
    """Members train their own agents; the main process combines them and sends the result to the members."""


class SyncMode(StrEnum):
    """Whether members wait for each other."""

    SYNCHRONOUS = "sync"
    """After it has sent, a member waits for all others, so the seed determines the result."""
    ASYNCHRONOUS = "async"
    """After it has sent, a member continues at once, with the newest agent. In parallel learning that is a combination
    of its own agent and the last ones that the others have sent."""


def check_arguments(
    n_workers: Any, mode: str, sync_mode: str, on_worker_error: str, step_timeout: float | None
) -> None:
    """Check arguments of `Trainer`.

    Raises:
        ValueError: one is wrong; the message names it.
    """
    if isinstance(n_workers, bool) or not isinstance(n_workers, int) or n_workers < 1:
        raise ValueError(f"n_workers must be a positive whole number, not {n_workers!r}")
    choices = {
        "mode": (mode, [*Mode]),
        "sync_mode": (sync_mode, [*SyncMode]),
        "on_worker_error": (on_worker_error, get_args(OnWorkerError)),
    }
    for name, (value, known) in choices.items():
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, not {value!r}")
    if step_timeout is not None and not 0 < step_timeout < math.inf:
        raise ValueError(f"step_timeout must be positive and finite, not {step_timeout}")
    if n_workers == 1 and (step_timeout is not None or on_worker_error != "raise"):
        name = "step_timeout" if step_timeout is not None else "on_worker_error='restart'"
        raise ValueError(f"{name} needs n_workers >= 2: a single member runs in this process, which cannot restart it")


def checked_trainer_options(options: dict[str, Any], agents: Sequence[Any]) -> dict[str, Any]:
    """Return the argument `trainer_options` of `Trainer`, for the agents that `AsyncTrainer` trains, if any.

    The checks are those of `AsyncTrainer`: here an error comes before any process has started.

    Raises:
        TypeError: a name is unknown, or is set by the population.
        ValueError: a value is wrong, two are not compatible, or there are no such agents.
    """
    if not agents:
        if options:
            raise ValueError("trainer_options are for agents that AsyncTrainer trains (PPO, DQN, ...)")
        return {}
    for name in options:
        if name in SET_BY_POPULATION:
            raise TypeError(f"trainer_options cannot have {name!r}: Trainer sets it for its members")
        if name not in (known := TrainerOptions.__annotations__):
            raise TypeError(f"trainer_options has no {name!r}{suggestion(name, known.keys() - SET_BY_POPULATION)}")
    options = {"backend": "inline"} | options  # a member is a process already
    Stepping(**{field.name: options[field.name] for field in fields(Stepping) if field.name in options})
    for agent in agents:
        choose_acting(options.get("acting", "auto"), agent, options.get("mode", "streaming"), options.get("lag", 0))
    callbacks_in(options.get("callbacks", ()))
    return options
