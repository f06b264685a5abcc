"""Memory: trajectories are joined, but stay separate."""

import numpy as np
import pytest

from parallel_rl.utils import Trajectory
from PPO import Memory


def trajectory(env_id: int, first: int, terminated: list[bool], truncated: list[bool], final: list[int]) -> Trajectory:
    length = len(terminated)
    return Trajectory(
        env_id=env_id,
        obs=np.arange(first, first + length, dtype=np.float32)[:, None],
        action=np.zeros(length, np.int64),
        reward=np.ones(length, np.float32),
        terminated=np.array(terminated),
        truncated=np.array(truncated),
        final_obs=np.array(final, np.float32)[:, None],
    )


def test_batch_next_obs_of_each_end_is_its_final_observation() -> None:
    memory = Memory()
    memory.append(trajectory(4, 10, [False, True, False], [False] * 3, [100, 101]))
    memory.append(trajectory(2, 20, [False, False], [True, False], [200, 201]))
    batch = memory.batch()
    assert len(memory) == 5
    assert batch.obs[:, 0].tolist() == [10, 11, 12, 20, 21]
    assert batch.next_obs[:, 0].tolist() == [11, 100, 101, 200, 201]
    assert batch.ends.tolist() == [False, True, True, True, True]
    assert batch.trajectory_ends.tolist() == [False, False, True, False, True]
    assert batch.terminated.tolist() == [False, True, False, False, False]
    assert batch.env_ids.tolist() == [4, 2]
    memory.clear()
    assert len(memory) == 0


def test_memory_empty_or_with_wrong_final_obs_is_refused() -> None:
    memory = Memory()
    with pytest.raises(ValueError, match="empty"):
        memory.batch()
    with pytest.raises(ValueError, match="empty trajectory"):
        memory.append(trajectory(0, 0, [], [], []))
    with pytest.raises(ValueError, match="2 ends, but final_obs has 1 rows"):
        memory.append(trajectory(0, 0, [True, False], [False, False], [1]))
