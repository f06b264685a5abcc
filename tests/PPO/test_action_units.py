"""What `action_scaling` and `action_offset` do to the actions of PPO."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from PPO import PPO


def states(rows: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, 4)).astype(np.float32)


def env_of(action_space: spaces.Space) -> gym.Env:
    env = gym.Env()
    env.observation_space, env.action_space = spaces.Box(-1, 1, (4,)), action_space
    return env


@pytest.mark.parametrize("learner", ["auto", "torch"])
def test_action_scaling_is_the_unit_of_actions_with_an_infinite_bound(learner: Any) -> None:
    low, high = (np.array(bound, np.float32) for bound in ([5, -np.inf, -np.inf, 0], [np.inf, 1, np.inf, 1]))
    env = env_of(spaces.Box(low, high))
    ppo = PPO.for_env(env, action_scaling=[10.0, 1.0, 0.5, 3.0], squash_actions=True, learner=learner, seed=0)
    assert ppo.action_space == env.action_space
    action = ppo.get_action(states(20_000))
    assert all(env.action_space.contains(row) for row in action)
    np.testing.assert_allclose(ppo.get_action(states(5), deterministic=True), [[15, 0, 0, 0.5]] * 5, atol=0.3)
    free = action[:, 2]
    assert free.std() == pytest.approx(0.5, rel=0.03)
    assert np.abs(free).max() > 1.5, "not squashed"


def test_agents_with_other_units_of_actions_do_not_share_weights(tmp_path: Path) -> None:
    env = env_of(spaces.Box(-np.inf, np.inf, (2,)))
    PPO.for_env(env, action_scaling=2.0, seed=0).save_weights(tmp_path)
    PPO.for_env(env, action_scaling=[2.0, 2.0]).load_weights(tmp_path)
    assert PPO.load(tmp_path).get_action(states(9999)).std() == pytest.approx(2.0, rel=0.03)
    for other in (PPO.for_env(env), PPO.for_env(env, action_scaling=3.0)):
        with pytest.raises(ValueError, match=r"action_scaling is 2.0 there and (None|3.0) here"):
            other.load_weights(tmp_path)
    with pytest.raises(ValueError, match=r"action_scaling is 2.0 there and 4.0 here"):
        PPO.load(tmp_path, action_scaling=4.0)


def test_an_action_offset_without_finite_bounds_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"action_offset is the middle of finite bounds, not of Box\(5.0, inf"):
        PPO.for_env(env_of(spaces.Box(5, np.inf, (2,))), action_offset=7.0)


def test_action_scaling_keeps_the_shape_of_actions() -> None:
    ppo = PPO.for_env(env_of(spaces.Box(-2, 2, (2, 3))), action_scaling=0.5, log_std=5.0, seed=0)
    assert ppo.action_space == spaces.Box(-0.5, 0.5, (2, 3), np.float64)
    assert ppo.get_action(states(1)[0]).shape == (2, 3)
    assert PPO.for_env(env_of(spaces.Box(-2, 2, (2, 3))), action_scaling=None).action_space.high.max() == 2


@pytest.mark.parametrize(
    ("own", "other"),
    [
        (spaces.Box(-2, 2, (1,)), spaces.Box(-1, 1, (1,))),
        (spaces.Box(-1, 1, (2,)), spaces.Box(np.float32([-1, 0]), np.float32([1, 1]))),
        (spaces.Box(-np.inf, np.inf, (1,)), spaces.Box(-1, 1, (1,))),
        (spaces.Box(-1, 1, (2, 3)), spaces.Box(-1, 1, (3, 2))),
        (spaces.Box(-1, 1, (2, 3)), spaces.Box(-1, 1, (6,))),
    ],
)
def test_an_agent_whose_actions_an_environment_forbids_does_not_fit_it(own: spaces.Box, other: spaces.Box) -> None:
    ppo = PPO.for_env(env_of(own))
    ppo.check_fits(env_of(own))
    with pytest.raises(ValueError, match="the PPO was made for Box"):
        ppo.check_fits(env_of(other))


def test_an_agent_fits_an_environment_that_allows_all_its_actions() -> None:
    PPO(True, 4, 6, action_scaling=0.1).check_fits(env_of(spaces.Box(np.float32(-0.1), np.float32(0.1), (2, 3))))
    PPO.for_env(env_of(spaces.Box(-1, 1, (6,)))).check_fits(env_of(spaces.Box(-np.inf, 1, (2, 3))))
