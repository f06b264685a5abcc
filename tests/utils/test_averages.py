"""The mean of several states."""

import random
from typing import Any

import numpy as np
import pytest
import torch

from parallel_rl.utils import mean_of_states


def test_floats_are_averaged_and_whole_numbers_are_counts() -> None:
    one = {"w": np.array([1.0, 2.0], np.float32), "n": 3, "done": False, "lr": 0.5, "name": "a", "none": None}
    other = {"w": np.array([3.0, 6.0], np.float32), "n": 5, "done": True, "lr": 1.5, "name": "a", "none": None}
    mean = mean_of_states([one, other])
    assert mean["w"].tolist() == [2.0, 4.0]
    assert mean["w"].dtype == np.float32
    assert {**mean, "w": 0} == {"w": 0, "n": 5, "done": True, "lr": 1.0, "name": "a", "none": None}
    assert one["w"].tolist() == [1.0, 2.0]
    assert mean_of_states([np.array(1.0), np.array(2.0)]).shape == ()
    assert mean_of_states([np.array([1, 5]), np.array([4, 2])]).tolist() == [4, 5]


def test_tensors_lists_and_tuples_are_averaged() -> None:
    states = [{"parts": [torch.tensor([value]), (value, torch.tensor([int(value)]))]} for value in (1.0, 4.0)]
    first, (second, third) = mean_of_states(states)["parts"]
    assert (first.tolist(), second, third.tolist()) == ([2.5], 2.5, [4])


def test_mean_of_states_takes_random_states_of_the_first() -> None:
    states = [
        {"random": np.random.default_rng(seed).bit_generator.state, "rng": random.Random(seed)} for seed in (1, 2)
    ]
    assert mean_of_states(states) == states[0]


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ((object(), object()), TypeError, "there is no mean of a.b, a object"),
        (("x", "y"), ValueError, "different values have no mean: a.b has 'x' and 'y'"),
        ((np.zeros(2), np.zeros(3)), ValueError, r"different shapes have no mean: a.b has \(2,\) and \(3,\)"),
        (([1], [1, 2]), ValueError, "different lengths have no mean: a.b has 1 and 2"),
        (({"c": 1}, {"d": 1}), ValueError, r"different keys have no mean: a.b has \['c'\] and \['d'\]"),
        ((1, None), ValueError, "a.b is of the types NoneType, int"),
    ],
)
def test_mean_of_states_names_what_has_no_mean(values: tuple[Any, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        mean_of_states([{"a": {"b": value}} for value in values])
