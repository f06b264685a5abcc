"""VecMemory: a buffer for each environment, handed over whole."""

from typing import Any

import numpy as np
import pytest

from AsyncPPO import VecMemory


def append(buffer: VecMemory, env_ids: list[int], value: float, **kwargs: Any) -> None:
    rows = np.full(len(env_ids), value)
    flags = np.zeros(len(env_ids), bool)
    fields = {"obs": rows[:, None], "action": rows.astype(int), "reward": rows, "terminated": flags, "truncated": flags}
    buffer.append(np.array(env_ids), **(fields | {"next_obs": rows[:, None] + 1} | kwargs))


def test_rows_go_to_their_own_environment_and_grow_without_limit() -> None:
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


def test_every_end_keeps_what_followed_it() -> None:
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


def test_what_was_taken_stays_as_it_is() -> None:
    buffer = VecMemory(1)
    append(buffer, [0], 1)
    (taken,) = buffer.take()
    append(buffer, [0], 2)
    assert taken.obs.tolist() == [[1]]
    assert taken.final_obs.tolist() == [[2]]


def test_images_stay_bytes_and_floats_are_single() -> None:
    buffer = VecMemory(2)
    images = np.zeros((2, 4, 4), np.uint8)
    append(buffer, [0, 1], 0, obs=images, next_obs=images, log_prob=np.zeros(2))
    trajectory = buffer.take()[0]
    assert trajectory.obs.dtype == np.uint8
    assert trajectory.reward.dtype == np.float32
    assert trajectory.extras["log_prob"].dtype == np.float32
    assert trajectory.action.dtype == np.int64


def test_what_does_not_fit_is_named() -> None:
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
