"""VecMemory: a buffer for each environment, from which whole trajectories are taken."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from AsyncPPO import VecMemory
from AsyncPPO.memory import joined_buffers, part_of_buffer
from parallel_rl.utils import load_state, save_state

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"


def append(buffer: VecMemory, env_ids: list[int], value: float, **kwargs: Any) -> None:
    rows = np.full(len(env_ids), value)
    flags = np.zeros(len(env_ids), bool)
    fields = {"obs": rows[:, None], "action": rows.astype(int), "reward": rows, "terminated": flags, "truncated": flags}
    buffer.append(np.array(env_ids), **(fields | {"next_obs": rows[:, None] + 1} | kwargs))


def test_append_many_rows_goes_to_their_own_environments() -> None:
    buffer = VecMemory(3)
    for step in range(1000):
        append(buffer, [0, 2] if step % 2 else [2], step)
    assert len(buffer) == 1500
    assert buffer.lengths.tolist() == [500, 0, 1000]
    first, last = buffer.take()
    assert (first.env_id, last.env_id) == (0, 2)
    assert first.reward.tolist() == list(range(1, 1000, 2))
    assert last.obs[:, 0].tolist() == list(range(1000))
    assert last.final_obs.tolist() == [[1000]]
    assert len(buffer) == 0


def test_take_after_episode_ends_has_their_next_observations() -> None:
    buffer = VecMemory(1)
    append(buffer, [0], 1, terminated=[True])
    append(buffer, [0], 2)
    append(buffer, [0], 3, truncated=[True])
    append(buffer, [0], 4)
    (trajectory,) = buffer.take()
    assert trajectory.ends.tolist() == [True, False, True, True]
    assert trajectory.final_obs[:, 0].tolist() == [2, 4, 5]
    append(buffer, [0], 5, truncated=[True])
    assert buffer.take()[0].final_obs[:, 0].tolist() == [6], "a trajectory that ends with an episode has no further end"


def test_append_after_take_does_not_change_taken_trajectories() -> None:
    buffer = VecMemory(1)
    append(buffer, [0], 1)
    (taken,) = buffer.take()
    append(buffer, [0], 2)
    assert taken.obs.tolist() == [[1]]
    assert taken.final_obs.tolist() == [[2]]


def test_append_images_and_floats_stores_bytes_and_single_precision() -> None:
    buffer = VecMemory(2)
    images = np.zeros((2, 4, 4), np.uint8)
    append(buffer, [0, 1], 0, obs=images, next_obs=images, log_prob=np.zeros(2))
    trajectory = buffer.take()[0]
    assert trajectory.obs.dtype == np.uint8
    assert trajectory.reward.dtype == np.float32
    assert trajectory.extras["log_prob"].dtype == np.float32
    assert trajectory.action.dtype == np.int64


def test_append_rows_that_do_not_fit_names_the_field() -> None:
    with pytest.raises(ValueError, match="num_envs must be at least 1, not 0"):
        VecMemory(0)
    buffer = VecMemory(2)
    with pytest.raises(ValueError, match=r"reward has shape \(1,\), but 2 environments gave a row"):
        append(buffer, [0, 1], 0, reward=[1.0])
    append(buffer, [0, 1], 0)
    with pytest.raises(ValueError, match=r"fields changed"):
        append(buffer, [0, 1], 0, log_prob=[0.0, 0.0])
    with pytest.raises(ValueError, match="action changed from int64 to float64"):
        append(buffer, [0, 1], 0, action=[0.5, 0.5])


@pytest.mark.parametrize(
    ("field", "first", "then"), [("obs", "u1", "u2"), ("action", "i1", "i8"), ("next_obs", "u1", "i8")]
)
def test_append_a_type_that_the_stored_one_cannot_hold_is_an_error(field: str, first: str, then: str) -> None:
    buffer = VecMemory(1)
    append(buffer, [0], 0, **{field: np.ones((1, 1), first)})
    append(buffer, [0], 0, **{field: np.full((1, 1), 2, first)})
    with pytest.raises(ValueError, match=f"^{field} changed from u?int8 to u?int"):
        append(buffer, [0], 0, **{field: np.full((1, 1), 300, then)})
    assert len(buffer) == 2


def test_append_a_wider_type_whose_values_fit_keeps_them() -> None:
    buffer = VecMemory(1)
    append(buffer, [0], 0, action=np.array([1], np.int32))
    append(buffer, [0], 0, action=np.array([7], np.int64))
    assert buffer.take()[0].action.tolist() == [1, 7]


def test_append_a_narrower_type_keeps_the_values() -> None:
    buffer = VecMemory(1)
    append(buffer, [0], 0, action=np.array([300], np.int64))
    append(buffer, [0], 0, action=np.array([7], np.uint8))
    assert buffer.take()[0].action.tolist() == [300, 7]


def test_truncate_marks_running_episodes_and_keeps_their_next_observations() -> None:
    """Environment 0 is in an episode, environment 1 has just ended one, environment 2 has no rows."""
    buffer = VecMemory(3)
    append(buffer, [0, 1], 1)
    append(buffer, [0, 1], 2, terminated=[False, True])
    buffer.truncate(np.arange(3))
    append(buffer, [0, 1], 5)
    running, ended = buffer.take()
    assert running.truncated.tolist() == [False, True, False]
    assert running.final_obs[:, 0].tolist() == [3, 6]
    assert ended.truncated.tolist() == [False, False, False]
    assert ended.final_obs[:, 0].tolist() == [3, 6]


def test_extend_with_given_arrays_counts_rows_that_others_wrote() -> None:
    arrays = {
        "obs": np.arange(8.0).reshape(4, 2, 1), "action": np.zeros((4, 2), int), "reward": np.zeros((4, 2), np.float32),
        "terminated": np.array([[0, 0], [1, 0], [0, 0], [0, 1]], bool), "truncated": np.zeros((4, 2), bool),
        "final_obs": -np.arange(8.0).reshape(4, 2, 1),
    }  # fmt: skip
    buffer = VecMemory(2, arrays)
    buffer.extend(3, np.array([[70.0], [80.0]]))
    first, second = buffer.take()
    assert first.next_obs[:, 0].tolist() == [2, -2, 70]
    assert second.next_obs[:, 0].tolist() == [3, 5, 80]
    buffer.extend(4, np.array([[70.0], [80.0]]))
    assert buffer.take()[1].next_obs[:, 0].tolist() == [3, 5, 7, -7]


def assert_same_rows(ours: VecMemory, theirs: VecMemory) -> None:
    for left, right in zip(ours.take(), theirs.take(), strict=True):
        for name in ("obs", "action", "reward", "terminated", "truncated", "final_obs"):
            np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)
        assert left.extras.keys() == right.extras.keys()


def uneven() -> VecMemory:
    """Return the buffers of the fixture, with 5, 5 and 4 rows, one of which ends with an episode."""
    buffer = VecMemory(3)
    for step in range(5):
        env_ids = np.array([0, 1]) if step == 2 else np.arange(3)
        ends = {"terminated": np.zeros(len(env_ids), bool), "truncated": np.zeros(len(env_ids), bool)}
        ends["terminated"][{1: [0], 4: [1]}.get(step, [])] = True
        ends["truncated"][[0, 2] if step == 3 else []] = True
        value = 10 * env_ids + step
        rows = {"obs": value[:, None].astype(np.float32), "action": value[:, None] / 100, "reward": value}
        extras = {"log_prob": -value, "raw_action": value[:, None] / 10.0, "state": np.stack([value, value + 1.0], 1)}
        buffer.append(env_ids, **rows, **ends, next_obs=value[:, None] + 0.5, **extras)
    return buffer


def test_load_state_of_saved_buffer_gives_the_same_trajectories(tmp_path: Path) -> None:
    save_state(tmp_path / "buffer.state", uneven().state())
    loaded = VecMemory(3)
    loaded.load_state(load_state(tmp_path / "buffer.state"))
    assert_same_rows(loaded, uneven())


def test_load_state_refuses_a_buffer_that_lacks_the_end_of_an_episode() -> None:
    state = uneven().state()
    state["arrays"]["final_obs"] = state["arrays"]["final_obs"][1:]
    with pytest.raises(ValueError, match="next observations of ends"):
        VecMemory(3).load_state(state)


def test_load_state_of_older_version_gives_the_same_trajectories() -> None:
    """It has a row for each environment, packed final observations, and other names of extras."""
    loaded = VecMemory(3)
    loaded.load_state(load_state(FIXTURES / "buffers" / "environment_major.state"))
    append(loaded, [1], 7.0, obs=[[7.0]], action=[[0.5]], log_prob=[0], raw_action=[[0.0]], state=[[0.0, 0.0]])
    (_, taken, behind), (_, expected, _) = loaded.take(), uneven().take()
    assert taken.next_obs[:, 0].tolist() == [*expected.next_obs[:, 0], 8]
    assert taken.extras["raw_action"][:, 0].tolist() == [*expected.extras["raw_action"][:, 0], 0]
    assert behind.next_obs[:, 0].tolist() == [21, 23, 23.5, 24.5]


def test_joined_buffers_of_which_some_are_empty_hold_the_rows_of_the_others() -> None:
    """All environments of a rank may have failed in the same step."""
    buffers = [VecMemory(2), VecMemory(1), VecMemory(1)]
    append(buffers[1], [0], 1, terminated=[True])
    append(buffers[1], [0], 2)
    joined = joined_buffers([buffer.state() for buffer in buffers])
    assert joined["lengths"].tolist() == [0, 0, 2, 0]
    for own, buffer in zip((slice(0, 2), slice(2, 3), slice(3, 4)), buffers, strict=True):
        again = VecMemory(buffer.num_envs)
        again.load_state(part_of_buffer(joined, own))
        assert repr(again.take()) == repr(buffer.take())
