"""Settings that are assigned while an off-policy agent trains."""

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from OffPolicy import DQN, SAC, GoalFunctions, OffPolicyAgent
from parallel_rl.utils import Trajectory
from tests.OffPolicy.test_her import SPACE as GOALS
from tests.OffPolicy.test_her import piece, reached, reward

SMALL: dict[str, Any] = {"hidden_sizes": (4,), "buffer_size": 200, "batch_size": 4, "learning_starts": 50, "seed": 0}


def dqn(**settings: Any) -> DQN:
    return DQN(spaces.Box(-1, 1, (3,)), spaces.Discrete(2), **(SMALL | {"utd": 1.0} | settings))


def after(agent: OffPolicyAgent, steps: int) -> int:
    """Return the number of updates that are due after so many more steps."""
    before, obs, never = agent.updates, np.zeros((steps, 3), np.float32), np.zeros(steps, bool)
    rows = obs, np.zeros(steps, np.int64), np.zeros(steps, np.float32), never, never, obs[:1]
    agent.observe([Trajectory(0, *rows)])
    agent.update(0.0)
    return agent.updates - before


def test_an_assigned_learning_starts_counts_from_then_on() -> None:
    agent = dqn()
    assert after(agent, 60) == 10
    agent.learning_starts = 0
    assert agent.steps_wanted() == 1
    assert after(agent, 1) == 1, "the steps before are not made up for"
    agent.learning_starts = 70
    assert agent.steps_wanted() == 9
    assert after(agent, 12) == 3
    agent.learning_starts = 70
    assert after(agent, 1) == 1
    other = dqn()
    other.learning_starts = 5
    assert after(other, 7) == 2


def test_assigned_settings_that_exclude_each_other_are_an_error_of_the_next_update() -> None:
    agent = dqn(clip_return=True)
    assert after(agent, 60) == 10
    agent.gamma = 1.0
    with pytest.raises(ValueError, match="clip_return needs gamma < 1"):
        after(agent, 1)
    agent.clip_return = False
    assert after(agent, 1) == 2
    functions = GoalFunctions(reward, reached)
    sac = SAC(GOALS, spaces.Box(-1, 1, (1,)), goal_functions=functions, hindsight="future", **SMALL)
    sac.n_step = 3
    sac.observe([piece(0, 60, True, 0)])
    with pytest.raises(ValueError, match="hindsight needs n_step=1"):
        sac.update(0.0)
