"""Fingerprints of training that change if a single bit does: a refactoring must not change them.

    python -m benchmarks.bits > before.txt      (on the old code)
    python -m benchmarks.bits | diff before.txt -

Each line names a task and a way of training. It has the SHA-256 of the weights and of the metrics after 20 updates. The
fingerprints depend on the processor and on the versions of torch and NumPy, so compare them on one machine only.
"""

import hashlib
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from tqdm import tqdm

from AsyncPPO import ActionMasks, AsyncPPO
from PPO import PPO

UPDATES, BATCH, ENVS = 20, 256, 8
CLOCKS = {"seconds"}
"""Metrics that are different in equal runs."""


class Dots(gym.Env):
    """A bright dot on a small image; the action names its side, left or right."""

    observation_space = spaces.Box(0, 255, (12, 12, 3), np.uint8)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Place the first dot."""
        super().reset(seed=seed)
        self.steps = 0
        return self._obs(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Reward the side that the dot was on; place the next one."""
        reward = float(action == (self.column >= 6))
        self.steps += 1
        return self._obs(), reward, False, self.steps >= 20, {}

    def _obs(self) -> np.ndarray:
        self.column = int(self.np_random.integers(12))
        image = np.zeros((12, 12, 3), np.uint8)
        image[int(self.np_random.integers(12)), self.column] = 255
        return image


def masked_taxi() -> gym.Env:
    """Make Taxi with its action masks in the observation."""
    return ActionMasks(gym.make("Taxi-v4"))


WAYS: dict[str, dict[str, Any]] = {
    "inline": {"backend": "inline", "acting": "central"},
    "process": {"backend": "process", "num_workers": 2, "acting": "central"},
    "replicas inline": {"backend": "inline", "acting": "replicas"},
    "replicas process": {"backend": "process", "num_workers": 2, "acting": "replicas"},
    "mask mode": {"backend": "inline", "mode": "mask"},
    "mask mode, process": {"backend": "process", "num_workers": 2, "mode": "mask"},
}
"""Arguments of `AsyncPPO`."""
TASKS: dict[str, tuple[str | Callable[[], gym.Env], dict[str, Any]]] = {
    "CartPole": ("CartPole-v1", {}),
    "CartPole, autograd": ("CartPole-v1", {"learner": "torch", "target_kl": 0.05, "value_clip": 0.2}),
    "Pendulum": ("Pendulum-v1", {"normalize_obs": True, "recompute_advantage": True, "entropy_coef": 0.01}),
    "Pendulum, clipped": ("Pendulum-v1", {"squash_actions": False, "normalize_advantage": "returns"}),
    "MountainCar, RND": ("MountainCar-v0", {"use_RND": True, "rnd_warmup": 256}),
    "CartPole, GRU": ("CartPole-v1", {"core": "gru", "core_size": 16}),
    "Taxi, masks": (masked_taxi, {}),
    "images": (Dots, {"anneal_lr": True, "normalize_advantage": "batch"}),
}
"""An environment, and arguments of `PPO`."""
ONLY_MLP = ("CartPole", "CartPole, autograd", "Pendulum", "Pendulum, clipped", "MountainCar, RND")
"""Tasks whose policy has replicas."""


def fingerprint(env: str | Callable[[], gym.Env], settings: dict[str, Any], way: dict[str, Any]) -> str:
    """Train for 20 updates; return the first digits of the digests of weights and metrics."""
    sample = gym.make(env) if isinstance(env, str) else env()
    ppo = PPO.for_env(sample, seed=7, k_epochs=2, batch_size=BATCH, mini_batch_size=64, **settings)
    with AsyncPPO(env, ppo, ENVS, UPDATES * BATCH, seed=11, progress=False, **way) as trainer:
        history = trainer.run()
    weights = hashlib.sha256()
    for module in (ppo.policy, ppo.rnd):
        for tensor in [] if module is None else module.state_dict().values():
            weights.update(tensor.cpu().numpy().tobytes())
    metrics = hashlib.sha256()
    for row in history:
        metrics.update(repr([(name, row[name]) for name in sorted(row.keys() - CLOCKS)]).encode())
    return f"{weights.hexdigest()[:16]} {metrics.hexdigest()[:16]}"


def main() -> None:
    """Print a line for each task and way."""
    cases = [
        (task, way)
        for task in TASKS
        for way in WAYS
        if task in ONLY_MLP or not way.startswith("replicas")
    ]  # fmt: skip
    for task, way in tqdm(cases, unit="run", disable=None):
        tqdm.write(f"{task:22}{way:22}{fingerprint(*TASKS[task], WAYS[way])}")


if __name__ == "__main__":
    main()
