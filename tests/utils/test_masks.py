"""The helpers of the hand-written loop: the mask, and the rows of running environments."""

import numpy as np
import pytest

from AsyncPPO import VecMemory
from parallel_rl import utils


def test_counting_the_running_environments() -> None:
    mask = np.array([False, True, False, True])
    assert utils.indexes_of_active_environments(mask).tolist() == [0, 2]
    assert utils.number_of_active_environments(mask) == 2
    assert utils.range_of_active_environments(mask) == range(2)


def test_update_writes_into_the_running_slots_in_place() -> None:
    mask = np.array([False, True, False, True, False])
    returned = utils.update_active_environments_list(mask, [True, False, True])
    assert returned is mask
    assert mask.tolist() == [True, True, False, True, True]


@pytest.mark.parametrize("finished", [[True], [True] * 5, True])
def test_update_refuses_a_wrong_number(finished: object) -> None:
    with pytest.raises(ValueError, match="3 environments are running"):
        utils.update_active_environments_list(np.array([False, True, False, True, False]), finished)


def test_dropout_keeps_the_rows_that_go_on() -> None:
    states = np.arange(6).reshape(3, 2)
    assert utils.inactive_states_dropout(states, [False, True, False]).tolist() == [[0, 1], [4, 5]]


def test_a_hand_written_loop_fills_each_environments_buffer() -> None:
    """Three environments of 3, 1 and 2 steps; an observation shows its environment and step."""
    lengths, buffer, target = [3, 1, 2], VecMemory(num_envs=3), []
    mask = np.zeros(3, dtype=bool)
    states = np.array([[0, 0], [1, 0], [2, 0]], dtype=np.float32)
    while not mask.all():
        next_states = states + np.array([0, 1])
        dones = np.array([step >= lengths[int(env)] for env, step in next_states])
        rewards = states.sum(axis=1)
        utils.buffer_append(buffer, states, states[:, 0], rewards, dones, is_env_terminal=mask, num_envs=3)
        states = utils.inactive_states_dropout(next_states, dones)
        mask = utils.update_active_environments_list(mask, dones)
    utils.buffer_to_target_buffer_transfer(buffer, target)
    assert [trajectory.obs.tolist() for trajectory in target] == [[[0, 0], [0, 1], [0, 2]], [[1, 0]], [[2, 0], [2, 1]]]
    assert [trajectory.reward.tolist() for trajectory in target] == [[0, 1, 2], [1], [2, 3]]
    assert [trajectory.terminated.tolist() for trajectory in target] == [[False, False, True], [True], [False, True]]
    assert len(buffer) == 0


def append(buffer: VecMemory, mask: np.ndarray, num_envs: int, **kwargs: object) -> None:
    rows = np.zeros((int((~mask).sum()), 2), dtype=np.float32)
    dones = np.zeros(len(rows), dtype=bool)
    utils.buffer_append(buffer, rows, dones, dones, dones, is_env_terminal=mask, num_envs=num_envs, **kwargs)


def test_next_observations_of_a_truncation_default_to_the_newest_known() -> None:
    mask = np.zeros(2, dtype=bool)
    without, exact = VecMemory(2), VecMemory(2)
    append(without, mask, 2)
    append(exact, mask, 2, next_states=[[1, 1], [2, 2]], truncates=[True, False])
    assert [trajectory.final_obs.tolist() for trajectory in without.take()] == [[[0, 0]], [[0, 0]]]
    trajectories = exact.take()
    assert [trajectory.final_obs.tolist() for trajectory in trajectories] == [[[1, 1]], [[2, 2]]]
    assert [trajectory.truncated.tolist() for trajectory in trajectories] == [[True], [False]]


def test_append_refuses_sizes_that_do_not_agree() -> None:
    with pytest.raises(ValueError, match="num_envs=3, but the mask has 2 entries and the buffer 2"):
        append(VecMemory(2), np.zeros(2, dtype=bool), 3)
    with pytest.raises(ValueError, match=r"next_obs has shape \(1, 2\), but 2 environments"):
        append(VecMemory(2), np.zeros(2, dtype=bool), 2, next_states=[[1, 1]])
