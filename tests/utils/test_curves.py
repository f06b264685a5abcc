import numpy as np

from parallel_rl.utils.curves import align, curve_of, mean_of


def line(*places: float) -> np.ndarray:
    return np.array([(place, 10 * place) for place in places], float)


def at(places: np.ndarray, values: np.ndarray, place: float) -> float:
    return float(values[np.flatnonzero(places == place)[0]])


def test_mean_of_curves_ignores_missing_ones() -> None:
    low, high = line(1, 2, 3, 4), np.add(line(1, 2), [0, 6])
    places, returns = align([low, high])
    mean = mean_of(returns)
    assert [at(places, mean, place) for place in (1, 2, 3, 4)] == [13, 23, 30, 40]
    after = np.nextafter(2, 3)
    assert at(places, mean, after) == low[1, 1] + 10 * (after - 2), "it jumps where the other ends"


def test_mean_of_no_curve_is_nan() -> None:
    places, returns = align([line(1, 2), line(3, 4)])
    assert np.isnan(mean_of(returns)[(places > 2) & (places < 3)]).all()
    assert ((places > 2) & (places < 3)).any(), "so that the line is broken"
    assert np.isfinite(mean_of(returns)[(places == 2) | (places == 3)]).all()


def test_a_single_curve_is_unchanged() -> None:
    places, returns = align([line(1, 2, 7)])
    known = np.isfinite(returns[0])
    assert np.column_stack([places[known], returns[0, known]]).tolist() == line(1, 2, 7).tolist()


def test_long_curves_are_compared_from_end_to_end() -> None:
    places, returns = align([line(*range(10_000)), line(*range(5, 20_000))])
    assert len(places) < 2100
    assert (places[np.isfinite(returns[0])][0], places[np.isfinite(returns[0])][-1]) == (0, 9_999)
    np.testing.assert_allclose(mean_of(returns)[1:-1], 10 * places[1:-1])


def test_a_curve_begins_with_the_first_episode() -> None:
    rows = [{"steps": 8, "seconds": 0.5, "mean_return": np.nan}, {"steps": 16, "seconds": 1.5, "mean_return": 3.0}]
    assert curve_of(rows).tolist() == [[16, 3]]
    assert curve_of(rows, "seconds").tolist() == [[1.5, 3]]
    assert curve_of([]).shape == (0, 2)
