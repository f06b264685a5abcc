"""Speed and results of populations, and their targets: `python -m benchmarks.population {speed,members,learning}`.

`speed` compares with PRLearn, if it is installed (`pip install prlearn`). `learning` needs requirements-mujoco.txt.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import tyro
from matplotlib.figure import Figure
from tqdm import tqdm

from benchmarks.population.cases import BAD_RATES, Case, Rover, cases
from benchmarks.population.members import members
from parallel_rl.utils.plots import COLORS
from Population import Trainer

try:
    import prlearn
except ImportError:
    prlearn = None

HERE = Path(__file__).parent
RESULTS, PICTURE = HERE / "results.json", HERE / "scores.png"

Scores = dict[str, dict[str, dict[str, float]]]
"""By bar, name of the case, and seed."""


def speed() -> None:
    """Print the steps per second of PRLearn's quick start with a random agent, and the seconds to its first step."""
    schedule = [("finish", 250, "episodes"), ("train_agent", 10, "episodes")]
    arguments: dict[str, Any] = {"n_workers": 4, "mode": "parallel_learning", "sync_mode": "sync"}
    env = gym.make("LunarLander-v3")
    trainers: dict[str, Callable[[Any], Any]] = {
        "ours": lambda rules: Trainer(Rover(), env, schedule=rules, progress=False, **arguments)
    }
    if prlearn is not None:
        trainers["PRLearn"] = lambda rules: prlearn.Trainer(Rover(), env, schedule=rules, **arguments)
    for name, make in trainers.items():
        start = time.perf_counter()
        make([("finish", 1, "steps")]).run()
        first = time.perf_counter() - start
        start = time.perf_counter()
        _, result = make(schedule).run()
        seconds = time.perf_counter() - start
        steps = sum(worker["total_steps"] for worker in result["workers"])
        row = {"who": name, "steps_per_second": round(steps / seconds), "first_step": round(first, 2)}
        print(json.dumps(row | {"cores": len(os.sched_getaffinity(0))}), flush=True)


def learning(bars: Sequence[str] = ()) -> None:
    """Train what is missing, one run at a time; write `README.md` and `scores.png` next to this file.

    Args:
        bars: train only for the bars whose names begin with one of these; by default for all.
    """
    scores: Scores = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    wanted = [case for case in cases() if not bars or case.bar.startswith(tuple(bars))]
    missing = [(case, seed) for case in wanted for seed in range(case.seeds) if str(seed) not in _of(scores, case)]
    for case, seed in tqdm(sorted(missing, key=lambda one: one[1]), unit="run"):
        _of(scores, case)[str(seed)] = case.run(seed)
        RESULTS.write_text(json.dumps(scores, indent=1))
    (HERE / "README.md").write_text(page(scores))
    plot(scores)


def _of(scores: Scores, case: Case) -> dict[str, float]:
    return scores.setdefault(case.bar, {}).setdefault(case.name, {})


def page(scores: Scores) -> str:
    """Return the table of all scores, and whether the bars are reached."""
    rows = [
        f"| {bar} | {name} | {np.mean([*by_seed.values()]):.1f} | {np.median([*by_seed.values()]):.1f} "
        f"| {', '.join(f'{score:.0f}' for score in by_seed.values())} |"
        for bar, names in scores.items()
        for name, by_seed in names.items()
        if by_seed
    ]
    return "\n".join([HEAD, *rows, "", *(f"- {verdict}" for verdict in map(_verdict, scores, scores.values())), ""])


def _verdict(bar: str, names: dict[str, dict[str, float]]) -> str:
    """Return, in words, the comparison with a bar."""
    values = {name: np.array([*by_seed.values()]) for name, by_seed in names.items()}
    missing = [case.name for case in cases() if case.bar == bar and len(values.get(case.name, ())) < case.seeds]
    if missing:
        return f"{bar}: runs of {', '.join(missing)} are missing."
    if bar.startswith("mean"):
        (_, ours), (_, single) = values.items()
        return f"{bar}: {ours.mean():.1f} against {single.mean():.1f}; the bar is 0.95 of it."
    if bar.startswith("best"):
        (_, ours), (_, single) = values.items()
        middle, upper = np.quantile(single, [0.5, 0.75])
        return (
            f"{bar}: median {np.median(ours):.1f}; the bar is {middle:.1f} (median) and {upper:.1f} (75th percentile)."
        )
    fixed = np.mean([values[f"lr={lr:g}"].mean() for lr in BAD_RATES])
    solved = int((values["explore"] >= 475).sum())
    return f"{bar}: {solved} of {len(values['explore'])} reach 475; the mean of the fixed rates is {fixed:.1f}."


HEAD = f"""# Populations

Made by `python -m benchmarks.population learning`: the mean return of 100 deterministic episodes after training. The
settings are in [cases.py](cases.py). Population-based training (`explore`) starts with learning rates of
{", ".join(f"{lr:g}" for lr in BAD_RATES)}.
`best` chooses once, at the end, by 100 other episodes of each member. Before, it chose by the last 100 episodes of
training: the medians were 490 (CartPole-v1), -88.2 (Acrobot-v1) and -74.4 (LunarLander-v3), with the same seeds.
*bar* is this project's target.

![scores](scores.png)

| bar | runs | mean | median | each seed |
| --- | --- | --- | --- | --- |"""


def plot(scores: Scores) -> None:
    """Draw the scores of each case: a dot for each seed, a line at the median."""
    widths = [max(3, len(names)) for names in scores.values()]
    figure = Figure(figsize=(0.9 * sum(widths), 3.8), layout="constrained")
    panels = figure.subplots(1, len(scores), squeeze=False, width_ratios=widths).flat
    for axes, (bar, names) in zip(panels, scores.items(), strict=True):
        for place, by_seed in enumerate(names.values()):
            values, color = [*by_seed.values()], COLORS[place % len(COLORS)]
            offsets = np.linspace(-0.15, 0.15, len(values)) if len(values) > 1 else [0.0]
            axes.plot(place + np.array(offsets), values, "o", color=color, alpha=0.6, markersize=5)
            axes.hlines(np.median(values or [np.nan]), place - 0.3, place + 0.3, color=color)
        axes.set(title=bar, xlim=(-0.6, len(names) - 0.4))
        axes.set_xticks(range(len(names)), [name.replace(" of ", "\nof ") for name in names], fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
    figure.supylabel("mean return of 100 episodes")
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"speed": speed, "members": members, "learning": learning})
