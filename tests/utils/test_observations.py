"""What an agent acts on: the layout and the values of the observations are those of its space."""

import re
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from OffPolicy import DQN, SAC
from parallel_rl.utils import Features
from PPO import PPO

PICTURE = spaces.Box(0, 255, (40, 30, 3), np.uint8)


def task(space: spaces.Space) -> gym.Env:
    env = gym.Env()
    env.observation_space, env.action_space = space, spaces.Discrete(3)
    return env


@pytest.mark.parametrize("agent", [PPO, DQN])
@pytest.mark.parametrize("shape", [(3, 40, 30), (1, 3, 40, 30), (40, 3, 30), (40, 30, 3, 1)])
def test_a_picture_of_another_layout_is_refused(agent: Any, shape: tuple[int, ...]) -> None:
    given = agent.for_env(task(PICTURE), seed=0)
    expected = f"states have shape {shape}, but the agent takes (40, 30, 3), or (M, 40, 30, 3) for M states"
    for method in (given.get_action, given.act):
        with pytest.raises(ValueError, match=re.escape(expected)):
            method(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("agent", [PPO, DQN])
def test_pictures_of_the_layout_and_flat_ones_are_taken(agent: Any) -> None:
    given, picture = agent.for_env(task(PICTURE), seed=0), PICTURE.sample()
    action = given.get_action(picture, deterministic=True)
    for pictures in (picture[None], picture.reshape(1, -1), picture.astype(np.int64)[None]):
        assert given.get_action(pictures, deterministic=True).tolist() == [action]
    assert given.get_action(picture.flatten(), deterministic=True) == action


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.full((40, 30, 3), 0.7), "have float64 pixels from 0.7 to 0.7, but the agent takes whole numbers from 0"),
        (np.ones((40, 30, 3), np.float32), "have float32 pixels from 1 to 1, but the agent takes whole numbers from 0"),
        (np.full((40, 30, 3), -5), "have int64 pixels from -5 to -5, but the agent takes whole numbers from 0 to 255"),
        (np.full((2, 40, 30, 3), 256), "have int64 pixels from 256 to 256, but the agent takes whole numbers from 0"),
    ],
)
def test_pixels_that_bytes_cannot_be_are_refused(pixels: np.ndarray, said: str) -> None:
    for space, states in ((PICTURE, pixels), (spaces.Dict(eye=PICTURE), {"eye": pixels})):
        with pytest.raises(ValueError, match=re.escape(said)):
            Features.of(space).rows(states)


def test_bytes_are_refused_as_pixels_from_0_to_1() -> None:
    features = Features.of(spaces.Box(0, 1, (40, 30, 3)))
    with pytest.raises(ValueError, match="have uint8 pixels from 200 to 200, but the agent takes numbers from 0 to 1"):
        features.rows(np.full((40, 30, 3), 200, np.uint8))
    assert (features.rows(np.full((40, 30, 3), 1, np.uint8))[0] == 1).all()


@pytest.mark.parametrize(
    ("space", "states", "wrong"),
    [
        (spaces.Discrete(4, start=10), 3, "3"),
        (spaces.Discrete(4, start=10), [10, 13, 14], "14"),
        (spaces.Discrete(4, start=10), 10.5, "10.5"),
        (spaces.Discrete(4, start=10), np.nan, "nan"),
        (spaces.Discrete(4), -1, "-1"),
        (spaces.MultiDiscrete([3, 3], start=[0, 1]), [2, 0], "[2, 0]"),
        (spaces.MultiDiscrete([3, 3]), [[2, 2], [7, -3]], "[7, -3]"),
        (spaces.MultiBinary(3), [0, 1, 2], "[0, 1, 2]"),
        (spaces.MultiBinary(3), np.array([0, -3, 1], np.int8), "[0, -3, 1]"),
        (spaces.MultiBinary([2, 2]), np.full((3, 2, 2), 0.5), "[[0.5, 0.5], [0.5, 0.5]]"),
    ],
)
def test_an_impossible_choice_is_refused_with_its_space(space: spaces.Space, states: Any, wrong: str) -> None:
    said = f"have {wrong}, which is not in {space}"
    with pytest.raises(ValueError, match=re.escape(f"the states {said}")):
        Features.of(space).rows(states)
    nested = spaces.Dict(other=space)
    with pytest.raises(ValueError, match=re.escape(f"the states of other {said}")):
        PPO.for_env(task(nested), seed=0).get_action({"other": states})


def test_whole_floats_and_bools_are_choices() -> None:
    assert Features.of(spaces.Discrete(3, start=1)).rows([3.0, 1.0])[0].tolist() == [[0, 0, 1], [1, 0, 0]]
    for bits in (np.array([True, False]), [1.0, 0.0], np.array([1, 0], np.int8)):
        assert Features.of(spaces.MultiBinary(2)).rows(bits)[0].tolist() == [[1, 0]]


def test_parts_must_agree_in_their_number_of_states() -> None:
    features = Features.of(spaces.Dict(a=spaces.Box(-1, 1, (2,)), b=spaces.Discrete(3)))
    for number in (np.zeros(2, int), np.zeros((), int)):
        with pytest.raises(ValueError, match=r"the states of b have shape \(.*\), but the agent takes \(\), or \(M,\)"):
            features.rows({"a": np.zeros((3, 2)), "b": number})


@pytest.mark.parametrize(
    ("own", "other", "fits"),
    [((6,), (2, 3), True), ((2, 3), (6,), True), ((2, 3), (3, 2), False), ((2, 3), (2, 3), True), ((6,), (5,), False)],
)
def test_an_agent_for_numbers_takes_what_fits(own: Any, other: Any, fits: bool) -> None:
    features, space = Features.of(spaces.Box(-1, 1, own)), spaces.Box(-1, 1, other)
    assert features.fit(space) == fits
    states = np.arange(2 * np.prod(other), dtype=np.float32).reshape(2, *other)
    if fits:
        assert features.rows(states)[0].tolist() == states.reshape(2, -1).tolist()
    else:
        with pytest.raises(ValueError, match="but the agent takes"):
            features.rows(states)


@pytest.mark.parametrize("agent", [PPO, SAC])
def test_actions_that_are_whole_numbers_in_a_box_get_an_advice(agent: Any) -> None:
    env = task(spaces.Box(-1, 1, (2,)))
    env.action_space = spaces.Box(0, 5, (1,), np.int32)
    with pytest.raises(TypeError, match="whole numbers are choices: let a wrapper make it a MultiDiscrete"):
        agent.for_env(env)


def test_an_argument_of_another_agent_is_named() -> None:
    with pytest.raises(TypeError, match="companions': PPO takes companions"):
        SAC.for_env("Pendulum-v1", companions=["rnd"])  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="demo_path': DDPG, TD3 and SAC learn from demonstrations"):
        DQN.for_env("CartPole-v1", demo_path="x.npz")  # type: ignore[call-arg]


class Parallel:
    """As PettingZoo's ParallelEnv."""

    possible_agents = ("a", "b")

    def observation_space(self, agent: str) -> gym.Space:
        return spaces.Discrete(2)

    action_space = observation_space

    def reset(self, **options: Any) -> Any: ...
    def close(self) -> None: ...


@pytest.mark.parametrize("agent", [PPO, DQN])
def test_an_environment_of_several_agents_is_refused(agent: Any) -> None:
    with pytest.raises(TypeError, match=r"the environment has several agents \(PettingZoo\): here .* has one"):
        agent.for_env(Parallel())
