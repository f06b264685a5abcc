"""The smallest complete agent: tabular Q-learning (Watkins 1989) with a replay list, for Discrete spaces."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class ToyConfig:
    states: int
    actions: int
    lr: float = 0.5
    gamma: float = 0.95
    epsilon: float = 0.3
    learning_starts: int = 200
    seed: int = 0


class ToyAgent:
    """Learns from replayed transitions in every step."""

    def __init__(self, **settings: Any) -> None:
        self.config = ToyConfig(**settings)
        self.q = np.ones((self.config.states, self.config.actions))  # optimistic: it tries everything
        self.replay: list[list[float]] = []
        self.new, self.rng = 0, np.random.default_rng(self.config.seed)

    def act(self, obs: np.ndarray, *, state: None = None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        explores = self.rng.random(len(obs)) < self.config.epsilon
        return np.where(explores, self.rng.integers(self.q.shape[1], size=len(obs)), self.get_action(obs)), {}

    def get_action(self, obs: np.ndarray, *, deterministic: bool = False, state: None = None) -> np.ndarray:
        return self.q[obs].argmax(axis=1)

    def initial_state(self, num_envs: int) -> None:
        return None

    def steps_wanted(self) -> int:
        return self.config.learning_starts - len(self.replay) if len(self.replay) == self.new else 1 - self.new

    def observe(self, trajectories: Any) -> None:
        for one in trajectories:
            self.replay += np.stack([one.obs, one.action, one.reward, one.terminated, one.next_obs], axis=1).tolist()
            self.new += len(one)

    def update(self, progress: float, workers: Any = None) -> dict[str, float]:
        rows = [self.replay[index] for index in self.rng.integers(len(self.replay), size=32)]
        obs, action, reward, terminated, next_obs = np.array(rows).T
        index = obs.astype(int), action.astype(int)
        target = reward + self.config.gamma * (1 - terminated) * self.q[next_obs.astype(int)].max(axis=1)
        error = target - self.q[index]
        self.q[index] += self.config.lr * (1 - progress) * error
        self.new = 0
        return {"td_error": float(np.abs(error).mean()), "q": float(self.q.max())}

    def signature(self) -> dict[str, Any]:
        return vars(self.config)

    def state(self) -> dict[str, Any]:
        return {
            "q": self.q.copy(),
            "replay": np.array(self.replay),
            "new": self.new,
            "rng": self.rng.bit_generator.state,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        if state["q"].shape != self.q.shape:
            raise ValueError(f"the saved table is {state['q'].shape}")
        self.q, self.replay, self.new = state["q"].copy(), state["replay"].tolist(), state["new"]
        self.rng.bit_generator.state = state["rng"]

    def actor(self) -> "ToyAgent":
        copied = ToyAgent(**vars(self.config))
        copied.q = self.q.copy()
        return copied

    def replica(self) -> None:
        return None

    def save_weights(self, directory: Any) -> None:
        Path(directory).mkdir(parents=True, exist_ok=True)
        (Path(directory) / "q.json").write_text(json.dumps(self.q.tolist()))

    def load_weights(self, directory: Any) -> None:
        self.q = np.array(json.loads((Path(directory) / "q.json").read_text()))
