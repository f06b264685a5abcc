"""Spaces as plain values."""

import json
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from parallel_rl.utils import describe_space, make_space


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (3,)),
        spaces.Box(-np.inf, np.inf, ()),
        spaces.Box(0, 255, (4, 4, 1), np.uint8),
        spaces.Box(0, 1, (2, 2), np.bool_),
        spaces.Box(np.array([-1, 0.1], np.float32), np.array([1, np.inf], np.float32)),
        spaces.Discrete(3, start=-1),
        spaces.Discrete(3, dtype=np.int32),
        spaces.MultiDiscrete([[2, 3], [4, 5]], start=np.array([[1, 2], [3, 4]])),
        spaces.MultiBinary((2, 3)),
        spaces.MultiBinary(3),
        spaces.Dict([("z", spaces.Discrete(2)), ("a", spaces.Tuple((spaces.Discrete(2), spaces.Box(-1, 1, (1,)))))]),
    ],
    ids=str,
)
def test_a_space_that_is_described_is_made_again(space: spaces.Space) -> None:
    made = make_space(json.loads(json.dumps(describe_space(space))))
    assert made == space
    assert str(made) == str(space)
    assert made.dtype == space.dtype


@pytest.mark.parametrize(
    "wrong",
    [
        5,
        {},
        {"os:system": "true"},
        {"Box": {}},
        {"Box": {"low": 0, "high": 1, "shape": [10**9, 10**9], "dtype": "float32"}},
        {"Box": {"low": 0, "high": 1, "shape": [-2, -2], "dtype": "float32"}},
        {"Box": {"low": 0, "high": 1, "shape": [2], "dtype": "object"}},
        {"Discrete": {"n": 10**400, "start": 0, "dtype": "int64"}},
        {"MultiDiscrete": {"nvec": "x", "start": 0, "dtype": "int64"}},
        {"Tuple": 5},
        {"Dict": [[["a"], {"Discrete": {"n": 1, "start": 0, "dtype": "int64"}}]]},
    ],
    ids=lambda wrong: f"{wrong!r:.40}",
)
def test_make_space_of_a_wrong_description_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="no space is described by"):
        make_space(wrong)


def test_another_space_cannot_be_described() -> None:
    with pytest.raises(TypeError, match="Text"):
        describe_space(spaces.Text(3))
