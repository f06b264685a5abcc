"""The masked loop against a model with plain lists, for random lengths, truncations and learning points."""

import numpy as np
import pytest

from AsyncPPO import VecMemory
from parallel_rl import utils

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import strategies as st  # noqa: E402

plans = st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=1, max_size=6)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(plan=plans, take_at=st.integers(0, 7), exact=st.booleans())
def test_every_row_reaches_its_environment(plan: list[tuple[int, bool]], take_at: int, exact: bool) -> None:
    """The episode of environment i has plan[i][0] steps, and is then terminated or, if plan[i][1], truncated."""
    count = len(plan)
    buffer, mask, taken = VecMemory(count), np.zeros(count, dtype=bool), []
    model: list[list[tuple[int, bool, bool]]] = [[] for _ in plan]
    obs = np.stack([np.arange(count), np.zeros(count)], axis=1).astype(np.float32)
    step = 0
    while not mask.all():
        env_ids = utils.indexes_of_active_environments(mask)
        over = np.array([plan[env_id][0] == step + 1 for env_id in env_ids])
        cut = np.array([plan[env_id][1] for env_id in env_ids])
        next_obs = obs + np.array([0, 1], np.float32)
        optional = {"truncates": over & cut, "next_states": next_obs} if exact else {}
        utils.buffer_append(buffer, obs, env_ids, env_ids + step, over & ~cut, mask, count, **optional)
        for env_id, is_over, is_cut in zip(env_ids, over, cut, strict=True):
            model[env_id].append((env_id + step, is_over and not is_cut, exact and is_over and is_cut))
        obs = utils.inactive_states_dropout(next_obs, over)
        mask = utils.update_active_environments_list(mask, over)
        step += 1
        if step == take_at:
            utils.buffer_to_target_buffer_transfer(buffer, taken)
    utils.buffer_to_target_buffer_transfer(buffer, taken)
    for env_id, rows in enumerate(model):
        mine = [trajectory for trajectory in taken if trajectory.env_id == env_id]
        lived = [row for s in mine for row in zip(s.reward, s.terminated, s.truncated, strict=True)]
        assert lived == rows
        assert [at for trajectory in mine for at in trajectory.obs[:, 1]] == list(range(len(rows)))
        for trajectory in mine:
            assert trajectory.final_obs.tolist() == [[env_id, trajectory.obs[-1, 1] + exact]]
