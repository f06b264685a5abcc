"""The metrics of a run."""

import tracemalloc
from typing import Any

import numpy as np
import pytest

from parallel_rl.utils import History


def test_history_is_a_list_of_dicts() -> None:
    rows = [{"steps": step, "loss": step / 3} for step in range(5)]
    history = History(rows)
    assert list(history) == rows
    assert (len(history), history[-1], history[1:4:2]) == (5, rows[-1], rows[1:4:2])
    assert isinstance(history[0]["steps"], int)
    with pytest.raises(IndexError):
        history[5]


def test_other_metrics_are_refused() -> None:
    history = History([{"loss": 1.0}])
    with pytest.raises(ValueError, match=r"metrics are missing that the rows before have: \['loss'\]"):
        history.append({"gain": 1.0})


def test_a_metric_that_comes_later_is_nan_before() -> None:
    history = History([{"loss": 1.0, "steps": 2}])
    history.append({"loss": 2.0, "rate": 1, "steps": 4})
    assert str(list(history)) == str(
        [{"loss": 1.0, "steps": 2, "rate": float("nan")}, {"loss": 2.0, "steps": 4, "rate": 1.0}]
    )
    assert history.columns == ["loss", "steps", "rate"]


@pytest.mark.parametrize("first", [0, False, np.int64(0)])
def test_a_metric_whose_first_value_is_whole_keeps_its_later_fractions(first: float) -> None:
    history = History([{"steps": 1, "loss": first}, {"steps": 2, "loss": 0.7}, {"steps": 3, "loss": 1}])
    assert [row["loss"] for row in history] == [0.0, 0.7, 1.0]
    assert {type(row["loss"]) for row in history} == {float}
    assert {type(row["steps"]) for row in history} == {int}


def test_history_takes_eight_bytes_for_a_number() -> None:
    history = History()
    tracemalloc.start()
    for step in range(20_000):
        history.append({"steps": step, "loss": step / 3})
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 500_000


@pytest.mark.parametrize("wrong", ["late", np.ones(3), None])
def test_a_row_with_something_else_than_numbers_changes_nothing(wrong: Any) -> None:
    history = History([{"steps": 1, "loss": 0.5}, {"steps": 2, "loss": 0.4}])
    for change in (history.append, history.replace_last):
        with pytest.raises(TypeError, match="the metric 'loss' must be a number, not"):
            change({"steps": 3, "loss": wrong})
    assert list(history) == [{"steps": 1, "loss": 0.5}, {"steps": 2, "loss": 0.4}]
    history.replace_last({"steps": 3, "loss": 1})
    assert list(history) == [{"steps": 1, "loss": 0.5}, {"steps": 3, "loss": 1.0}]
