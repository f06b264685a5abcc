"""Tasks with known answers, for discrete and for continuous actions, and a hand-written loop."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from AsyncPPO import EnvVectorizer, VecMemory


def actions(continuous: bool) -> spaces.Space:
    return spaces.Box(-2.0, 2.0, (1,), np.float32) if continuous else spaces.Discrete(3, start=2)


class OneState(gym.Env):
    """Reward 1 in every step; truncated, never terminated, after 5 steps. Its value is 1 / (1 - gamma)."""

    def __init__(self, continuous: bool) -> None:
        self.observation_space, self.action_space = spaces.Box(-1, 1, (1,), np.float32), actions(continuous)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.count = 0
        return np.ones(1, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert self.action_space.contains(action)
        self.count += 1
        return np.ones(1, np.float32), 1.0, False, self.count == 5, {}


class TwoStates(gym.Env):
    """From state 0 to state 1 for a reward of 0, and from there to the end for one of 2: values 2 gamma and 2."""

    def __init__(self, continuous: bool) -> None:
        self.observation_space, self.action_space = spaces.Box(-1, 1, (1,), np.float32), actions(continuous)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.state = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.state += 1
        over = self.state == 2
        return np.full(1, 1 - over, np.float32), 2.0 * over, over, False, {}


class Identity(gym.Env):
    """The reward is highest if the action matches the observation; truncated after 10 steps."""

    def __init__(self, continuous: bool) -> None:
        self.observation_space, self.action_space = spaces.Box(-2, 2, (1,), np.float32), actions(continuous)
        self.continuous = continuous

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.count = 0
        return self._ask(), {}

    def _ask(self) -> np.ndarray:
        self.asked = self.np_random.uniform(-1.5, 1.5) if self.continuous else float(self.np_random.integers(3)) - 1
        return np.full(1, self.asked, np.float32)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.count += 1
        reward = -abs(float(action[0]) - self.asked) if self.continuous else float(action - 3 == self.asked)
        return self._ask(), reward, False, self.count == 10, {}


class Reach(gym.Env):
    """Move a point on a line to a goal. The reward is -1 in each step in which it is not there. It never terminates."""

    observation_space = spaces.Dict({
        name: spaces.Box(-1, 1, (1,), np.float32) for name in ("observation", "achieved_goal", "desired_goal")
    })  # fmt: skip
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        super().reset(seed=seed)
        self.place, self.goal = self.np_random.uniform(-1, 1, (2, 1)).astype(np.float32)
        return self._obs(), {}

    def _obs(self) -> dict[str, np.ndarray]:
        return {"observation": self.place.copy(), "achieved_goal": self.place.copy(), "desired_goal": self.goal.copy()}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        self.place = np.clip(self.place + 0.2 * action, -1, 1, dtype=np.float32)
        reward = float(self.compute_reward(self.place, self.goal, {}))
        return self._obs(), reward, False, False, {"is_success": reward == 0}

    @staticmethod
    def compute_reward(achieved: np.ndarray, desired: np.ndarray, info: dict) -> np.ndarray:
        return (np.abs(achieved - desired)[..., 0] < 0.1).astype(np.float32) - 1

    @staticmethod
    def compute_terminated(achieved: np.ndarray, desired: np.ndarray, info: dict) -> bool:
        return False


class Loop:
    """Steps environments and passes the agent the transitions that it waits for."""

    def __init__(self, agent: Any, env: Any, num_envs: int = 1, seed: int = 0) -> None:
        self.agent, self.num_envs = agent, num_envs
        self.env = EnvVectorizer(env, num_envs, backend="inline", seed=seed, autoreset=True)
        self.obs, _ = self.env.reset()
        self.buffer, self.env_ids, self.state = VecMemory(num_envs), np.arange(num_envs), agent.initial_state(num_envs)
        self.metrics: list[dict[str, float]] = []

    def run(self, steps: int) -> list[dict[str, float]]:
        for _ in range(0, steps, self.num_envs):
            action, extras = self.agent.act(self.obs, state=self.state)
            obs, reward, terminated, truncated, _ = self.env.step(action)
            following, over = obs.copy(), terminated | truncated
            following[over] = self.env.final_obs[over]
            if self.state is not None:
                self.state[over] = 0.0
            self.buffer.append(
                self.env_ids, obs=self.obs, action=action, reward=reward, terminated=terminated,
                truncated=truncated, next_obs=following, **extras,
            )  # fmt: skip
            self.obs = obs
            if len(self.buffer) >= self.agent.steps_wanted():
                self.agent.observe(self.buffer.take())
                if self.agent.steps_wanted() <= 0:
                    self.metrics.append(self.agent.update(0.5))
        return self.metrics
