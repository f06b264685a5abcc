"""The parts that PRLearn's snippet leaves out, for LunarLander-v3: a policy gradient, and Gymnasium."""

from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np

from Population import Agent, Experience

gym = SimpleNamespace(make=lambda env_id: gymnasium.make("LunarLander-v3"))  # the snippet names version 2


class MyAgent(Agent):
    """A linear softmax policy, trained by REINFORCE (Williams 1992) with standardized returns."""

    def __init__(self) -> None:
        self.weights, self.rng = np.zeros((9, 4)), np.random.default_rng()

    def _policy(self, obs: Any) -> np.ndarray:
        logits = np.hstack([obs, np.ones((len(obs), 1))]) @ self.weights
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True)

    def action(self, state: Any) -> int:
        return int(self.rng.choice(4, p=self._policy(state[0][None])[0]))

    def train(self, experience: Experience) -> None:
        obs, actions, rewards, terminated, truncated, _ = experience.get()
        returns, after = np.zeros(len(rewards)), 0.0
        for step in reversed(range(len(rewards))):
            after = rewards[step] + 0.99 * after * (not (terminated[step] or truncated[step]))
            returns[step] = after
        advantage = (returns - returns.mean()) / (returns.std() + 1e-8)
        error = np.eye(4)[actions] - self._policy(np.array(obs))
        inputs = np.hstack([obs, np.ones((len(obs), 1))])
        self.weights += 0.5 * inputs.T @ (error * advantage[:, None]) / len(obs)
