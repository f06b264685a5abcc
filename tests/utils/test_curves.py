import numpy as np

from parallel_rl.utils.plots import align, curve_of


def line(*places: float) -> np.ndarray:
    return np.array([(place, 10 * place) for place in places], float)


def test_curves_are_compared_at_the_points_of_all() -> None:
    places, returns = align([line(1, 2, 4), line(2, 3)])
    assert places.tolist() == [1, 2, 3, 4]
    np.testing.assert_array_equal(returns, [[10, 20, 30, 40], [np.nan, 20, 30, np.nan]])


def test_a_single_curve_is_unchanged() -> None:
    places, returns = align([line(1, 2, 7)])
    known = np.isfinite(returns[0])
    assert np.column_stack([places[known], returns[0, known]]).tolist() == line(1, 2, 7).tolist()


def test_long_curves_are_compared_from_end_to_end() -> None:
    places, returns = align([line(*range(10_000)), line(*range(5, 20_000))])
    assert len(places) < 2100
    assert (places[np.isfinite(returns[0])][0], places[np.isfinite(returns[0])][-1]) == (0, 9_999)
    both = np.isfinite(returns).all(axis=0)
    assert (places[both][0], places[both][-1]) == (5, 9_999)
    np.testing.assert_allclose(returns[:, both].mean(axis=0), 10 * places[both])


def test_a_curve_begins_with_the_first_episode() -> None:
    rows = [{"steps": 8, "seconds": 0.5, "mean_return": np.nan}, {"steps": 16, "seconds": 1.5, "mean_return": 3.0}]
    assert curve_of(rows).tolist() == [[16, 3]]
    assert curve_of(rows, "seconds").tolist() == [[1.5, 3]]
    assert curve_of([]).shape == (0, 2)
