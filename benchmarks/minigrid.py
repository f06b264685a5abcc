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
from matplotlib.lines import Line2D
from tqdm import tqdm

from AsyncPPO import AsyncPPO
from benchmarks.companions import documented
from parallel_rl.utils.plots import COLORS, STYLES, style_axes
from PPO import PPO, Companion

HERE = Path(__file__).parent
RUNS, PICTURE = HERE / "minigrid.jsonl", HERE.parent / "docs" / "minigrid.png"
TASKS = {"MiniGrid-DoorKey-8x8-v0": 1_000_000, "MiniGrid-KeyCorridorS3R2-v0": 1_000_000}
"""Tasks, and the steps of a run."""
NUM_ENVS, LIMITS = 32, {"MiniGrid-DoorKey-8x8-v0": 640, "MiniGrid-KeyCorridorS3R2-v0": 270}
"""The number of environments, and the steps after which an episode is truncated."""
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
    with AsyncPPO(make, ppo, NUM_ENVS, TASKS[env_id], backend="inline", seed=seed, progress=False) as trainer:
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
    """Draw all curves from where each environment has finished an episode; a cross marks those that solve nothing."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    for axes, env_id in zip(figure.subplots(1, len(TASKS), squeeze=False).flat, TASKS, strict=True):
        for color, explorer in zip(COLORS, EXPLORERS, strict=False):
            failed = []
            for (_, _, seed), curve in sorted(one for one in done.items() if one[0][:2] == (env_id, explorer)):
                shown = [point for point in curve if point[0] >= NUM_ENVS * LIMITS[env_id]]
                axes.plot(*zip(*shown, strict=True), color=color, linestyle=STYLES[seed % len(STYLES)], linewidth=1.3)
                if solved_at(curve) == np.inf:
                    axes.plot(*curve[-1], "x", color=color, markersize=8, markeredgewidth=2, clip_on=False)
                    failed.append(str(seed))
            if failed:
                text = f"{explorer}, seed{'s' * (len(failed) > 1)} {', '.join(failed)}"
                axes.annotate(
                    text, (1, 0), (-8, 6), ("axes fraction", "data"), "offset points", ha="right", color=color
                )
        style_axes(axes, env_id)
        axes.set(
            xlabel="steps", ylabel="mean return of the last 100 episodes", ylim=(-0.02, 1), xlim=(0, TASKS[env_id])
        )
    entries: list[dict[str, Any]] = [
        *({"color": color, "label": name} for color, name in zip(COLORS, EXPLORERS, strict=False)),
        *({"color": "0.3", "linestyle": style, "label": f"seed {seed}"} for seed, style in enumerate(STYLES)),
        {"color": "0.3", "marker": "x", "linestyle": "", "label": f"never reached {GOOD}"},
    ]
    handles = [Line2D([], [], **entry) for entry in entries]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
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
