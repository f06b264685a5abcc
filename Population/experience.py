"""Experience: steps of environments, as lists of equal length."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np

from parallel_rl.utils.names import suggestion

UNPACKED = ("observations", "actions", "rewards", "terminated", "truncated", "info")
"""The columns that `get` returns by default."""


@dataclass
class Experience:
    """Steps of environments, in the order of time for each worker.

    Raises:
        ValueError: the columns have different lengths.
    """

    observations: list[Any] = field(default_factory=list)
    actions: list[Any] = field(default_factory=list)
    rewards: list[Any] = field(default_factory=list)
    next_observations: list[Any] = field(default_factory=list)
    """The next observation of each action, before any reset."""
    terminated: list[bool] = field(default_factory=list)
    truncated: list[bool] = field(default_factory=list)
    info: list[dict[str, Any]] = field(default_factory=list)
    agent_versions: list[int] = field(default_factory=list)
    """The version of the agent that chose each action."""
    worker_ids: list[int] = field(default_factory=list)
    episodes: list[int] = field(default_factory=list)
    """The number of the episode in its worker, from 1."""

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self.to_dict().items()}
        if len({*lengths.values()}) > 1:
            raise ValueError(f"the columns of an Experience have different lengths: {lengths}")

    def __len__(self) -> int:
        return len(self.observations)

    def add_step(
        self,
        observation: Any,
        action: Any,
        reward: Any,
        next_observation: Any,
        terminated: bool,
        truncated: bool,
        info: dict[str, Any],
        agent_version: int,
        worker_id: int,
        episode: int,
    ) -> None:
        """Append a step."""
        self.observations.append(observation)
        self.actions.append(action)
        self.rewards.append(reward)
        self.next_observations.append(next_observation)
        self.terminated.append(terminated)
        self.truncated.append(truncated)
        self.info.append(info)
        self.agent_versions.append(agent_version)
        self.worker_ids.append(worker_id)
        self.episodes.append(episode)

    def add_experience(self, exp: Self) -> None:
        """Append the steps of another."""
        for name in COLUMNS:
            getattr(self, name).extend(getattr(exp, name))

    def end_episode(self, worker_id: int) -> None:
        """Mark the last step of a worker as truncated, if it did not terminate: the rest of its episode is lost."""
        row = next((row for row in reversed(range(len(self))) if self.worker_ids[row] == worker_id), None)
        if row is not None and not self.terminated[row]:
            self.truncated[row] = True

    def get(self, columns: Sequence[str] | None = None) -> tuple[list[Any], ...]:
        """Return columns: by default observations, actions, rewards, terminated, truncated and info.

        Args:
            columns: their names.

        Raises:
            ValueError: there is no such column.
        """
        names = UNPACKED if columns is None else columns
        _check_columns(names)
        return tuple(getattr(self, name) for name in names)

    def get_experience_batch(self, size: int | None = None) -> Self:
        """Return the last `size` steps; by default all.

        Raises:
            TypeError: `size` is not a whole number.
            ValueError: it is negative.
        """
        if size is not None and (isinstance(size, bool) or not isinstance(size, int | np.integer)):
            raise TypeError(f"size must be a whole number, not {size!r}")
        if size is not None and size < 0:
            raise ValueError(f"size must not be negative, not {size}")
        start = 0 if size is None else max(len(self) - int(size), 0)
        return type(self)(**{name: column[start:] for name, column in self.to_dict().items()})

    def pop_experience_batch(self, size: int | None = None) -> Self:
        """Remove and return the last `size` steps; by default all. Raises as `get_experience_batch` does."""
        batch = self.get_experience_batch(size)
        rest = len(self) - len(batch)
        for name in COLUMNS:
            del getattr(self, name)[rest:]
        return batch

    def copy(self) -> Self:
        """Return the same steps in new lists."""
        return self.get_experience_batch()

    def clear(self) -> None:
        """Remove all steps."""
        for name in COLUMNS:
            getattr(self, name).clear()

    def to_dict(self) -> dict[str, list[Any]]:
        """Return the columns by name."""
        return {name: getattr(self, name) for name in COLUMNS}

    @classmethod
    def from_dict(cls, data: Mapping[str, Sequence[Any]]) -> Self:
        """Undo `to_dict`; raise a `ValueError` if a name is unknown or the columns have different lengths."""
        _check_columns(data)
        return cls(**{name: list(column) for name, column in data.items()})

    def to_json(self) -> str:
        """Return the columns as JSON; arrays become lists."""
        return json.dumps(self.to_dict(), default=_plain)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Undo `to_json`, except for arrays."""
        return cls.from_dict(json.loads(text))


COLUMNS = tuple(each.name for each in fields(Experience))


def _check_columns(names: Iterable[str]) -> None:
    for name in names:
        if name not in COLUMNS:
            raise ValueError(f"an Experience has no column {name!r}{suggestion(name, COLUMNS)}")


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"JSON cannot hold a {type(value).__name__}: {value!r}")
