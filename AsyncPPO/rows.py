"""Rows of metrics: of each update, or the mean of several."""

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from AsyncPPO.agent import Agent, optional
from AsyncPPO.callbacks.base import call
from AsyncPPO.episodes import means_of_infos
from parallel_rl.utils import Metrics, State, whole_number

if TYPE_CHECKING:
    from AsyncPPO.trainer import AsyncTrainer

ROW_STEPS = 1000
"""The least number of environment steps in a row of metrics of an off-policy agent."""

NO_EPISODE = (
    "no episode ended within {:,} steps, so there is no mean return: take more steps, or if episodes never end, use a "
    "time limit (gymnasium.wrappers.TimeLimit)"
)
"""The warning at the end of a run without an episode; it takes the number of steps."""


class RowMeans:
    """The means of the metrics of the updates since the last row.

    An off-policy agent may update in every step, so a row covers several updates. Rows depend on steps, not on
    seconds, so that the seed determines the history.
    """

    def __init__(self, agent: Agent) -> None:
        """Start without updates; an agent with `on_policy` gets a row for each."""
        self._steps_between = 0 if optional(agent, "on_policy") else ROW_STEPS
        self._last = 0
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, metrics: Metrics) -> None:
        """Add the metrics of an update; a name may be missing in some."""
        for name, value in metrics.items():
            total, count = self._sums.get(name, (None, 0))
            self._sums[name] = (value if total is None else total + value, count + 1)

    def is_due(self, steps: int, *, last: bool) -> bool:
        """Return whether there is a row to make after `steps` of the run, or with `last` at its end."""
        return bool(self._sums) and (last or steps >= self._last + self._steps_between)

    def is_missing(self, begin: int) -> bool:
        """Return whether there was no row since step `begin`."""
        return self._last <= begin

    def take(self, steps: int) -> Metrics:
        """Return the means, and start the next row after `steps`."""
        row = {name: total / count for name, (total, count) in self._sums.items()}
        self._sums, self._last = {}, steps
        return row

    def state(self) -> State:
        """Return the sums so far."""
        return {"last": self._last, "sums": {name: list(pair) for name, pair in self._sums.items()}}

    def load_state(self, state: State) -> None:
        """Restore what `state` returned.

        Raises:
            ValueError, TypeError, LookupError: it is not such a state.
        """
        sums = {name: (float(total), whole_number(count, "count")) for name, (total, count) in state["sums"].items()}
        self._last, self._sums = whole_number(state["last"], "number of steps"), sums


def report(trainer: "AsyncTrainer") -> Metrics:
    """Add a row to a trainer's history and call `on_update`; return the row with the metrics that callbacks added.

    Callbacks that store metrics come last, so that they see all of them.

    Raises:
        ValueError: a callback changed a metric that the row has, or the update returned one of the name of a column.
    """
    row = _next_row(trainer)
    trainer.history.append(row)
    for callback in [callback for callback in trainer.callbacks if not _stores(callback)]:
        before = dict(row)
        call([callback], "on_update", trainer, row)
        _check_unchanged(before, row, type(callback).__name__)
    trainer.history.replace_last(row)
    return _store(trainer)


def report_without_update(trainer: "AsyncTrainer") -> Metrics:
    """Add a row with the returns of a run without an update; return it.

    Only callbacks that store metrics get it: others may rely on the metrics of an update.
    """
    trainer.history.append(_next_row(trainer))
    return _store(trainer)


def _store(trainer: "AsyncTrainer") -> Metrics:
    """Pass the last row to the callbacks that store metrics, and return it."""
    row = trainer.history[-1]
    call(filter(_stores, trainer.callbacks), "on_update", trainer, row)
    return row


def _stores(callback: Any) -> bool:
    return getattr(callback, "stores", False)


def _check_unchanged(before: Metrics, row: Metrics, who: str) -> None:
    for name, value in before.items():
        if row.get(name, value) != value and not math.isnan(value):  # NaN: the metric has no value yet
            raise ValueError(
                f"{who}.on_update changed the metric {name!r} from {value} to {row[name]!r}: give your own another name"
            )


def warn_of_missing_metrics(trainer: "AsyncTrainer") -> None:
    """Warn at the end of a run if there is no mean return, or no info with one of the `info_keys`."""
    if trainer.warns_of_short_runs and not (trainer.episodes_done or trainer.stopped):
        warnings.warn(NO_EPISODE.format(trainer.steps_done), RuntimeWarning, stacklevel=3)
    known = means_of_infos(trainer.recent)
    missing = [key for metric, key in trainer.info_metrics.items() if metric not in known]
    if missing and trainer.recent:
        text = f"the last infos of the last {len(trainer.recent)} episodes have no {', '.join(missing)} (info_keys)"
        warnings.warn(text, RuntimeWarning, stacklevel=3)


def _next_row(trainer: "AsyncTrainer") -> Metrics:
    """Return the next row of a trainer's history, with the means of the metrics of its updates."""
    metrics, recent, nan = trainer.rows.take(trainer.steps_done), trainer.recent, float("nan")
    row = {
        "steps": trainer.steps_done,
        "seconds": trainer.seconds,
        "episodes": trainer.episodes_done,
        "mean_return": trainer.mean_return,
        "mean_length": float(np.mean([episode.length for episode in recent])) if recent else nan,
    }
    if taken := metrics.keys() & {*row, *trainer.info_metrics, "restarts"}:
        raise ValueError(f"the agent's update returned the metrics {', '.join(sorted(taken))}, which a row has already")
    known = [*row, *trainer.info_metrics, *trainer.history.columns]  # an update may lack a metric of earlier ones
    row = dict.fromkeys(known, nan) | row | means_of_infos(recent) | metrics
    return row | ({"restarts": trainer.restarts} if trainer.counts_restarts else {})
