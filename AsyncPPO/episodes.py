"""Finished episodes and evaluations, and the metrics of their infos."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np

from AsyncPPO.backends import FINAL_INFO, SUCCESS, numbers_in
from parallel_rl.utils import Metrics, State, check_like

SUCCESS_RATE, INFO_PREFIX = "success_rate", "info_"
"""The names of metrics of infos: the fraction of successes, and the prefix for the means of other infos."""


@dataclass(frozen=True)
class Episode:
    """A finished episode."""

    return_: float
    """The undiscounted sum of the rewards."""
    length: int
    """The number of steps."""
    infos: Mapping[str, float] = field(default_factory=dict, hash=False)
    """Numbers of its last info by key: `is_success` and the run's `info_keys`, if present."""


class Episodes:
    """Sums the rewards of the running episodes of N environments."""

    def __init__(self, num_envs: int, info_keys: Sequence[str] = ()) -> None:
        """Start an episode in each environment.

        Args:
            num_envs: N.
            info_keys: names of the K numbers of last infos that episodes keep.
        """
        self._returns = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, dtype=np.int64)
        self._keys = info_keys

    def restart(self, env_ids: np.ndarray | slice = slice(None)) -> None:
        """Start a new episode in some environments; by default in all."""
        self._returns[env_ids], self._lengths[env_ids] = 0.0, 0

    def state(self) -> State:
        """Return the sums of the running episodes."""
        return {"returns": self._returns.copy(), "lengths": self._lengths.copy()}

    def load_state(self, state: State) -> None:
        """Restore what `state` returned.

        Raises:
            ValueError: it is for another number of environments.
        """
        check_like(state["returns"], self._returns, "returns of episodes")
        check_like(state["lengths"], self._lengths, "lengths of episodes")
        self._returns[:], self._lengths[:] = state["returns"], state["lengths"]

    def count(
        self,
        env_ids: np.ndarray,
        reward: np.ndarray,
        over: np.ndarray,
        failed: np.ndarray,
        infos: np.ndarray | None = None,
    ) -> list[Episode]:
        """Count T further steps of some environments; return the whole episodes that end in them, in time order.

        Args:
            env_ids: `(n,)`, each at most once.
            reward: `(T, n)`.
            over: bool `(T, n)`, True at the last steps of episodes.
            failed: bool `(T, n)`, True at those whose episode ends because the environment was restarted.
            infos: `(T, n, K)`, numbers of the infos at those steps; NaN where there are none.
        """
        sums = np.cumsum(reward, axis=0, dtype=np.float64)
        sum_before, steps_before = -self._returns[env_ids], -self._lengths[env_ids]
        known = None if infos is None or np.isnan(infos).all() else infos
        episodes = []
        for step, row in np.argwhere(over).tolist():
            total, length = sums[step, row].item() - sum_before[row].item(), step + 1 - int(steps_before[row])
            if not failed[step, row]:
                numbers = {} if known is None else by_key(self._keys, known[step, row])
                episodes.append(Episode(total, length, numbers))
            sum_before[row], steps_before[row] = sums[step, row], step + 1
        self._returns[env_ids] = sums[-1] - sum_before
        self._lengths[env_ids] = len(reward) - steps_before
        return episodes

    def count_step(
        self,
        env_ids: np.ndarray,
        reward: np.ndarray,
        over: np.ndarray,
        failed: np.ndarray,
        infos: Sequence[dict[str, Any]],
        autoreset: bool,
    ) -> list[Episode]:
        """Count a further step of some environments, as `count` does.

        Args:
            env_ids: `(n,)`, each at most once.
            reward: `(n,)`.
            over: bool `(n,)`.
            failed: bool `(n,)`.
            infos: n, of the step.
            autoreset: whether the environments were reset in the step: then the last info is inside the new one.

        Raises:
            EnvError: the value of a key is not a number.
        """
        numbers = _last_numbers(env_ids, infos, over, self._keys, autoreset)
        return self.count(env_ids, reward[None], over[None], failed[None], None if numbers is None else numbers[None])


def by_key(keys: Sequence[str], numbers: np.ndarray) -> dict[str, float]:
    """Return K numbers by their names, without those that are NaN."""
    return {key: number for key, number in zip(keys, numbers.tolist(), strict=True) if not math.isnan(number)}


def _last_numbers(
    env_ids: np.ndarray, infos: Sequence[dict[str, Any]], over: np.ndarray, keys: Sequence[str], autoreset: bool
) -> np.ndarray | None:
    """Return the numbers `(n, K)` of infos where an episode ended, otherwise NaN; None if none ended."""
    rows = over.nonzero()[0].tolist()
    if not rows:
        return None
    numbers = np.full((len(infos), len(keys)), np.nan)
    for row in rows:
        info = infos[row].get(FINAL_INFO, {}) if autoreset else infos[row]
        if info:
            numbers[row] = numbers_in(int(env_ids[row]), info, keys)
    return numbers


def metric_of(key: str) -> str:
    """Return the name of the metric for a key of infos."""
    return SUCCESS_RATE if key == SUCCESS else INFO_PREFIX + key


def is_of_info(metric: str) -> bool:
    """Return whether a metric is the mean of an info."""
    return metric == SUCCESS_RATE or metric.startswith(INFO_PREFIX)


def means_of_infos(episodes: Iterable[Episode]) -> Metrics:
    """Return the mean of each info over the episodes that have it, by the metric's name."""
    numbers: dict[str, list[float]] = defaultdict(list)
    for episode in episodes:
        for key, number in episode.infos.items():
            numbers[metric_of(key)].append(number)
    return {name: float(np.mean(values)) for name, values in numbers.items()}


@dataclass(frozen=True)
class Evaluation:
    """An evaluation at some point of the run."""

    steps: int
    """Environment steps of training before it."""
    episodes: int
    """Number of episodes."""
    mean: float
    """The mean of their returns, which `std`, `min` and `max` describe as well."""
    std: float
    min: float
    max: float
    infos: Mapping[str, float] = field(default_factory=dict, hash=False)
    """Means of the last infos of the episodes: `success_rate` and `info_KEY`, if the infos have them."""

    @classmethod
    def of_figures(cls, figures: Metrics) -> Self:
        """Return the evaluation with these `figures`; further names belong to infos, which are missing where NaN."""
        infos = {name: value for name, value in figures.items() if name not in FIGURES and not np.isnan(value)}
        return cls(**{name: figures[name] for name in FIGURES}, infos=infos)  # type: ignore[arg-type]

    @classmethod
    def of(cls, steps: int, episodes: Sequence[Episode]) -> Self:
        """Summarize episodes."""
        returns = np.array([episode.return_ for episode in episodes])
        mean, std, least, most = map(float, (returns.mean(), returns.std(), returns.min(), returns.max()))
        return cls(steps, len(returns), mean, std, least, most, means_of_infos(episodes))

    @property
    def success_rate(self) -> float:
        """The fraction of successes; NaN if the environment does not report `is_success`."""
        return self.infos.get(SUCCESS_RATE, float("nan"))

    @property
    def in_words(self) -> str:
        """The means of infos, as the end of a sentence."""
        return "".join(f", {name} {value:.2f}" for name, value in self.infos.items())

    def figures(self) -> dict[str, float]:
        """Return all figures by name."""
        return {**{name: getattr(self, name) for name in FIGURES}, **self.infos}


FIGURES = [each.name for each in fields(Evaluation) if each.name != "infos"]
"""The names of the figures that every evaluation has."""
