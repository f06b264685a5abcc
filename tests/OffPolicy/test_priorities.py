import numpy as np
import pytest

from OffPolicy import Priorities, SumTree


@pytest.mark.parametrize("size", [1, 31, 1024, 5000])
def test_the_tree_finds_what_a_search_through_all_sums_finds(size: int) -> None:
    rng = np.random.default_rng(size)
    tree = SumTree(size)
    for _ in range(20):
        tree.set(rng.integers(size, size=50), rng.integers(0, 4, 50))  # repeated indexes, zeros; sums are exact
        tree.set(np.array([size - 1]), 1)
        assert tree.total == tree.leaves.sum()
        mass = rng.random(200) * tree.total
        np.testing.assert_array_equal(tree.find(mass), np.searchsorted(tree.leaves.cumsum(), mass, side="right"))


def test_sum_tree_never_finds_zero_priorities_despite_rounding() -> None:
    rng = np.random.default_rng(0)
    tree = SumTree(4000)
    tree.set(np.arange(0, 4000, 2), rng.random(2000) ** 20)
    mass = np.concatenate([[0.0, tree.total, np.nextafter(tree.total, 0)], rng.random(10_000) * tree.total])
    assert (tree.leaves[tree.find(mass)] > 0).all()


def test_sum_tree_finds_the_last_number_of_a_block_despite_rounding() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        tree = SumTree(2048)
        tree.set(np.arange(20), rng.random(20))
        assert tree.find(np.array([tree.total, np.nextafter(tree.total, 0)])).tolist() == [19, 19]


def test_rows_are_sampled_in_proportion_to_their_errors() -> None:
    priorities = Priorities(2000, alpha=0.5)
    rows = np.array([3, 40, 1999, 7])
    priorities.extend(np.append(rows, 8), np.array([True] * 4 + [False]))
    priorities.update(rows, np.array([1.0, -4.0, 9.0, 0.0]))
    drawn = priorities.sample(60_000, np.random.default_rng(1))
    wanted = np.random.default_rng(2).choice(rows, 60_000, p=np.array([1, 2, 3, 0.001]) / 6.001)
    for row in rows:
        assert abs((drawn == row).mean() - (wanted == row).mean()) < 0.01
    assert set(drawn) <= set(rows)


def test_importance_weights_undo_prioritized_sampling() -> None:
    """With beta 1, the weighted mean of draws is the mean over all rows."""
    priorities = Priorities(10, alpha=1.0)
    priorities.extend(np.arange(4), np.ones(4, bool))
    priorities.update(np.arange(4), np.array([1.0, 2.0, 3.0, 4.0]))
    rows = np.arange(4)
    np.testing.assert_allclose(priorities.weights(rows, 1.0), [1, 1 / 2, 1 / 3, 1 / 4], rtol=1e-5)
    np.testing.assert_allclose(priorities.weights(rows, 0.5), [1, 2**-0.5, 3**-0.5, 0.5], rtol=1e-5)
    drawn = priorities.sample(20_000, np.random.default_rng(0))
    weights = priorities.weights(drawn, 1.0)
    assert np.average(drawn, weights=weights) == pytest.approx(1.5, abs=0.03)


def test_new_rows_have_the_largest_priority_so_far() -> None:
    priorities = Priorities(10, alpha=1.0)
    priorities.extend(np.array([0, 1]), np.array([True, True]))
    priorities.update(np.array([0, 1]), np.array([5.0, 0.1]))
    priorities.extend(np.array([2, 3]), np.array([True, False]))
    np.testing.assert_allclose(priorities.tree.leaves[:4], [5, 0.1, 5, 0], rtol=1e-4)


def test_saved_priorities_are_the_same() -> None:
    priorities, other = Priorities(3000, 0.6), Priorities(3000, 0.6)
    rng = np.random.default_rng(0)
    priorities.extend(np.arange(3000), np.ones(3000, bool))
    priorities.update(np.arange(2000), rng.normal(size=2000) * 9)
    other.load_state(priorities.state())
    for mine, its in zip(priorities.tree.levels, other.tree.levels, strict=True):
        np.testing.assert_array_equal(mine, its)
    assert other.largest == priorities.largest
