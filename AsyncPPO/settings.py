"""Keyword arguments of the trainer, and those that trainer and evaluations pass on to `EnvVectorizer`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from AsyncPPO.backends import BackendName, OnEnvError, StartMethod

if TYPE_CHECKING:
    from AsyncPPO.callbacks.base import Callback
    from AsyncPPO.collector import Acting

Mode = Literal["streaming", "mask"]


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
    acting: "Acting"
    lag: int
    info_keys: Sequence[str]
    progress: bool
    callbacks: Sequence["Callback"]
