"""PPO on a GPU, beside Stable-Baselines3's on the same machine: training steps per second, stepping included.

python -m benchmarks.gpu                         # under five minutes; writes the table of benchmarks/gpu.md
python -m benchmarks.gpu --device cpu --tiny     # tries the script; prints the table only
"""

import importlib.util
import platform
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from gymnasium import spaces
from tqdm import tqdm

from AsyncPPO import AsyncPPO
from benchmarks.lag import Pixels
from benchmarks.throughput.training import Shape, timed, trainer_speed
from PPO import PPO

PAGE = Path(__file__).with_suffix(".md")
TABLE = re.compile(r"(<!-- table -->\n).*(<!-- end -->\n)", re.DOTALL)
WHOLE, TINY = Shape(64, 128, 1024, 4), Shape(4, 16, 32, 1)
BATCHES = 4
"""Batches that are timed, after one to warm up."""


class Numbers(gym.Env):
    """64 random numbers, the same ones in every step of an episode of 100 steps: stepping costs almost nothing."""

    observation_space = spaces.Box(-1, 1, (64,), np.float32)
    action_space = spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start an episode."""
        super().reset(seed=seed)
        self._steps, self._obs = 0, self.np_random.uniform(-1, 1, 64).astype(np.float32)
        return self._obs, {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Go on; action 0 is right."""
        self._steps += 1
        return self._obs, float(action == 0), False, self._steps == 100, {}


TASKS: dict[str, tuple[type[gym.Env], tuple[int, ...]]] = {
    "images 84x84x4": (Pixels, ()),
    "MLP 1024, 1024": (Numbers, (1024, 1024)),
}
"""The environment, and the hidden layers of each network (with images, after the convolutions)."""
OURS: dict[str, dict[str, Any]] = {
    "eager": {},
    "compiled": {"compile": True},
    "bf16": {"bf16": True},
    "compiled, bf16": {"compile": True, "bf16": True},
}


def ours(task: str, shape: Shape, device: str, options: dict[str, Any]) -> float:
    """Return the steps per second of `AsyncPPO`."""
    make, hidden_sizes = TASKS[task]
    sizes: dict[str, Any] = {"batch_size": shape.batch_size, "mini_batch_size": shape.mini_batch_size}
    sizes |= {"k_epochs": shape.k_epochs, "hidden_sizes": hidden_sizes}
    ppo = PPO.for_env(make(), lr=3e-4, learner="torch", device=device, seed=0, **sizes, **options)
    steps = BATCHES * shape.batch_size
    with AsyncPPO(make, ppo, shape.num_envs, steps, backend="inline", seed=0, progress=False) as trainer:
        return trainer_speed(trainer, steps)


def stable_baselines(task: str, shape: Shape, device: str) -> float:
    """Return the steps per second of Stable-Baselines3."""
    from stable_baselines3 import PPO as Theirs
    from stable_baselines3.common.vec_env import DummyVecEnv

    make, hidden_sizes = TASKS[task]
    arch = {"net_arch": {"pi": [*hidden_sizes], "vf": [*hidden_sizes]}, "activation_fn": torch.nn.Tanh}
    model = Theirs(
        "MlpPolicy" if hidden_sizes else "CnnPolicy",
        DummyVecEnv([make] * shape.num_envs),
        n_steps=shape.horizon,
        batch_size=shape.mini_batch_size,
        n_epochs=shape.k_epochs,
        policy_kwargs=arch if hidden_sizes else None,
        device=device,
        seed=0,
    )

    def run(count: int) -> int:
        before = model.num_timesteps
        return model.learn(count, reset_num_timesteps=False).num_timesteps - before

    return timed(run, BATCHES * shape.batch_size)


def card(device: str) -> str:
    """Return the name of the device that the networks are on."""
    return torch.cuda.get_device_name() if device == "cuda" else f"{platform.processor() or platform.machine()} (CPU)"


def main(device: str = "cuda", tiny: bool = False) -> None:
    """Measure each contestant on each task.

    Args:
        device: of the networks.
        tiny: measure small batches, only to try the script.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("error: torch finds no GPU; --device cpu --tiny tries the script")
    shape = TINY if tiny else WHOLE
    contestants: dict[str, Callable[[str], float]] = {
        name: partial(ours, shape=shape, device=device, options=options) for name, options in OURS.items()
    }
    if importlib.util.find_spec("stable_baselines3"):
        contestants["Stable-Baselines3"] = partial(stable_baselines, shape=shape, device=device)
    lines = [f"Measured on: {card(device)}, torch {torch.__version__}.", ""]
    lines += [f"| steps per second | {' | '.join(contestants)} |", "| --- " * (len(contestants) + 1) + "|"]
    for task in TASKS:
        speeds = [contestants[name](task) for name in tqdm(contestants, desc=task)]
        lines.append(f"| {task} | {' | '.join(f'{speed:,.0f}' for speed in speeds)} |")
    table = "\n".join(lines) + "\n"
    print(table)
    if not tiny:
        PAGE.write_text(TABLE.sub(lambda found: found[1] + table + found[2], PAGE.read_text()))


if __name__ == "__main__":
    tyro.cli(main)
