"""Tiny tasks with known answers: the one that fails shows which part is broken."""

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from AsyncPPO import ActionMasks, AsyncPPO, evaluate
from PPO import PPO
from tests.covering import rest_slow


class Endless(gym.Env):
    """Reward 1 in every step; truncated, never terminated, after 5 steps. V = 1 / (1 - gamma) everywhere."""

    def __init__(self, terminates: bool = False) -> None:
        self.observation_space = spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.terminates = terminates

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.count = 0
        return self._obs(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.count += 1
        over = self.count == 5
        return self._obs(), 1.0, over and self.terminates, over and not self.terminates, {}

    def _obs(self) -> np.ndarray:
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)


class Echo(gym.Env):
    """One step: the reward is highest if the action matches the observation."""

    def __init__(self, continuous: bool = False) -> None:
        self.observation_space = spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = spaces.Box(-2, 2, (1,), np.float32) if continuous else spaces.Discrete(2)
        self.continuous = continuous

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.asked = self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self.asked, {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        reward = -abs(float(action[0] - self.asked[0])) if self.continuous else float(action == (self.asked[0] > 0))
        return self.asked, reward, True, False, {}


class Target(gym.Env):
    """One step: the reward is how close the action comes to a number inside its bounds."""

    def __init__(self, low: float, high: float, target: float) -> None:
        self.observation_space = spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = spaces.Box(low, high, (1,), np.float32)
        self.target = target

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert self.action_space.contains(action)
        return np.zeros(1, np.float32), -abs(float(action[0]) - self.target), True, False, {}


class Delayed(gym.Env):
    """Two steps: the first action decides the reward of the second; the observation says only which step it is."""

    def __init__(self, reward: float = 1.0) -> None:
        self.observation_space = spaces.Box(0, 1, (1,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.reward = reward

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.first: int | None = None
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        if self.first is None:
            self.first = int(action)
            return np.ones(1, np.float32), 0.0, False, False, {}
        return np.ones(1, np.float32), self.reward * self.first, True, False, {}


class Picture(gym.Env):
    """One step: which half of a picture is bright says which of two actions is right."""

    def __init__(self, shape: tuple[int, ...], floats: bool = False) -> None:
        self.observation_space = spaces.Box(0, 1 if floats else 255, shape, np.float32 if floats else np.uint8)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.right = int(self.np_random.integers(2))
        picture = self.np_random.integers(0, 50, self.observation_space.shape, np.uint8)  # type: ignore[arg-type]
        axis = int(picture.ndim == 4 or picture.shape[0] < picture.shape[-1])  # that of H
        rows = picture.swapaxes(0, axis)
        rows[slice(len(rows) // 2, None) if self.right else slice(len(rows) // 2)] += 200
        self.picture = picture if picture.dtype == self.observation_space.dtype else np.float32(picture / 255)
        return self.picture, {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        return self.picture, float(action == self.right), True, False, {}


class Everything(gym.Env):
    """One step: the right answer is each part of a nested observation, in an action of two choices and a switch."""

    def __init__(self) -> None:
        self.observation_space = spaces.Dict(
            a=spaces.Discrete(3, start=1), b=spaces.Tuple((spaces.MultiBinary(2), spaces.Box(-1, 1, (1,), np.float64)))
        )
        self.action_space = spaces.MultiDiscrete([3, 2, 2], start=[1, 0, 5])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.asked = self.np_random.integers([1, 0, 0], [4, 2, 2])
        number = self.np_random.uniform(0.2, 1, 1) * (1 if self.asked[2] else -1)
        self.obs = {"a": self.asked[0], "b": (np.array([self.asked[1], 1], np.int8), number)}
        return self.obs, {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict]:
        return self.obs, float(np.mean(action - [0, 0, 5] == self.asked)), True, False, {}


class Forbidden(gym.Env):
    """One step: of ten actions only two are allowed, others in every episode, and of those the higher is right."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 1, (1,))
        self.action_space = spaces.Discrete(10)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.allowed = self.np_random.choice(10, 2, replace=False)
        return np.zeros(1, np.float32), {}

    def action_masks(self) -> np.ndarray:
        return np.isin(np.arange(10), self.allowed)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert action in self.allowed, "a forbidden action was taken"
        return np.zeros(1, np.float32), float(action == self.allowed.max()), True, False, {}


class Recall(gym.Env):
    """Three steps: the first observation says which action is right in the last; the others say nothing."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.asked, self.count = int(self.np_random.integers(2)), 0
        return np.full(1, 2.0 * self.asked - 1.0, np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.count += 1
        over = self.count == 3
        return np.zeros(1, np.float32), float(over and action == self.asked), over, False, {}


def learn(env: Any, steps: int, mode: str = "streaming", **kwargs: Any) -> PPO:
    defaults = {"batch_size": 256, "mini_batch_size": 64, "k_epochs": 4, "lr": 3e-3, "seed": 0}
    ppo = PPO.for_env(env(), **(defaults | kwargs))
    with AsyncPPO(env, ppo, 8, steps, mode=mode, backend="inline", seed=0, progress=False) as trainer:
        trainer.run()
    return ppo


def values(ppo: PPO, states: Any) -> np.ndarray:
    return ppo.policy.value(ppo._tensor(states)).detach().numpy()[:, 0]


@pytest.mark.parametrize("mode", rest_slow("streaming", "mask"))
def test_episodes_that_are_only_truncated_have_the_infinite_horizon_value(mode: str) -> None:
    """If these ends were terminations, the values would be 4.1 to 1; if they were ignored, anything."""
    ppo = learn(Endless, 6_000, mode, gamma=0.9, GAE_lambda=0.95, lr=1e-2)
    np.testing.assert_allclose(values(ppo, np.random.default_rng(0).uniform(-1, 1, (50, 2))), 10.0, rtol=0.02)


def test_episodes_that_terminate_have_the_finite_horizon_value() -> None:
    ppo = learn(lambda: Endless(terminates=True), 4_000, gamma=0.9, lr=1e-2)
    mean = np.mean([sum(0.9**k for k in range(left)) for left in range(1, 6)])
    np.testing.assert_allclose(values(ppo, np.zeros((1, 2))), mean, rtol=0.1)


def test_discrete_policy_learns_the_action_of_each_observation() -> None:
    ppo = learn(Echo, 3_000)
    assert evaluate(ppo, Echo, 200, seed=1, backend="inline").mean() > 0.97


def test_continuous_policy_learns_the_action_of_each_observation() -> None:
    def env() -> gym.Env:
        return Echo(continuous=True)

    ppo = learn(env, 5_000, lr=1e-2)
    assert evaluate(ppo, env, 200, seed=1, backend="inline").mean() > -0.1


LARGEST = float(np.finfo(np.float32).max)


@pytest.mark.parametrize(
    ("low", "high", "target"),
    [
        pytest.param(5, np.inf, 7.5, marks=pytest.mark.slow),
        (20, LARGEST, 20.2),
        (-np.inf, -5, -8),
        pytest.param(0, np.inf, 2, marks=pytest.mark.slow),
        (-LARGEST, LARGEST, -1),
        (1e6, np.inf, 1e6 + 400),
    ],
)
def test_the_continuous_policy_learns_inside_bounds_on_one_side(low: float, high: float, target: float) -> None:
    env = partial(Target, low, high, target)
    ppo = learn(env, 2_000, k_epochs=10, lr=1e-2)
    assert abs(float(ppo.get_action(np.zeros(1), deterministic=True)[0]) - target) < 0.15 * max(1, abs(low) * 2**-13)


@pytest.mark.parametrize("size", [1e-18, pytest.param(1.0, marks=pytest.mark.slow), 1e18])
def test_a_delayed_reward_of_any_size_is_credited_and_discounted(size: float) -> None:
    ppo = learn(partial(Delayed, size), 5_000, gamma=0.5)
    assert ppo.get_action(np.zeros(1), deterministic=True) == 1
    np.testing.assert_allclose(values(ppo, [[0.0], [1.0]]) / size, [0.5, 1.0], atol=0.05)


@pytest.mark.parametrize(
    ("shape", "floats", "bf16"),
    [
        pytest.param((10, 10, 2), False, False, marks=pytest.mark.slow),
        ((10, 10, 2), False, True),
        ((3, 40, 40), False, False),
        ((2, 10, 10, 3), False, False),
        pytest.param((10, 10), False, False, marks=pytest.mark.slow),
        ((10, 10, 3), True, False),
    ],
)
def test_the_policy_learns_what_a_picture_shows(shape: tuple[int, ...], floats: bool, bf16: bool) -> None:
    env = partial(Picture, shape, floats)
    ppo = learn(env, 600, hidden_sizes=(), lr=1e-3, bf16=bf16)
    assert evaluate(ppo, env, 100, seed=1, backend="inline").mean() > 0.97


def test_every_part_of_a_nested_observation_and_of_an_action_counts() -> None:
    """Without one part of them the mean is 0.83 at best."""
    ppo = learn(Everything, 4_000, lr=1e-2)
    assert evaluate(ppo, Everything, 200, seed=1, backend="inline").mean() > 0.9


def test_masked_actions_are_never_taken() -> None:
    """Without the mask the right action cannot be known: the observation says nothing."""

    def env() -> gym.Env:
        return ActionMasks(Forbidden())

    ppo = learn(env, 3_000, lr=1e-2)
    assert evaluate(ppo, env, 200, seed=1, backend="inline").mean() > 0.95
    assert evaluate(ppo, env, 200, seed=1, backend="inline", deterministic=False).mean() > 0.85


@pytest.mark.parametrize(
    ("core", "low", "high"),
    [("gru", 0.97, 1.0), pytest.param("lstm", 0.97, 1.0, marks=pytest.mark.slow), ("none", 0.3, 0.7)],
)
def test_recurrent_policy_remembers_the_first_observation(core: Any, low: float, high: float) -> None:
    ppo = learn(Recall, 2_000, core=core, lr=1e-2, core_size=16, hidden_sizes=(16,))
    assert low <= evaluate(ppo, Recall, 200, seed=1, backend="inline").mean() <= high
