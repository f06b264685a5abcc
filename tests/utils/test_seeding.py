"""Schedules and seeds."""

from parallel_rl.utils import linear, spawn_seeds


def test_linear_schedule() -> None:
    assert [linear(0.4, progress) for progress in (0.0, 0.25, 1.0, 1.5)] == [0.4, 0.4 * 0.75, 0.0, 0.0]


def test_seeds_are_distinct_and_do_not_depend_on_how_many() -> None:
    seeds = spawn_seeds(3, 100)
    assert len(set(seeds)) == 100
    assert spawn_seeds(3, 7) == seeds[:7]
    assert spawn_seeds(4, 7) != seeds[:7]
    assert spawn_seeds(None, 3) != spawn_seeds(None, 3)
