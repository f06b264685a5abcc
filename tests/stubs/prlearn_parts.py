"""The parts that PRLearn's snippet leaves out: an agent that learns, and an environment of Gymnasium."""

from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np

from Population import Agent, Experience

gym = SimpleNamespace(make=lambda env_id: gymnasium.make("FrozenLake-v1", is_slippery=False, max_episode_steps=20))


class MyAgent(Agent):
    """A table of logits, trained by REINFORCE (Williams 1992) with a moving baseline."""

    def __init__(self) -> None:
        self.logits, self.rng, self.baseline = np.zeros((16, 4)), np.random.default_rng(), 0.0

    def _policy(self, observation: int) -> np.ndarray:
        weights = np.exp(self.logits[observation] - self.logits[observation].max())
        return weights / weights.sum()

    def action(self, state: Any) -> int:
        return int(self.rng.choice(4, p=self._policy(state[0])))

    def train(self, experience: Experience) -> None:
        obs, actions, rewards, terminated, truncated, _ = experience.get()
        after = 0.0
        for step in reversed(range(len(experience))):
            after = rewards[step] + 0.95 * after * (not (terminated[step] or truncated[step]))
            gradient = -self._policy(obs[step])
            gradient[actions[step]] += 1
            self.logits[obs[step]] += 0.5 * (after - self.baseline) * gradient
            self.baseline += 0.001 * (after - self.baseline)
