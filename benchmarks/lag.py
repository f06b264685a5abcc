"""Learning while collecting: `AsyncPPO(lag=1)` beside `AsyncPPO(lag=0)`.

python -m benchmarks.lag speed --rounds 3 [--device cuda]    # steps per second
python -m benchmarks.lag solve                               # steps until a task is solved
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import tyro
from gymnasium import spaces
from tqdm import tqdm

from AsyncPPO import AsyncPPO, env_factory, make_env
from benchmarks.throughput.training import in_turns, trainer_speed
from parallel_rl.config import train_config
from parallel_rl.presets import preset
from PPO import PPO

STEP_SECONDS = 0.001
NUM_ENVS, HORIZON = 8, 128


class Pixels(gym.Env):
    """Random images of 84x84, four at once, for 100 steps."""

    observation_space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    action_space = spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start an episode."""
        super().reset(seed=seed)
        self._steps, self._obs = 0, self.np_random.integers(0, 256, (4, 84, 84), np.uint8)
        return self._obs, {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Roll the image; action 0 is right."""
        self._steps, self._obs = self._steps + 1, np.roll(self._obs, 1, axis=1)
        return self._obs, float(action == 0), False, self._steps == 100, {}


class Busy(gym.Wrapper):
    """Computes for a millisecond in each step."""

    def step(self, action: Any) -> Any:
        """Step."""
        end = time.thread_time() + STEP_SECONDS
        while time.thread_time() < end:
            pass
        return self.env.step(action)


TASKS: dict[str, tuple[Callable[[], gym.Env], dict[str, Any]]] = {
    "LSTM": (lambda: gym.make("CartPole-v1"), {"core": "lstm", "mini_batch_size": 128, "k_epochs": 10}),
    "images": (Pixels, {"mini_batch_size": 256, "k_epochs": 4}),
}


def turn(task: str, lag: int, updates: int, device: str) -> float:
    """Return the steps per second of a run with this number of updates."""
    make_env, settings = TASKS[task]

    def make() -> gym.Env:
        return Busy(make_env())

    ppo = PPO.for_env(make(), batch_size=NUM_ENVS * HORIZON, device=device, seed=0, **settings)
    steps = updates * NUM_ENVS * HORIZON
    with AsyncPPO(make, ppo, NUM_ENVS, steps, acting="central", lag=lag, seed=0, progress=False) as trainer:
        return trainer_speed(trainer, steps)


def speed(rounds: int = 3, updates: int = 8, device: str = "cpu") -> None:
    """Print the steps per second of each turn, and the ratio of the medians with and without a lag.

    Args:
        rounds: the number of turns with each lag.
        updates: the number of updates in a turn.
        device: of the networks.
    """
    rates = in_turns(
        partial(turn, updates=updates, device=device), [(task, lag) for task in TASKS for lag in (0, 1)], rounds
    )
    for (task, lag), each in rates.items():
        print(f"{task}, lag {lag}: {', '.join(f'{rate:,.0f}' for rate in each)} steps/s")
    for task in TASKS:
        print(f"{task}: {np.median(rates[task, 1]) / np.median(rates[task, 0]):.2f} times as fast with lag 1")


SOLVED: dict[str, tuple[float, int, dict[str, Any]]] = {
    "CartPole-v1": (475, 200_000, {"core": "gru"}),
    "LunarLander-v3": (200, 1_000_000, {}),
    "MinAtar/Breakout-v1": (10, 2_000_000, {}),
}
"""By task: the mean return of 100 episodes of training that counts as solved, the most steps, changes to the preset."""


def steps_to_solve(env_id: str, lag: int, seed: int) -> float:
    """Return the number of steps until the task is solved, or infinity."""
    threshold, steps, changes = SOLVED[env_id]
    chosen = preset("ppo", env_id, recurrent="core" in changes) | changes | {"steps": steps, "seed": seed}
    config = train_config("ppo", chosen)
    factory = env_factory(env_id)
    with make_env(factory) as env:
        ppo = PPO.for_env(env, seed=seed, **vars(config.settings))
    arguments: dict[str, Any] = {"mode": config.run.mode, "backend": "inline", "acting": "central"}
    with AsyncPPO(factory, ppo, config.run.num_envs, steps, lag=lag, seed=seed, progress=False, **arguments) as trainer:
        for update in trainer.updates():
            if update["episodes"] >= 100 and update["mean_return"] >= threshold:
                return update["steps"]
    return np.inf


def solve(tasks: Sequence[str] = tuple(SOLVED), lags: Sequence[int] = (0, 1), seeds: Sequence[int] = range(5)) -> None:
    """Print the number of steps until each task is solved.

    Args:
        tasks: the tasks.
        lags: 0 and 1.
        seeds: of the runs.
    """
    for env_id in tasks:
        for lag in lags:
            steps = [steps_to_solve(env_id, lag, seed) for seed in tqdm(seeds, desc=f"{env_id}, lag {lag}")]
            each = ", ".join(f"{number:,.0f}" for number in steps)
            print(f"{env_id}, lag {lag}: median {np.median(steps):,.0f} steps of {each}", flush=True)


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"speed": speed, "solve": solve})
