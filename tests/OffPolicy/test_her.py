import copy
import threading
from abc import abstractmethod
from collections import Counter
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from benchmarks.bit_flip import BitFlip
from OffPolicy import DQN, SAC, GoalFunctions, Hindsight, Replay
from parallel_rl.utils import Trajectory
from tests.OffPolicy.probes import Loop

NUMBER = spaces.Box(-np.inf, np.inf, (1,), np.float64)
SPACE = spaces.Dict(observation=NUMBER, achieved_goal=NUMBER, desired_goal=NUMBER)
KIND = np.dtype([(name, "f8", (1,)) for name in SPACE.spaces])


def reward(achieved: np.ndarray, desired: np.ndarray, info: dict[str, Any]) -> np.ndarray:
    return -np.abs(achieved - desired)[:, 0]


def reached(achieved: np.ndarray, desired: np.ndarray, info: dict[str, Any]) -> np.ndarray:
    return (achieved == desired)[:, 0]


def piece(first: int, length: int, over: bool, env_id: int = 0) -> Trajectory:
    """Steps `first`, `first + 1`, ...: what is achieved in step n is n, what is desired 1000."""
    obs = np.zeros(length + 1, KIND)
    obs["observation"][:, 0] = obs["achieved_goal"][:, 0] = np.arange(first, first + length + 1)
    obs["desired_goal"] = 1000
    no = np.zeros(length, bool)
    ends = no.copy()
    ends[-1] = over
    rewards = reward(obs["achieved_goal"][1:], obs["desired_goal"][1:], {}).astype(np.float32)
    return Trajectory(env_id, obs[:-1], np.zeros((length, 1), np.float32), rewards, no, ends, obs[-1:])


def replay_of(*pieces: Trajectory, capacity: int = 50) -> Replay:
    replay = Replay(capacity, SPACE, spaces.Box(-1, 1, (1,)))
    for one in pieces:
        replay.extend([one])
    return replay


def goals(replay: Replay, strategy: Any, at: int, draws: int = 3000) -> Counter:
    """Return how often the transition at step `at` gets each goal."""
    (row,) = np.flatnonzero(replay.is_transition & (replay.obs["observation"][:, 0] == at))
    hindsight = Hindsight(GoalFunctions(reward, reached), strategy, k=10**9)
    batch = hindsight.transitions(replay, np.full(draws, row), 0.9, np.random.default_rng(0))
    np.testing.assert_array_equal(batch.obs["desired_goal"], batch.next_obs["desired_goal"])
    return Counter(batch.obs["desired_goal"][:, 0].tolist())


@pytest.mark.parametrize(
    ("strategy", "at", "wanted"),
    [
        ("future", 10, [11, 12, 13, 14]),
        ("future", 12, [13, 14]),
        ("future", 13, [14]),
        ("final", 11, [14]),
        ("episode", 11, [11, 12, 13, 14]),
        ("future", 20, [21, 22, 23]),  # of an episode that still runs, and came in three pieces
        ("final", 20, [23]),
        ("episode", 22, [21, 22, 23]),
        ("future", 22, [23]),
    ],
)
def test_hindsight_goals_are_uniform_over_steps_of_the_same_episode(strategy: Any, at: int, wanted: list[int]) -> None:
    replay = replay_of(
        piece(10, 2, False), piece(12, 2, True), piece(20, 1, False), piece(21, 1, False), piece(22, 1, False)
    )
    found = goals(replay, strategy, at)
    assert sorted(found) == wanted
    for goal in wanted:
        assert found[goal] / 3000 == pytest.approx(1 / len(wanted), abs=0.04)


def test_hindsight_goals_come_only_from_rows_still_stored() -> None:
    replay = replay_of(piece(0, 9, False), capacity=6)  # steps 4 to 8, and the newest observation, are left
    assert sorted(goals(replay, "episode", 6)) == [5, 6, 7, 8, 9]
    assert sorted(goals(replay, "future", 7)) == [8, 9]


