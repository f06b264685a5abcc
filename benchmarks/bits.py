"""Fingerprints of training that change if a single bit does: a refactoring must not change them.

    python -m benchmarks.bits > before.txt      (on the old code)
    python -m benchmarks.bits | diff before.txt -

Each line names a task and a way of training. It has the SHA-256 of the weights and of the metrics after 20 updates of
PPO, or 1,200 steps of an off-policy agent. The fingerprints depend on the processor and on the versions of torch and
NumPy, so compare them on one machine only.
"""

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from torch import nn
from tqdm import tqdm

from AsyncPPO import ActionMasks, AsyncPPO, AsyncTrainer
from OffPolicy import DDPG, DQN, SAC, TD3, OffPolicyAgent
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


OFF_POLICY: dict[str, tuple[type[OffPolicyAgent], str, dict[str, Any]]] = {
    "SAC": (SAC, "Pendulum-v1", {}),
    "SAC, prioritized": (SAC, "Pendulum-v1", {"prioritized": True, "normalize_obs": True, "utd": 0.5}),
    "SAC, fixed alpha": (SAC, "Pendulum-v1", {"alpha": 0.2, "eps_greedy": 0.1, "train_freq": 16}),
    "TD3, 3 steps": (TD3, "Pendulum-v1", {"n_step": 3}),
    "DDPG, noise": (DDPG, "Pendulum-v1", {"action_noise": "ou_0.2", "parameter_noise": 0.1}),
    "DQN, dueling": (DQN, "CartPole-v1", {"n_step": 3, "dueling": True}),
    "DQN, prioritized": (DQN, "CartPole-v1", {"prioritized": True, "double": False}),
}
"""An agent, an environment, and arguments of the agent."""


def of_ppo(env: str | Callable[[], gym.Env], settings: dict[str, Any], way: dict[str, Any]) -> str:
    """Return the fingerprint of PPO after 20 updates."""
    sample = gym.make(env) if isinstance(env, str) else env()
    ppo = PPO.for_env(sample, seed=7, k_epochs=2, batch_size=BATCH, mini_batch_size=64, **settings)
    networks = [ppo.policy, *([] if ppo.rnd is None else [ppo.rnd])]
    with AsyncPPO(env, ppo, ENVS, UPDATES * BATCH, seed=11, progress=False, **way) as trainer:
        return fingerprint(trainer, networks)


def of_off_policy(kind: type[OffPolicyAgent], env: str, settings: dict[str, Any]) -> str:
    """Return the fingerprint of an off-policy agent after 1,200 steps."""
    small: dict[str, Any] = {"hidden_sizes": (32, 32), "batch_size": 32, "learning_starts": 100, "buffer_size": 1_000}
    agent: Any = kind.for_env(env, seed=7, **small, **settings)
    with AsyncTrainer(env, agent, 4, 1_200, seed=11, progress=False, backend="inline") as trainer:
        return fingerprint(trainer, [agent.policy])


def fingerprint(trainer: AsyncTrainer, networks: list[nn.Module]) -> str:
    """Train; return the first digits of the digests of weights and metrics."""
    history = trainer.run()
    weights, metrics = hashlib.sha256(), hashlib.sha256()
    for network in networks:
        for tensor in network.state_dict().values():
            weights.update(tensor.cpu().numpy().tobytes())
    for row in history:
        metrics.update(repr([(name, row[name]) for name in sorted(row.keys() - CLOCKS)]).encode())
    return f"{weights.hexdigest()[:16]} {metrics.hexdigest()[:16]}"


def main() -> None:
    """Print a line for each task and way."""
    cases = {
        f"{task:22}{way:22}": partial(of_ppo, *TASKS[task], WAYS[way])
        for task in TASKS
        for way in WAYS
        if task in ONLY_MLP or not way.startswith("replicas")
    }
    cases |= {f"{task:22}{'inline':22}": partial(of_off_policy, *OFF_POLICY[task]) for task in OFF_POLICY}
    for name, train in tqdm(cases.items(), unit="run", disable=None):
        tqdm.write(f"{name}{train()}")


if __name__ == "__main__":
    main()
