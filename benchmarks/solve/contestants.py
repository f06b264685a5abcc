"""Train until a task is solved, and print the mean return of the last 100 episodes at every update."""

import importlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import tyro


@dataclass(frozen=True)
class Task:
    """A task, and RL-Zoo's hyperparameters of PPO for it (hyperparams/ppo.yml)."""

    threshold: float
    steps: int
    """RL-Zoo's number of steps; twice that for Pendulum, where no schedule depends on it."""
    num_envs: int
    normalize: bool = False
    zoo: dict[str, Any] = field(default_factory=dict)


def falling(start: float) -> Callable[[float], float]:
    """Return RL-Zoo's `lin_...`, a schedule that falls linearly from `start` to 0."""
    return lambda remaining: start * remaining


TASKS = {
    "CartPole-v1": Task(475, 100_000, 8, zoo={
        "n_steps": 32, "batch_size": 256, "gae_lambda": 0.8, "gamma": 0.98, "n_epochs": 20,
        "learning_rate": falling(0.001), "clip_range": falling(0.2),
    }),
    "Acrobot-v1": Task(-100, 1_000_000, 16, True, zoo={
        "n_steps": 256, "gae_lambda": 0.94, "gamma": 0.99, "n_epochs": 4,
    }),
    "Pendulum-v1": Task(-200, 200_000, 4, zoo={
        "n_steps": 1024, "gae_lambda": 0.95, "gamma": 0.9, "n_epochs": 10, "learning_rate": 1e-3, "use_sde": True,
        "sde_sample_freq": 4,
    }),
    "LunarLander-v3": Task(200, 1_000_000, 16, zoo={
        "n_steps": 1024, "batch_size": 64, "gae_lambda": 0.98, "gamma": 0.999, "n_epochs": 4, "ent_coef": 0.01,
    }),
}  # fmt: skip


def tell(steps: int, episodes: int, mean_return: float) -> None:
    """Print a point of the learning curve."""
    print(json.dumps({"steps": steps, "episodes": episodes, "mean_return": mean_return}), flush=True)


def ours(env_id: str, seed: int) -> None:
    """Train with the preset of `main.py`."""
    from AsyncPPO import AsyncPPO, env_factory, make_env
    from parallel_rl.config import train_config
    from parallel_rl.presets import preset
    from PPO import PPO

    config = train_config("ppo", {"env_id": env_id, "seed": seed} | preset("ppo", env_id))
    factory = env_factory(env_id)
    with make_env(factory) as env:
        ppo = PPO.for_env(env, seed=seed, **vars(config.settings))
    with AsyncPPO(
        factory, ppo, config.run.num_envs, config.run.steps, progress=False, **config.run.trainer_arguments()
    ) as trainer:
        for update in trainer.updates():
            tell(int(update["steps"]), int(update["episodes"]), update["mean_return"])
            if update["episodes"] >= 100 and update["mean_return"] >= TASKS[env_id].threshold:
                break


def stable_baselines(library: str, env_id: str, seed: int) -> None:
    """Train with Stable-Baselines3 (`stable_baselines3`) or its JAX version (`sbx`), without rendering."""
    import gymnasium as gym
    import numpy as np
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

    task = TASKS[env_id]
    env: VecEnv = DummyVecEnv([lambda: Monitor(gym.make(env_id))] * task.num_envs)
    if task.normalize:
        env = VecNormalize(env, gamma=task.zoo["gamma"])
    model = importlib.import_module(library).PPO("MlpPolicy", env, seed=seed, device="cpu", **task.zoo)

    class Tell(BaseCallback):
        def __init__(self) -> None:
            super().__init__()
            self.episodes = 0

        def _on_step(self) -> bool:
            self.episodes += int(np.count_nonzero(self.locals["dones"]))
            return True

        def _on_rollout_end(self) -> None:
            returns = [episode["r"] for episode in self.model.ep_info_buffer or ()]
            mean = float(np.mean(returns)) if returns else float("nan")
            tell(self.num_timesteps, self.episodes, mean)
            if self.episodes >= 100 and mean >= task.threshold:
                raise Solved

    with suppress(Solved):
        model.learn(task.steps, callback=Tell())


class Solved(Exception):
    """Ends a training."""


CONTESTANTS: dict[str, Callable[[str, int], None]] = {
    "ours": ours,
    "SBX": partial(stable_baselines, "sbx"),
    "Stable-Baselines3": partial(stable_baselines, "stable_baselines3"),
}


def main(contestant: str, env_id: str, seed: int) -> None:
    """Train one contestant on one task with one seed."""
    CONTESTANTS[contestant](env_id, seed)


if __name__ == "__main__":
    tyro.cli(main)
