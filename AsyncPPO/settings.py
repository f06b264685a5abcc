"""Keyword arguments of the trainer, and those that trainer and evaluations pass on to `EnvVectorizer`."""

import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from AsyncPPO.backends import BackendName, OnEnvError, StartMethod
from parallel_rl.utils import Cluster
from parallel_rl.utils.names import check_names

if TYPE_CHECKING:
    from AsyncPPO.agent import Agent
    from AsyncPPO.callbacks.base import Callback

Mode = Literal["streaming", "mask"]
ActingMode = Literal["auto", "central", "replicas"]


class EnvSettings(TypedDict, total=False):
    """Keyword arguments of `EnvVectorizer`, which documents them."""

    backend: BackendName
    num_workers: int | None
    seed: int | Sequence[int] | None
    reset_options: dict[str, Any] | None
    on_env_error: OnEnvError
    step_timeout: float | None
    start_method: StartMethod | None
    close_timeout: float


class TrainerOptions(EnvSettings, total=False):
    """Keyword arguments of `AsyncTrainer`."""

    mode: Mode
    acting: ActingMode
    lag: int
    info_keys: Sequence[str]
    progress: bool
    callbacks: Sequence["Callback"]
    ranks: Cluster


def check_arguments(agent: "Agent", settings: EnvSettings, by: str) -> None:
    """Check the arguments of the trainer `by`.

    Raises:
        TypeError: a name in `settings` is unknown, or `agent` is not an agent.
    """
    check_names(settings, EnvSettings.__annotations__, [*TrainerOptions.__annotations__, "num_envs", "steps"], by)
    if not _has("steps_wanted", agent):
        raise TypeError(f"the agent must be an object such as PPO.for_env(env), not {agent!r}")


def warn_if_too_short(wanted: int, steps: float, num_envs: int) -> None:
    """Warn if a run of so many steps is too short for an update, although its last vector step may exceed them.

    Args:
        wanted: the transitions that the agent waits for.
        steps: of the run.
        num_envs: N.
    """
    too_few = (wanted - 1) // num_envs * num_envs  # as many vector steps as are too few
    if steps <= too_few:
        warnings.warn(
            f"steps ({steps}) is less than the {wanted} transitions that the agent waits for: it will not learn",
            RuntimeWarning,
            stacklevel=4,
        )


def callbacks_in(callbacks: Iterable["Callback"]) -> list["Callback"]:
    """Return callbacks as a list.

    Raises:
        TypeError: one is not a `Callback`.
    """
    if not isinstance(callbacks, Iterable):
        raise TypeError(f"callbacks must be a list of `Callback` objects, also for one: [...], not {callbacks!r}")
    listed = [*callbacks]
    for callback in listed:
        if not _has("on_start", callback):
            raise TypeError(f"callbacks must be a list of `Callback` objects, not of {callback!r}")
    return listed


def _has(method: str, thing: Any) -> bool:
    """Return whether an object, not a class, has a method."""
    return not isinstance(thing, type) and hasattr(thing, method)
