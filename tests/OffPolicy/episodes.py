"""Experience with known numbers: observations count the steps of an environment, episode by episode."""

from dataclasses import dataclass, field

import numpy as np
from gymnasium import spaces

from parallel_rl.utils import Trajectory

OBSERVATIONS, ACTIONS = spaces.Box(-np.inf, np.inf, (2,), np.float32), spaces.Discrete(100)


@dataclass
class Source:
    """One environment; its observations are (environment, a number that never occurs twice)."""

    env_id: int
    rng: np.random.Generator
    number: int = 0
    episodes: list[list[dict]] = field(default_factory=lambda: [[]])

    def trajectory(self, length: int, ends: float = 0.3) -> Trajectory:
        """Return the next `length` steps, each of which ends its episode with probability `ends`."""
        rows, finals = [], []
        for step in range(length):
            over = self.rng.random() < ends
            terminated = bool(over and self.rng.random() < 0.5)
            row = {
                "obs": (self.env_id, self.number), "action": self.number % 100, "reward": self.rng.integers(1, 100),
                "next_obs": (self.env_id, self.number + 1), "terminated": terminated,
                "truncated": bool(over and not terminated),
            }  # fmt: skip
            self.number += 1
            rows.append(row)
            self.episodes[-1].append(row)
            if over or step == length - 1:
                finals.append(row["next_obs"])
            if over:
                self.restart()
        columns = {name: np.array([row[name] for row in rows]) for name in rows[0] if name != "next_obs"}
        return Trajectory(env_id=self.env_id, final_obs=np.array(finals, np.float32), **columns)

    def restart(self) -> None:
        """Begin another episode."""
        self.number += 1
        self.episodes.append([])


def n_step_by_hand(episode: list[dict], start: int, gamma: float, n_step: int) -> tuple[float, tuple, float]:
    """Return reward, next observation and discount of the transition from a step of an episode, by a slow loop."""
    reward, discount = 0.0, 1.0
    for row in episode[start : start + n_step]:
        reward += discount * row["reward"]
        discount *= gamma
    return reward, row["next_obs"], 0.0 if row["terminated"] else discount
