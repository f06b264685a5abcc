"""Companions: tasks that PPO solves only with them, and the time that they cost.

python -m benchmarks.companions deepsea
python -m benchmarks.companions cost
"""

import re
import runpy
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from gymnasium import spaces
from tqdm import tqdm

from AsyncPPO import AsyncPPO
from parallel_rl.utils import Trajectory
from PPO import ICM, PPO, RND, Companion, Transitions

PAGE = Path(__file__).parents[1] / "docs" / "companions.md"
LENGTH, STEPS = 20, 800_000
ROWS, MINIBATCH, EPOCHS = 2048, 512, 4


class DeepSea(gym.Env):
    """A diver sinks by a row in every step, and moves to the right or left. Which action is right depends on the cell.

    A treasure of 1 lies in the last corner on the right; every step to the right costs 0.01 / length. Random actions
    find it in one of a million episodes (Osband et al. 2020, arXiv:1908.03568).
    """

    def __init__(self, length: int = LENGTH) -> None:
        """Make a square with sides of `length`."""
        self.observation_space = spaces.Discrete(length * length)
        self.action_space = spaces.Discrete(2)
        self.length = length
        self.right = np.random.default_rng(0).integers(0, 2, (length, length))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict]:
        """Start on the left."""
        super().reset(seed=seed)
        self.row = self.column = 0
        return 0, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict]:
        """Sink by a row."""
        goes_right = action == self.right[self.row, self.column]
        found = goes_right and self.column == self.length - 1
        self.row += 1
        self.column = min(self.column + 1, self.length - 1) if goes_right else max(self.column - 1, 0)
        over = self.row == self.length
        reward = float(found) - (0.01 / self.length if goes_right else 0.0)
        return (0 if over else self.row * self.length + self.column), reward, over, False, {}


def documented(name: str) -> Any:
    """Return a class of docs/companions.md."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "program.py"
        script.write_text(next(block for block in blocks if f"class {name}(" in block))
        return runpy.run_path(str(script))[name]


EXPLORERS: dict[str, Callable[[], list[Companion]]] = {
    "RND": lambda: [RND(beta=1.0, update_proportion=1.0)],
    "count bonus": lambda: [documented("CountBonus")()],
    "PPO alone": list,
}


def finds_the_treasure(explorer: str, seed: int) -> bool:
    """Train on DeepSea, and return whether the last 100 episodes mostly end at the treasure."""
    ppo = PPO.for_env(
        DeepSea(),
        companions=EXPLORERS[explorer](),
        batch_size=1024,
        mini_batch_size=256,
        k_epochs=4,
        gamma=0.99,
        entropy_coef=0.01,
        anneal_lr=True,  # otherwise some policies leave the treasure again
        seed=seed,
    )
    with AsyncPPO(DeepSea, ppo, 32, STEPS, backend="inline", seed=seed, progress=False) as trainer:
        trainer.run()
        return trainer.mean_return > 0.5


def deepsea(explorers: Sequence[str] = tuple(EXPLORERS), seeds: Sequence[int] = range(5)) -> None:
    """Print how many seeds find the treasure of DeepSea.

    Args:
        explorers: names of explorers.
        seeds: of the runs.
    """
    for explorer in explorers:
        found = [finds_the_treasure(explorer, seed) for seed in tqdm(seeds, desc=explorer)]
        print(f"DeepSea {LENGTH}, {STEPS:,} steps, {explorer}: {sum(found)} of {len(found)} seeds", flush=True)


def update_seconds(ppo: PPO) -> float:
    """Return the time of an update on random rows."""
    ppo.memory.append(rows_of(ppo))
    start = time.perf_counter()
    ppo.learn()
    return time.perf_counter() - start


def own_seconds(ppo: PPO) -> float:
    """Return the time that a companion's own networks take for an update, by a plain loop."""
    (companion,), memory = ppo.companions, ppo.memory
    memory.append(rows_of(ppo))
    batch = memory.batch()
    memory.clear()
    optimizer = torch.optim.Adam([each for each in companion.parameters() if each.requires_grad])
    start = time.perf_counter()
    transitions = Transitions(batch, ppo.policy.features, torch.from_numpy(batch.action))
    companion.reward(transitions)
    targets = companion.targets(transitions)
    for _ in range(EPOCHS):
        order = ppo.rng.permutation(ROWS)
        for first, stop in pairwise(range(0, ROWS + 1, MINIBATCH)):
            optimizer.zero_grad()
            chosen = order[first:stop]
            companion.loss(tuple(each[chosen] for each in targets), ppo.rng, ppo.policy).backward()
            optimizer.step()
    return time.perf_counter() - start


def rows_of(ppo: PPO) -> Trajectory:
    """Return a trajectory of random observations."""
    obs = ppo.rng.normal(size=(ROWS, 8)).astype(np.float32)
    action, extras = ppo.act(obs)
    never = np.zeros(ROWS, np.bool_)
    return Trajectory(0, obs, action, ppo.rng.normal(size=ROWS).astype(np.float32), never, never, obs[:1], extras)


def cost(rounds: int = 30) -> None:
    """Print the time that each companion adds to an update, and the time of its own networks.

    Args:
        rounds: the number of measurements of each.
    """
    torch.set_num_threads(1)
    make = partial(PPO, False, 8, 4, batch_size=ROWS, mini_batch_size=MINIBATCH, k_epochs=EPOCHS, seed=0)
    for companion in (RND(), ICM()):
        alone, both, own = make(), make(companions=[companion]), make(companions=[companion])
        turns = [[update_seconds(alone), update_seconds(both), own_seconds(own)] for _ in range(rounds + 1)][1:]
        without, within, apart = np.median(turns, axis=0) * 1e3
        print(
            f"{companion.name}: an update takes {without:.1f} ms without it and {within:.1f} ms with it; its networks "
            f"alone {apart:.1f} ms: {(within - without) / apart:.2f} times that"
        )


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"deepsea": deepsea, "cost": cost})
