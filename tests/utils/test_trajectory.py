"""Ends and next observations, against literal tables."""

import numpy as np
import pytest

from parallel_rl.utils import (
    Batch,
    Trajectory,
    bootstrap_values,
    ends_of,
    episode_numbers,
    next_rows,
    true_next_obs,
)

TERMINATED = np.array([False, True, False, False, False])
TRUNCATED = np.array([False, False, False, True, False])


def trajectory(env_id: int, first: int, terminated: np.ndarray, truncated: np.ndarray, final: list[int]) -> Trajectory:
    obs = np.arange(first, first + len(terminated), dtype=np.float32)[:, None]
    ones = np.ones(len(terminated), np.float32)
    return Trajectory(env_id, obs, ones, ones, terminated, truncated, np.array(final, np.float32)[:, None], {"x": obs})


def test_ends_of_trajectory_are_both_flags_and_the_last_row() -> None:
    assert ends_of(TERMINATED, TRUNCATED).tolist() == [False, True, False, True, True]
    assert TRUNCATED.tolist() == [False, False, False, True, False], "the flags themselves stay"
    assert ends_of(TERMINATED[:0], TRUNCATED[:0]).tolist() == []


def test_episode_numbers_rise_after_each_end() -> None:
    ended = np.array([False, True, True, False, False])
    np.testing.assert_array_equal(episode_numbers(ended), [0, 0, 1, 2, 2])


def test_next_rows_of_trajectory_follow_in_time_but_at_ends() -> None:
    rows = np.array([1, 2, 3, 4, 5])
    assert next_rows(rows, ends_of(TERMINATED, TRUNCATED), np.array([20, 40, 50])).tolist() == [2, 20, 4, 40, 50]
    assert rows.tolist() == [1, 2, 3, 4, 5]


def test_next_rows_time_major_stay_within_their_environment() -> None:
    """Two environments, time-major: the first terminates at its first row, the second is truncated at its second."""
    terminated = np.array([[True, False], [False, False], [False, False]])
    truncated = np.array([[False, False], [False, True], [False, False]])
    ends = ends_of(terminated, truncated)
    assert ends.tolist() == [[True, False], [False, True], [True, True]]
    rows = np.array([[[1], [11]], [[2], [12]], [[3], [13]]])
    following = next_rows(rows, ends, np.array([[100], [120], [300], [310]]))
    assert following.tolist() == [[[100], [12]], [[3], [120]], [[300], [310]]]


def test_true_next_obs_after_reset_is_the_last_of_the_old_episode() -> None:
    obs = np.array([[1], [2], [3]])
    ended = np.array([False, True, False])
    assert true_next_obs(obs, ended, np.array([[9]])).tolist() == [[1], [9], [3]]
    assert obs.tolist() == [[1], [2], [3]]


def test_bootstrap_values_after_termination_are_zero_and_after_truncation_are_not() -> None:
    assert bootstrap_values(np.array([5.0, 6.0]), np.array([True, False])).tolist() == [0.0, 6.0]


def test_batch_of_trajectories_keeps_them_apart() -> None:
    batch = Batch.of(
        [trajectory(4, 10, TERMINATED, TRUNCATED, [100, 101, 102]), trajectory(2, 20, *[TERMINATED[:1]] * 2, [200])]
    )
    assert batch.next_obs[:, 0].tolist() == [11, 100, 13, 101, 102, 200]
    assert batch.ends.tolist() == [False, True, False, True, True, True]
    assert batch.trajectory_ends.tolist() == [False, False, False, False, True, True]
    assert batch.env_ids.tolist() == [4, 2]
    assert batch.extras["x"][:, 0].tolist() == [10, 11, 12, 13, 14, 20]


def test_batch_of_nothing_or_of_other_extras_is_an_error() -> None:
    with pytest.raises(ValueError, match="no trajectories"):
        Batch.of([])
    one = trajectory(0, 0, TERMINATED, TRUNCATED, [0, 0, 0])
    other = Trajectory(0, one.obs, one.action, one.reward, TERMINATED, TRUNCATED, one.final_obs)
    with pytest.raises(ValueError, match=r"some trajectories have \['x'\] beside the usual fields"):
        Batch.of([one, other])