def test_an_enumerated_episode_has_the_rewards_and_ends_of_its_new_goals() -> None:
    replay = replay_of(piece(0, 3, True))
    rows = np.tile(np.flatnonzero(replay.is_transition), 400)
    hindsight = Hindsight(GoalFunctions(reward, reached), "future", k=4)
    batch = hindsight.transitions(replay, rows, 0.9, np.random.default_rng(0))
    seen = set()
    for index in range(len(rows)):
        start, goal = batch.obs["observation"][index, 0], batch.obs["desired_goal"][index, 0]
        assert batch.next_obs["observation"][index, 0] == start + 1
        assert batch.reward[index] == -abs(start + 1 - goal)
        assert batch.discount[index] == (0 if start + 1 == goal else np.float32(0.9))
        seen.add((start, goal))
    own = {(start, 1000.0) for start in range(3)}
    assert seen == own | {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}
    assert (batch.obs["desired_goal"] == 1000).mean() == pytest.approx(1 / 5, abs=0.04)
    assert (replay.obs["desired_goal"][replay.is_transition] == 1000).all()  # what is stored stays as it is


def test_hindsight_recomputes_reward_and_termination_for_the_new_goal() -> None:
    """A transition that was stored as terminated must not stay so when its goal changes."""
    terminated = piece(0, 1, True)
    replay = replay_of(
        Trajectory(
            0,
            terminated.obs,
            terminated.action,
            terminated.reward,
            np.array([True]),
            np.array([False]),
            terminated.final_obs,
        )
    )
    never = Hindsight(GoalFunctions(reward, lambda *goals: np.zeros(len(goals[0]), bool)), "future", k=10**9)
    batch = never.transitions(replay, np.flatnonzero(replay.is_transition), 0.9, np.random.default_rng(0))
    assert batch.discount[0] == np.float32(0.9)


def test_without_compute_terminated_a_step_stays_terminated_with_another_goal() -> None:
    """As in Stable-Baselines3, whose environments need `compute_reward` only."""

    class Falls(gym.Env):
        compute_reward = staticmethod(reward)

    once = replace(piece(0, 2, False), terminated=np.array([False, True]))
    replay = replay_of(once)
    hindsight = Hindsight(GoalFunctions.of(Falls()), "final", k=10**9)
    batch = hindsight.transitions(replay, np.flatnonzero(replay.is_transition), 0.9, np.random.default_rng(0))
    np.testing.assert_array_equal(batch.obs["desired_goal"][:, 0], [2, 2])
    np.testing.assert_array_equal(batch.reward, [-1, 0])
    np.testing.assert_array_equal(batch.discount, np.float32([0.9, 0]))


def test_functions_that_take_single_goals_are_called_for_each() -> None:
    """As `compute_terminated` of Gymnasium-Robotics' mazes, whose norm of a batch is one number."""
    functions = GoalFunctions(
        lambda achieved, desired, info: -float(np.linalg.norm(achieved - desired)),
        lambda achieved, desired, info: bool(np.linalg.norm(achieved - desired) <= 0.5),
    )
    achieved, desired = np.array([[1.0], [2.0], [3.0]]), np.array([[1.0], [2.25], [1.0]])
    functions = functions.on_arrays(achieved, desired)
    assert functions.values("compute_terminated", achieved, desired).tolist() == [True, True, False]
    assert functions.values("compute_reward", achieved, desired).tolist() == [0, -0.25, -2]
    replay = replay_of(piece(0, 3, True))
    rows = np.tile(np.flatnonzero(replay.is_transition), 100)
    batch = Hindsight(functions, "future", k=4).transitions(replay, rows, 0.9, np.random.default_rng(0))
    at_goal = (batch.next_obs["achieved_goal"] == batch.next_obs["desired_goal"])[:, 0]
    assert at_goal.any()
    np.testing.assert_array_equal(batch.discount == 0, at_goal)


