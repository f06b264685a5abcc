"""Train until a task is solved, and print the mean return of the last episodes at every update."""

import importlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import tyro


@dataclass(frozen=True)
class Task:
    """A task, and RL-Zoo's hyperparameters for it (hyperparams/ppo.yml, her.yml and sac.yml)."""

    threshold: float
    steps: int
    """RL-Zoo's number of steps; twice that for Pendulum by PPO, where no schedule depends on it."""
    num_envs: int
    normalize: bool = False
    zoo: dict[str, Any] = field(default_factory=dict)
    agent: str = "ppo"
    episodes: int = 100
    """The task is solved when the mean return of this number of episodes reaches the threshold."""

    def is_solved(self, episodes: int, mean_return: float) -> bool:
        """Return whether the mean return of the last of `episodes` solves the task."""
        return episodes >= self.episodes and mean_return >= self.threshold


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
    "SAC Pendulum-v1": Task(-200, 20_000, 1, zoo={"learning_rate": 1e-3}, agent="sac", episodes=20),
    "SAC FetchReach-v4": Task(-3, 20_000, 1, True, zoo={
        "gamma": 0.95, "learning_rate": 1e-3, "learning_starts": 1000, "policy_kwargs": {"net_arch": [64, 64]},
        "replay_buffer_kwargs": {"goal_selection_strategy": "future", "n_sampled_goal": 4},
    }, agent="sac", episodes=20),
}  # fmt: skip
"""By the name of the task: the id of the environment, after the name of an agent that is not PPO."""


def tell(steps: int, episodes: int, mean_return: float) -> None:
    """Print a point of the learning curve."""
    print(json.dumps({"steps": steps, "episodes": episodes, "mean_return": mean_return}), flush=True)


def ours(name: str, seed: int) -> None:
    """Train with the preset of `main.py`."""
    from AsyncPPO import AsyncTrainer
    from parallel_rl.commands.build import env_of, fresh_agent
    from parallel_rl.config import train_config
    from parallel_rl.presets import preset

    task, env_id = TASKS[name], name.rpartition(" ")[2]
    config = train_config(task.agent, {"env_id": env_id, "seed": seed} | preset(task.agent, env_id))
    run, env, agent = config.run, env_of(config.run, training=True), fresh_agent(config)
    with AsyncTrainer(env, agent, run.num_envs, run.steps, progress=False, **run.trainer_arguments()) as trainer:
        for update in trainer.updates():
            returns = [episode.return_ for episode in trainer.recent][-task.episodes :]
            mean = float(np.mean(returns)) if returns else float("nan")
            tell(int(update["steps"]), int(update["episodes"]), mean)
            if task.is_solved(int(update["episodes"]), mean):
                break


def stable_baselines(library: str, name: str, seed: int) -> None:
    """Train with Stable-Baselines3 (`stable_baselines3`) or its JAX version (`sbx`), without rendering."""
    import gymnasium as gym

    with suppress(ImportError):
        import gymnasium_robotics  # registers FetchReach  # noqa: F401
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

    task, env_id, zoo = TASKS[name], name.rpartition(" ")[2], dict(TASKS[name].zoo)
    env: VecEnv = DummyVecEnv([lambda: Monitor(gym.make(env_id))] * task.num_envs)
    if task.normalize:
        env = VecNormalize(env, gamma=zoo["gamma"])
    if "replay_buffer_kwargs" in zoo:
        zoo["replay_buffer_class"] = importlib.import_module(f"{library}.her").HerReplayBuffer
    policy = "MultiInputPolicy" if isinstance(env.observation_space, gym.spaces.Dict) else "MlpPolicy"
    algorithm = getattr(importlib.import_module(library), task.agent.upper())
    model = algorithm(policy, env, seed=seed, device="cpu", stats_window_size=task.episodes, **zoo)

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
            if task.is_solved(self.episodes, mean):
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


def main(contestant: str, task: str, seed: int) -> None:
    """Train one contestant on one task with one seed."""
    CONTESTANTS[contestant](task, seed)


if __name__ == "__main__":
    tyro.cli(main)
