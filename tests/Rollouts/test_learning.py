"""The programs of docs/rollouts.md learn what they are for."""

import pytest

from benchmarks.rollouts import FORGETFUL, PROGRAMS, mean_return

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("seed", range(5))
def test_a2c_solves_cartpole(seed: int) -> None:
    assert mean_return("A2C", seed) >= 475


@pytest.mark.parametrize("seed", range(3))
def test_a_recurrent_actor_recalls_what_a_feed_forward_one_cannot(seed: int) -> None:
    assert PROGRAMS[FORGETFUL] != PROGRAMS["recurrent A2C"]
    assert mean_return("recurrent A2C", seed) >= 0.95
    assert mean_return(FORGETFUL, seed) <= 0.65


@pytest.mark.parametrize("seed", range(3))
def test_double_dqn_learns_cartpole(seed: int) -> None:
    assert mean_return("double DQN", seed) >= 400
