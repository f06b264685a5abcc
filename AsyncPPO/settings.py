"""The settings of environments that the trainer and the evaluations hand on to `EnvVectorizer`."""

from collections.abc import Sequence
from typing import Any, TypedDict

from AsyncPPO.backends import BackendName, OnEnvError, StartMethod


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
