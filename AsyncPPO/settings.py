"""Keyword arguments of the trainer, and those that trainer and evaluations pass on to `EnvVectorizer`."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from AsyncPPO.backends import BackendName, OnEnvError, StartMethod
from parallel_rl.utils import Cluster

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


def warn_if_too_short(agent: "Agent", steps: int) -> None:
    """Warn if a run of some steps is too short for an update."""
    if steps < (wanted := agent.steps_wanted()):
        warnings.warn(
            f"steps ({steps}) is less than the {wanted} transitions that the agent waits for: it will not learn",
            RuntimeWarning,
            stacklevel=4,
        )
