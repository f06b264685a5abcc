"""What older versions wrote, against today's form; tests/fixtures has whole files."""

import pytest

from parallel_rl.utils import State, older

MADE_FOR = {"the environment": "CartPole-v1", "num_envs": 4}
TODAY: State = {
    "made_for": MADE_FOR,
    "signature": {"squash": True},
    "progress": {"steps_done": 7, "restarts": 0, "rows": {"last": 7, "sums": {}}},
    "recent": [],
    "agent": {},
    "buffer": {},
    "collector": {"recurrent": None},
}


def test_the_first_checkpoints_have_todays_parts() -> None:
    first = {
        "made_for": MADE_FOR | {"squash": True},
        "progress": {"steps_done": 7},
        "recent": [],
        "ppo": {},
        "buffer": {},
        "collector": {"core": None},
    }
    assert older.checkpoint(first) == TODAY
    assert older.checkpoint(TODAY) == TODAY


@pytest.mark.parametrize("content", [{}, {"made_for": 5}, TODAY | {"progress": []}])
def test_what_is_no_checkpoint_stays_as_it_is(content: State) -> None:
    assert older.checkpoint(content) == content


def test_counts_that_off_policy_agents_lacked_are_zero() -> None:
    counts = {"steps": 5, "_acted": 2}
    assert older.off_policy_counts(counts) == {"steps": 5, "_acted": 2, "_from_step": 0, "_from_update": 0}


def test_a_flat_config_is_that_of_the_run() -> None:
    record = older.run_record({"config": {"lr": 0.1}, "began": 1})
    assert (record["run"], record["settings"], record["began"]) == ({"lr": 0.1}, {}, 1)
    assert older.run_record({"run": {"lr": 0.1}, "settings": {}}) == {"run": {"lr": 0.1}, "settings": {}}