def test_a_function_whose_values_have_another_shape_is_named() -> None:
    replay = replay_of(piece(0, 3, True))
    columns = Hindsight(GoalFunctions(lambda achieved, desired, info: achieved, reached), "future", k=4)
    with pytest.raises(ValueError, match="compute_reward must return"):
        columns.transitions(replay, np.flatnonzero(replay.is_transition), 0.9, np.random.default_rng(0))


@pytest.mark.parametrize(("hindsight", "k", "share"), [("none", 4, 0.0), ("future", 0, 0.0), ("final", 3, 0.75)])
def test_the_settings_of_an_agent_say_how_many_goals_change(hindsight: Any, k: int, share: float) -> None:
    settings = {"hindsight": hindsight, "replay_k": k, "hidden_sizes": (8,), "buffer_size": 50}
    agent = SAC(SPACE, spaces.Box(-1, 1, (1,)), goal_functions=GoalFunctions(reward, reached), seed=0, **settings)
    agent.observe([piece(0, 20, True)])
    goal = agent.sampler.sample(agent.config, 1000, 0.0)[1].obs["desired_goal"]
    assert (goal != 1000).mean() == pytest.approx(share, abs=0.05)


class Locked(BitFlip):
    """An environment that cannot be copied."""

    def __init__(self) -> None:
        super().__init__(3)
        self.lock = threading.Lock()

    def compute_reward(self, achieved: np.ndarray, desired: np.ndarray, info: Any) -> np.ndarray:
        return super().compute_reward(achieved, desired, info)


def test_a_copy_of_an_agent_does_not_copy_the_environment_of_its_goals() -> None:
    agent = DQN.for_env(env := Locked(), hindsight="future", buffer_size=100, hidden_sizes=(4,), seed=0)
    assert copy.deepcopy(agent).goal_functions.compute_reward == env.compute_reward


class HalfRewards(gym.Wrapper):
    """Has rewards of 1 at the goal, and 0.5 elsewhere."""

    def step(self, action: Any) -> Any:
        obs, reward, *rest = self.env.step(action)
        return obs, 1 + float(reward) / 2, *rest


class HalfOfAll(HalfRewards):
    """Has them for other goals, too."""

    def compute_reward(self, achieved: np.ndarray, desired: np.ndarray, info: Any) -> np.ndarray:
        env: Any = self.env.unwrapped
        return 1 + env.compute_reward(achieved, desired, info) / 2


def trained(make: Any) -> DQN:
    agent = DQN.for_env(make(), hindsight="future", buffer_size=500, hidden_sizes=(4,), learning_starts=50, seed=0)
    Loop(agent, make, 2).run(80)
    return agent


def test_hindsight_takes_the_rewards_of_a_wrapper() -> None:
    agent = trained(lambda: HalfOfAll(BitFlip(3)))
    assert agent.updates
    assert {*agent.sampler.sample(agent.config, 500, 0.0)[1].reward} == {0.5, 1}


class OfInfo(BitFlip):
    def __init__(self) -> None:
        super().__init__(3)

    def compute_reward(self, achieved: np.ndarray, desired: np.ndarray, info: Any) -> np.ndarray:
        return super().compute_reward(achieved, desired, info) * info["scale"]


def test_a_goal_function_that_fails_is_named_with_what_it_was_called_with() -> None:
    message = r"hindsight called compute_reward with achieved goals \(7, 3\), desired goals \(7, 3\) and the info \{\}"
    with pytest.raises(RuntimeError, match=rf"{message}, and it failed: KeyError: 'scale' \(test_her\.py, line \d+\)"):
        GoalFunctions.of(OfInfo()).values("compute_reward", np.zeros((7, 3)), np.zeros((7, 3)))


def test_rewards_that_a_wrapper_changes_only_for_the_original_goal_are_refused() -> None:
    with pytest.raises(ValueError, match=r"54 of 54 steps had others \(0\.5 in place of -1\): a wrapper that changes"):
        trained(lambda: HalfRewards(BitFlip(3)))


