"""Experience: its columns, batches and files."""

import json
from typing import Any

import numpy as np
import pytest

from Population import Experience


def steps(count: int) -> Experience:
    experience = Experience()
    for step in range(count):
        experience.add_step(step, 10 * step, 0.5, step + 1, step == 3, False, {"at": step}, 1, 2, 3)
    return experience


def test_six_columns_are_unpacked_and_others_have_names() -> None:
    obs, actions, rewards, terminated, truncated, info = steps(2).get()
    assert (obs, actions, rewards) == ([0, 1], [0, 10], [0.5, 0.5])
    assert (terminated, truncated, info) == ([False, False], [False, False], [{"at": 0}, {"at": 1}])
    assert steps(1).get(["next_observations", "episodes"]) == ([1], [3])
    assert steps(1).get([]) == ()
    with pytest.raises(ValueError, match="an Experience has no column 'reward': did you mean 'rewards'"):
        steps(1).get(["observations", "reward"])
    assert Experience().get() == ([], [], [], [], [], [])


def test_batches_are_the_last_steps() -> None:
    experience = steps(5)
    assert experience.get_experience_batch(2).observations == [3, 4]
    assert experience.get_experience_batch(0).observations == []
    assert experience.get_experience_batch(9).observations == experience.get_experience_batch().observations
    assert experience.pop_experience_batch(2).terminated == [True, False]
    assert experience.observations == [0, 1, 2]
    assert len(experience.pop_experience_batch()) == 3
    assert len(experience) == 0


@pytest.mark.parametrize(("size", "error"), [(-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_a_bad_size_is_an_error(size: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="size must"):
        steps(3).get_experience_batch(size)


def test_a_copy_has_lists_of_its_own() -> None:
    experience = steps(2)
    copied = experience.copy()
    copied.observations[0] = 99
    copied.add_experience(experience)
    experience.clear()
    assert copied.observations == [99, 1, 0, 1]
    assert experience.worker_ids == []


def test_json_holds_all_columns() -> None:
    experience = steps(3)
    assert Experience.from_json(experience.to_json()) == experience
    experience.observations[0] = np.arange(2)
    assert json.loads(experience.to_json())["observations"] == [[0, 1], 1, 2]
    with pytest.raises(TypeError, match="JSON cannot hold a object"):
        Experience(*[[object()]] * 10).to_json()


def test_columns_of_different_lengths_or_names_are_errors() -> None:
    with pytest.raises(ValueError, match="the columns of an Experience have different lengths"):
        Experience(observations=[1, 2], actions=[0])
    with pytest.raises(ValueError, match="different lengths"):
        Experience.from_dict({"observations": [1], "actions": [2, 3]})
    with pytest.raises(ValueError, match="an Experience has no column 'luck'"):
        Experience.from_dict({"luck": [1]})
