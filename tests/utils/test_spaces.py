"""Observations of any space as rows of numbers."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from parallel_rl.utils import Features, action_units, bounds_of, row_type, unseen_images

NESTED = spaces.Dict(
    position=spaces.Box(-1, 1, (2,)),
    inner=spaces.Tuple((spaces.Discrete(3, start=5), spaces.Dict(switches=spaces.MultiBinary(2)))),
    camera=spaces.Box(0, 255, (6, 8, 3), np.uint8),
)


def rows_of(space: spaces.Space, elements: list[dict[str, Any]]) -> np.ndarray:
    shape, dtype = row_type(space)
    rows = np.zeros((len(elements), *shape), dtype)
    for row, element in zip(rows, elements, strict=True):
        row["position"], row["camera"] = element["position"], element["camera"]
        row["inner"]["0"], row["inner"]["1"]["switches"] = element["inner"][0], element["inner"][1]["switches"]
    return rows


@pytest.mark.parametrize(
    ("space", "states", "expected"),
    [
        (spaces.Box(-1, 1, (2, 2)), [[[1, 2], [3, 4]]], [[1, 2, 3, 4]]),
        (spaces.Box(-1, 1, ()), [0.5, 2], [[0.5], [2]]),
        (spaces.Discrete(3), [2, 0], [[0, 0, 1], [1, 0, 0]]),
        (spaces.Discrete(3, start=-1), [-1], [[1, 0, 0]]),
        (spaces.MultiDiscrete([2, 3], start=[1, 0]), [[2, 1]], [[0, 1, 0, 1, 0]]),
        (spaces.MultiBinary(3), [[1, 0, 1]], [[1, 0, 1]]),
    ],
)
def test_the_columns_are_those_of_a_literal(space: spaces.Space, states: Any, expected: Any) -> None:
    features, batch = Features.of(space), np.array(states, space.dtype)
    columns, single = features.rows(batch)
    assert not single
    assert columns.dtype == np.float32
    assert columns.tolist() == expected
    assert np.array_equal(features.flatten(batch), columns)
    column, single = features.rows(batch[0])
    assert single
    assert column.tolist() == expected[:1]
    assert features.columns == len(expected[0])


def test_nested_observations_are_numbers_then_pixels() -> None:
    NESTED.seed(0)
    elements: list[Any] = [NESTED.sample() for _ in range(4)]
    features = Features.of(NESTED)
    assert (features.vector, features.columns) == (2 + 3 + 2, 7 + 144)
    columns, single = features.rows(rows_of(NESTED, elements))
    assert not single
    for element, row in zip(elements, columns, strict=True):
        hot = np.eye(3)[element["inner"][0] - 5]
        numbers = {"position": element["position"], "hot": hot, "switches": element["inner"][1]["switches"]}
        assert sorted(row[:7].tolist()) == sorted(np.concatenate([*numbers.values()]).astype(np.float32).tolist())
        assert np.array_equal(row[7:], element["camera"].flatten())
        alone, single = features.rows(element)
        assert single
        assert np.array_equal(alone[0], row)


def test_images_alone_stay_bytes() -> None:
    features = Features.of(spaces.Box(0, 255, (84, 84, 4), np.uint8))
    columns, _ = features.rows(np.zeros((2, 84, 84, 4), np.uint8))
    assert columns.dtype == np.uint8
    assert features.images[0].size == (4, 84, 84)
    assert Features.of(spaces.Box(0, 255, (4, 84, 84), np.uint8)).images[0].channels_first


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((96, 80), (1, 96, 80)),
        ((96, 80, 3), (3, 96, 80)),
        ((3, 96, 80), (3, 96, 80)),
        ((4, 96, 80, 1), (4, 96, 80)),
        ((4, 96, 80, 3), (12, 96, 80)),
        ((4, 3, 96, 80), (12, 96, 80)),
        ((10, 10), (1, 10, 10)),
        ((8, 8, 20), (20, 8, 8)),
        ((20, 8, 8), (20, 8, 8)),
        ((2, 7, 7, 20), (40, 7, 7)),
        ((6, 8, 6), (6, 6, 8)),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64])
def test_boxes_with_shape_and_values_of_images_are_images(shape: tuple[int, ...], size: Any, dtype: Any) -> None:
    space = spaces.Box(0, 255, shape, dtype)
    features, states = Features.of(space), np.full((2, *shape), 7.5).astype(dtype)
    assert (features.vector, features.images[0].size, features.images[0].high) == (0, size, 255)
    columns, single = features.rows(states)
    assert (columns.dtype, columns.shape, single) == (
        np.uint8 if dtype == np.uint8 else np.float32,
        (2, np.prod(shape)),
        False,
    )
    assert (columns == states[0].flat[0]).all()
    assert features.rows(states[0])[1]
    assert not [*unseen_images(space)]


def test_float_images_keep_their_fractions() -> None:
    space = spaces.Box(0, 1, (40, 40, 3), np.float64)
    features = Features.of(space)
    assert features.images[0].high == 1
    assert (features.rows(np.full((2, 40, 40, 3), 0.25))[0] == 0.25).all()
    both = Features.of(spaces.Dict(bytes=spaces.Box(0, 255, (6, 6, 1), np.uint8), floats=spaces.Box(0, 1, (6, 6, 1))))
    columns, _ = both.rows({"bytes": np.full((1, 6, 6, 1), 9, np.uint8), "floats": np.full((1, 6, 6, 1), 0.5)})
    assert columns.tolist() == [[9.0] * 36 + [0.5] * 36]
    assert Features.of(spaces.Box(0, 2**16 - 1, (40, 40), np.uint16)).images[0].high == 65535


@pytest.mark.parametrize(
    ("space", "warns"),
    [
        (spaces.Box(-np.inf, np.inf, (40, 40, 3)), True),
        (spaces.Box(-1, 1, (3, 40, 40)), True),
        (spaces.Box(0, 100, (2, 40, 40, 3), np.int32), True),
        (spaces.Box(0, 1, (64 * 64,)), True),
        (spaces.MultiBinary([40, 40, 2]), True),
        (spaces.Box(0, 1, (10, 10)), False),
        (spaces.Box(0, 5, (8, 8), np.uint8), False),
        (spaces.Box(-np.inf, np.inf, (5, 5)), False),
        (spaces.Box(-np.inf, np.inf, (376,)), False),
        (spaces.Box(0, 255, (4, 4, 3), np.uint8), True),
        (spaces.Box(0, 255, (3, 3, 3)), True),
        (spaces.Box(0, 1, (4, 4, 3), np.uint8), False),
        (spaces.Box(0, 255, (4, 128), np.uint8), False),
        (spaces.Box(0, 255, (2, 3, 4, 40, 40), np.uint8), True),
        (spaces.Discrete(10_000), False),
    ],
)
def test_what_might_be_an_image_is_named(space: spaces.Space, warns: bool) -> None:
    assert not Features.of(space).images
    assert len([*unseen_images(space)]) == warns
    nested = spaces.Dict(a=spaces.Discrete(2), b=spaces.Tuple((space,)))
    assert [part.split(",")[0] for part in unseen_images(nested)] == ["b.0"] * warns


@pytest.mark.parametrize("high", [1, 255])
def test_an_agent_for_one_image_does_not_fit_another(high: int) -> None:
    floats, bytes_ = spaces.Box(0, 1, (40, 40, 3)), spaces.Box(0, high, (40, 40, 3), np.uint8)
    assert Features.of(floats).fit(floats)
    assert not Features.of(floats).fit(bytes_)
    assert not Features.of(bytes_).fit(floats)


def test_features_keep_the_mask_separate() -> None:
    space = spaces.Dict(observation=spaces.Box(-1, 1, (2,)), action_mask=spaces.MultiBinary(3))
    features = Features.of(space)
    columns, _ = features.rows({"observation": np.array([1.0, 2.0]), "action_mask": np.array([0, 1, 1])})
    assert features.columns == 2
    assert columns.tolist() == [[1, 2, 0, 1, 1]]


@pytest.mark.parametrize("space", [spaces.Text(3), spaces.Dict(a=spaces.Sequence(spaces.Discrete(2)))])
def test_other_spaces_are_named(space: spaces.Space) -> None:
    with pytest.raises(TypeError, match=r"space (Text|Sequence).* is not supported"):
        Features.of(space)


def test_states_of_another_shape_are_named() -> None:
    expected = r"the states of inner\.1\.switches have shape \(3,\), but the agent takes \(2,\), or \(M, 2\)"
    with pytest.raises(ValueError, match=expected):
        Features.of(NESTED).rows(
            {
                "position": np.zeros(2),
                "inner": (np.int64(5), {"switches": np.zeros(3)}),
                "camera": np.zeros((6, 8, 3), np.uint8),
            }
        )


LARGEST = float(np.finfo(np.float32).max)


@pytest.mark.parametrize(
    ("low", "high", "dtype", "centre", "scale"),
    [
        (-1, 3, np.float32, 1, 2),
        (5, np.inf, np.float32, 6, 1),
        (-np.inf, -5, np.float64, -6, 1),
        (0, np.inf, np.float32, 0, 1),
        (-3, np.inf, np.float32, 0, 1),
        (-np.inf, 7, np.float32, 0, 1),
        (-np.inf, np.inf, np.float32, 0, 1),
        (20, LARGEST, np.float32, 21, 1),
        (20, LARGEST, np.float64, 21, 1),
        (-LARGEST, LARGEST, np.float32, 0, 1),
        (-np.finfo(np.float64).max, np.finfo(np.float64).max, np.float64, 0, 1),
        (-1e300, -2, np.float64, -3, 1),
        (2, np.finfo(np.float16).max, np.float16, 3, 1),
        (-1e30, 1e30, np.float64, 0, 1e30),
        (2.0**20, np.inf, np.float32, 2.0**20 + 2**7, 2**7),
    ],
)
def test_action_units_are_centered_between_bounds_or_beside_a_finite_one(
    low: float, high: float, dtype: Any, centre: float, scale: float
) -> None:
    offset, unit = action_units(*bounds_of(spaces.Box(low, high, (2,), dtype)))
    assert (offset.tolist(), unit.tolist()) == ([centre] * 2, [scale] * 2)


def test_each_dimension_of_actions_has_its_own_units() -> None:
    low, high = np.array([-1, 5, -np.inf, -np.inf]), np.array([1, np.inf, -5, np.inf])
    offset, unit = action_units(*bounds_of(spaces.Box(low, high, dtype=np.float64)), unit=3.0)
    assert (offset.tolist(), unit.tolist()) == ([0, 8, -8, 0], [1, 3, 3, 3])


def test_the_parts_of_columns_have_the_names_of_the_observation() -> None:
    NESTED.seed(0)
    elements: list[Any] = [NESTED.sample() for _ in range(4)]
    features = Features.of(NESTED)
    parts = features.parts(features.rows(rows_of(NESTED, elements))[0])
    assert {name: part.shape for name, part in parts.items()} == {
        "position": (4, 2),
        "inner.0": (4, 3),
        "inner.1.switches": (4, 2),
        "camera": (4, 6, 8, 3),
    }
    for number, element in enumerate(elements):
        assert np.array_equal(parts["position"][number], element["position"])
        assert parts["inner.0"][number].argmax() == element["inner"][0] - 5
        assert np.array_equal(parts["inner.1.switches"][number], element["inner"][1]["switches"])
        assert np.array_equal(parts["camera"][number], element["camera"])
    masked = Features.of(spaces.Dict(action_mask=spaces.MultiBinary(2), seen=spaces.Box(-1, 1, (3,))))
    assert masked.parts(torch.ones(5, 3))["seen"].shape == (5, 3)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (4,)),
        spaces.Discrete(3),
        spaces.Dict(a=spaces.Box(-1, 1, (2,))),
        spaces.Tuple((spaces.Discrete(2), spaces.Discrete(2))),
        NESTED,
    ],
    ids=["box", "discrete", "dict", "tuple", "nested"],
)
def test_what_reset_or_step_returns_is_no_observation(space: spaces.Space[Any]) -> None:
    element, features = space.sample(), Features.of(space)
    for returned in ((element, {}), (element, 1.0, False, False, {"reward": 1})):
        with pytest.raises(ValueError, match="the states are what reset or step returns"):
            features.rows(returned)
    assert features.rows(element)[1]


def test_an_observation_that_is_a_tuple_may_end_with_a_dict() -> None:
    space = spaces.Tuple((spaces.Discrete(2), spaces.Dict(a=spaces.Box(-1, 1, (2,)))))
    assert Features.of(space).rows(space.sample())[0].shape == (1, 4)
