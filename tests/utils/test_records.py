"""Settings as plain values, and the differences between two records of them."""

import json
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from parallel_rl.utils import describe_space
from parallel_rl.utils.records import check_equal, plain


class Half:
    def __call__(self, fraction: float) -> float:
        return fraction / 2


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, [2.5, ("a", None)]), [1, [2.5, ["a", None]]]),
        (np.array([[1, 2]]), [[1, 2]]),
        (np.float64(0.5), 0.5),
        (spaces.Discrete(3), describe_space(spaces.Discrete(3))),
        (json.dumps, "json.dumps"),
        (Half, f"{__name__}.Half"),
        ((Half(),), [f"{__name__}.Half"]),
    ],
)
def test_a_plain_value_is_what_a_file_returns(value: Any, expected: Any) -> None:
    assert plain(value) == expected
    assert json.loads(json.dumps(plain(value))) == expected


def test_only_names_of_both_records_are_compared_and_all_that_differ_are_named() -> None:
    saved = {"gamma": 0.9, "sizes": [8, 8], "lr": 1.0, "gone": 3}
    check_equal(saved, {"gamma": 0.9, "sizes": (8, 8), "new": 4}, "the file")
    with pytest.raises(
        ValueError, match=r"^the file does not fit: gamma is 0.9 there and 0.5 here; lr is 1.0 there and 2"
    ):
        check_equal(saved, {"lr": 2.0, "gamma": 0.5, "sizes": (8, 8)}, "the file")
