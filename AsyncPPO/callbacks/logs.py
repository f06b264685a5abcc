"""Metrics in files: CSV and TensorBoard."""

import csv
import io
import math
import os
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from AsyncPPO.callbacks.base import Callback
from AsyncPPO.episodes import FIGURES, Evaluation, is_of_info
from parallel_rl.utils import History, Metrics, append_to, older, write_atomically

if TYPE_CHECKING:
    from AsyncPPO.trainer import AsyncTrainer

METRICS_FILE = "metrics.csv"
EVALUATIONS_FILE = "evaluations.csv"
TAGS = {
    "mean_return": "rollout/ep_rew_mean",
    "mean_length": "rollout/ep_len_mean",
    "episodes": "time/episodes",
    "seconds": "time/time_elapsed",
    "restarts": "time/restarts",
    "epsilon": "rollout/exploration_rate",
    "lr": "train/learning_rate",
    "clip": "train/clip_range",
    "policy_loss": "train/policy_gradient_loss",
}
"""TensorBoard tags, as in Stable-Baselines3; the tag of any other metric is `train/` and its name, or `rollout/`."""
LONGEST_NUMBER = 18
"""Limit on the digits of an integer in a table."""
POLICY_LAG = "policy_lag"
"""A metric whose column a resumed run drops if it has no lag."""
TENSORBOARD_SECONDS = 2.0
"""Seconds between flushes of the event file."""


class Table:
    """A CSV file of numbers, up to date after each row."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._columns: list[str] = []

    def write(self, rows: Iterable[Mapping[str, Any]], columns: list[str]) -> None:
        """Write the whole table, or nothing on failure; missing values are NaN."""
        self._columns = columns
        header = dict(zip(columns, columns, strict=True))
        write_atomically(self.path, lambda file: file.write(self._lines(chain([header], rows)).encode()))

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row; rewrite the table if the row has a new column."""
        if new := [name for name in row if name not in self._columns]:
            self.write(read_table(self.path, ()) if self._columns else [], self._columns + new)
        with append_to(self.path) as file:
            file.write(self._lines([row]))

    def _lines(self, rows: Iterable[Mapping[str, Any]]) -> str:
        table = io.StringIO()
        if self._columns:
            csv.DictWriter(table, self._columns, restval=math.nan, lineterminator="\n").writerows(rows)
        return table.getvalue()


class CSVLog(Callback):
    """Writes `metrics.csv`, a line for each row of the history, and `evaluations.csv`."""

    stores = True

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        """Write into `directory`, which the run makes if it is missing."""
        self.metrics = Table(Path(directory) / METRICS_FILE)
        self.evaluations = Table(Path(directory) / EVALUATIONS_FILE)

    def on_start(self, trainer: "AsyncTrainer") -> None:
        """Load the rows up to the current step into the trainer, so that a resumed run keeps its history."""
        self.metrics.path.parent.mkdir(parents=True, exist_ok=True)
        done = trainer.steps_done
        if not trainer.history:
            rows = [row for row in read_table(self.metrics.path) if trainer.has_reported(row["steps"])]
            trainer.history = History(
                {name: value for name, value in older.metrics(row).items() if trainer.lag or name != POLICY_LAG}
                for row in rows
            )
        if not trainer.evaluations:
            rows = [row for row in read_table(self.evaluations.path, FIGURES) if row["steps"] <= done]
            trainer.evaluations = [Evaluation.of_figures(row) for row in rows]
        self.metrics.write(trainer.history, trainer.history.columns)
        rows = [evaluation.figures() for evaluation in trainer.evaluations]
        self.evaluations.write(rows, [*dict.fromkeys(chain.from_iterable(rows))])

    def on_update(self, trainer: "AsyncTrainer", metrics: Metrics) -> None:
        """Append a line to `metrics.csv`."""
        self.metrics.add(metrics)

    def on_evaluation(self, trainer: "AsyncTrainer", evaluation: Evaluation) -> None:
        """Append a line to `evaluations.csv`."""
        self.evaluations.add(evaluation.figures())


class TensorBoard(Callback):
    """Writes event files for TensorBoard, with the tags that Stable-Baselines3 uses."""

    stores = True

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        """Write into `directory`, which the run makes if it is missing."""
        self.directory = Path(directory)

    def on_start(self, trainer: "AsyncTrainer") -> None:
        """Open an event file; it supersedes later events of an interrupted run."""
        # not SummaryWriter: its thread dies when the disk is full, and then writing blocks
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        self.directory.mkdir(parents=True, exist_ok=True)
        suffix = f".{secrets.token_hex(4)}"  # so that nobody can place a link under this name
        self._writer = EventsWriter(str(self.directory / "events"), suffix)
        self._flushed = time.monotonic()
        self._write(trainer.steps_done + 1, session_log=SessionLog(status=SessionLog.START))

    def on_update(self, trainer: "AsyncTrainer", metrics: Metrics) -> None:
        """Write the metrics."""
        scalars = {_tag(name): value for name, value in metrics.items() if name != "steps"}
        self._write_scalars(trainer.steps_done, scalars | {"time/fps": trainer.steps_done / trainer.seconds})

    def on_evaluation(self, trainer: "AsyncTrainer", evaluation: Evaluation) -> None:
        """Write the mean return, and the means of infos."""
        infos = {f"eval/{name}": value for name, value in evaluation.infos.items()}
        self._write_scalars(evaluation.steps, {"eval/mean_reward": evaluation.mean} | infos)

    def on_end(self, trainer: "AsyncTrainer") -> None:
        """Close the file."""
        self._writer.close()

    def _write_scalars(self, step: int, scalars: Metrics) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        finite = {tag: value for tag, value in scalars.items() if np.isfinite(value)}
        self._write(step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=finite[tag]) for tag in finite]))

    def _write(self, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._writer.write_event(Event(wall_time=time.time(), step=step, **content))
        if time.monotonic() > self._flushed + TENSORBOARD_SECONDS:
            self._writer.flush()
            self._flushed = time.monotonic()


def read_table(path: Path, needed: Sequence[str] = ("steps", "seconds", "episodes", "mean_return")) -> list[Metrics]:
    """Return the rows of a file of `CSVLog`; an empty list if there is no such file.

    Raises:
        ValueError: it is not such a table, or lacks columns.
    """
    if not path.is_file():
        return []
    try:
        with open(path, newline="") as file:
            lines = [*csv.reader(line for line in file if line.endswith("\n"))]
        rows = [dict(zip(lines[0], map(_number, line), strict=True)) for line in lines[1:]]
        if rows and (missing := set(needed) - rows[0].keys()):
            raise ValueError(f"it has no columns {', '.join(sorted(missing))}")
        if wrong := [row["steps"] for row in rows if not isinstance(row["steps"], int)]:
            raise ValueError(f"{wrong[0]} is not a number of steps")
        return rows
    except (csv.Error, ValueError) as error:
        raise ValueError(f"{path} is not a table that a run has written: {error}") from error


def _number(text: str) -> float:
    """Return the number in a cell: an int if it has no point.

    Raises:
        ValueError: it is not a number, or has too many digits.
    """
    if not text.isdecimal():
        return float(text)
    if len(text) > LONGEST_NUMBER:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _tag(metric: str) -> str:
    """Return the tag of a metric."""
    of_rollout = is_of_info(metric) or metric.endswith("_reward")
    return TAGS.get(metric, f"rollout/{metric}" if of_rollout else f"train/{metric}")
