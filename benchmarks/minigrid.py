"""MiniGrid by PPO with companions and without them: `python -m benchmarks.minigrid`.

Finished runs are in minigrid.jsonl. The same command trains those that are missing, prints the results, and draws
docs/minigrid.png.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import tyro
from matplotlib.figure import Figure
from tqdm import tqdm

from AsyncPPO import AsyncPPO
from benchmarks.companions import documented
from parallel_rl.utils.plots import COLORS
from PPO import PPO, Companion

HERE = Path(__file__).parent
RUNS, PICTURE = HERE / "minigrid.jsonl", HERE.parent / "docs" / "minigrid.png"
TASKS = {"MiniGrid-DoorKey-8x8-v0": 1_000_000, "MiniGrid-KeyCorridorS3R2-v0": 1_000_000}
"""Tasks, and the steps of a run."""
SETTINGS: dict[str, Any] = {
    "batch_size": 4096, "mini_batch_size": 512, "k_epochs": 4, "lr": 5e-4, "gamma": 0.99, "entropy_coef": 0.01
}  # fmt: skip
EXPLORERS: dict[str, Callable[[], list[Companion]]] = {
    "NovelD": lambda: [documented("NovelD")(beta=0.05)],
    "PPO alone": list,
}
GOOD = 0.8
"""A mean return that counts as solved."""
Run = tuple[str, str, int]
"""Task, explorer and seed."""
Curve = list[tuple[float, float]]
"""Steps, and the mean return of the last 100 episodes of training."""


def train(env_id: str, explorer: str, seed: int) -> Curve:
    """Train; return about 100 points of the learning curve."""
    import minigrid  # noqa: F401  # registers the tasks

    symbols = documented("Symbols")

    def make() -> gym.Env:
        return symbols(gym.make(env_id))

    ppo = PPO.for_env(make(), companions=EXPLORERS[explorer](), seed=seed, **SETTINGS)
    with AsyncPPO(make, ppo, 32, TASKS[env_id], backend="inline", seed=seed, progress=False) as trainer:
        curve = [(row["steps"], round(row["mean_return"], 3)) for row in trainer.run()]
    return curve[:: max(1, len(curve) // 100)] + curve[-1:]


def finished() -> dict[Run, Curve]:
    """Return the curves of all finished runs."""
    rows = map(json.loads, RUNS.read_text().splitlines()) if RUNS.exists() else ()
    return {(row["env"], row["explorer"], row["seed"]): row["curve"] for row in rows}


def solved_at(curve: Curve) -> float:
    """Return the number of steps after which the mean return is good, or infinity."""
    return next((steps for steps, value in curve if value >= GOOD), np.inf)


def draw(done: dict[Run, Curve]) -> None:
    """Draw all curves."""
    figure = Figure(figsize=(4.5 * len(TASKS), 3.4), layout="constrained")
    for axes, env_id in zip(figure.subplots(1, len(TASKS), squeeze=False).flat, TASKS, strict=True):
        for color, explorer in zip(COLORS, EXPLORERS, strict=False):
            curves = [curve for (task, name, _), curve in done.items() if (task, name) == (env_id, explorer)]
            for place, curve in enumerate(curves):
                axes.plot(*zip(*curve, strict=True), color=color, label=None if place else explorer)
        axes.set(title=env_id, xlabel="steps", ylabel="mean return of 100 episodes")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend()
    figure.savefig(PICTURE, dpi=110)


def main(
    env_ids: Sequence[str] = tuple(TASKS), explorers: Sequence[str] = tuple(EXPLORERS), seeds: Sequence[int] = range(3)
) -> None:
    """Train what is missing; print a line for each run, and draw the curves.

    Args:
        env_ids: the tasks.
        explorers: PPO with NovelD, or alone.
        seeds: of the runs.
    """
    wanted = [(env_id, explorer, seed) for seed in seeds for env_id in env_ids for explorer in explorers]
    for run in tqdm([run for run in wanted if run not in finished()], unit="run"):
        row = dict(zip(("env", "explorer", "seed"), run, strict=True)) | {"curve": train(*run)}
        with RUNS.open("a") as file:
            file.write(json.dumps(row) + "\n")
    done = finished()
    for run in wanted:
        _, last = done[run][-1]
        print(
            *run, f"mean return {last:.2f} at the end, at least {GOOD} after {solved_at(done[run]):,} steps", sep=", "
        )
    draw(done)


if __name__ == "__main__":
    tyro.cli(main)