def test_returns_are_not_clipped_where_a_goal_is_worth_more_than_0() -> None:
    """As in the mazes of Gymnasium-Robotics: at first no step reaches its own goal, and all stored rewards are 0."""
    functions = GoalFunctions(lambda achieved, desired, info: 1.0 * reached(achieved, desired, info))
    agent = SAC(SPACE, spaces.Box(-1, 1, (1,)), goal_functions=functions, hindsight="future", clip_return=True,
                hidden_sizes=(8,), buffer_size=500, learning_starts=20, batch_size=64, seed=0)  # fmt: skip
    trajectory = piece(0, 200, True)
    trajectory.reward[:] = 0
    agent.observe([trajectory])
    with pytest.raises(ValueError, match=r"clip_return needs rewards .*, but one had 1: leave it out"):
        agent.update(0.0)


def test_a_few_rewards_may_differ_by_rounding() -> None:
    trajectory = piece(0, 200, True)
    trajectory.reward[7] += 1
    agent = SAC(SPACE, spaces.Box(-1, 1, (1,)), goal_functions=GoalFunctions(reward, reached), hindsight="future",
                hidden_sizes=(8,), buffer_size=500, learning_starts=20, batch_size=8, seed=0)  # fmt: skip
    agent.observe([trajectory])
    assert agent.update(0.0)


def test_observations_without_goals_are_refused() -> None:
    space = spaces.Dict(observation=NUMBER, achieved_goal=NUMBER)
    settings: dict[str, Any] = {"hindsight": "future", "goal_functions": GoalFunctions(reward, reached), "n_step": 1}
    with pytest.raises(ValueError, match="hindsight needs desired_goal in the observations"):
        DQN(space, spaces.Discrete(2), **settings)
    with pytest.raises(ValueError, match="hindsight needs achieved_goal and desired_goal in the observations"):
        DQN(NUMBER, spaces.Discrete(2), **settings)


def test_a_constant_goal_function_is_not_called_for_each_goal() -> None:
    calls = []

    def never(achieved: np.ndarray, desired: np.ndarray, info: dict[str, Any]) -> bool:
        calls.append(len(desired))
        return False

    goals = np.zeros((100, 2))
    functions = GoalFunctions(never, never).on_arrays(goals[:5], goals[:5] + 1)
    calls.clear()
    assert functions.values("compute_terminated", goals, goals + 1).tolist() == [False] * 100
    assert not calls


def higher(achieved: np.ndarray, desired: np.ndarray, info: dict[str, Any]) -> float:
    """Takes single goals; a goal is not reached by itself, and of an array `all` makes one number."""
    return 0.0 if np.all(achieved > desired) else -1.0


def near(achieved: np.ndarray, desired: np.ndarray, info: dict[str, Any]) -> float:
    """Takes single goals; `float` fails with arrays."""
    return -float(achieved[0] - desired[0])


@pytest.mark.parametrize(("function", "wanted"), [(higher, [0, -1, -1, 0]), (near, [-2, 1, 0, -1])])
def test_single_goals_are_recognized_by_examples(function: Any, wanted: list[float]) -> None:
    achieved, desired = np.array([[3.0], [1.0], [2.0], [5.0]]), np.array([[1.0], [2.0], [2.0], [4.0]])
    functions = GoalFunctions(function).on_arrays(achieved[:2] - 3, desired[:2])
    assert functions.values("compute_reward", achieved, desired).tolist() == wanted


class HasStubs(BitFlip):
    """As an environment of one's own that extends Gymnasium-Robotics' `GoalEnv`."""

    @abstractmethod
    def compute_terminated(self, achieved: Any, desired: Any, info: Any) -> Any:
        raise NotImplementedError


def test_a_stub_of_a_base_class_is_no_goal_function() -> None:
    assert GoalFunctions.of(HasStubs(3)).compute_terminated is None
