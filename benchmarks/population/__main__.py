"""Speed and results of populations, and their targets: `python -m benchmarks.population {speed,members,learning}`.

`speed` compares with PRLearn, if it is installed (`pip install prlearn`). `learning` needs requirements-mujoco.txt.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import gymnasium as gym
import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
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

SOLVED, SHARE = 475, 0.95
"""Bars: of `explore` for each seed, and of `mean` as a share of one long run; a negative return is divided by it."""
BARS: dict[str, tuple[Any, str]] = {
    "best": ("--", "bar of best: 75th percentile of the single runs"),
    "explore": ("-.", f"bar of explore: {SOLVED}"),
    "mean": (":", f"bar of mean: {SHARE} of one run"),
}
"""The style and the legend of the line at each bar."""
ROWS, COLUMNS = 2, 4
POSSIBLE = {"CartPole-v1": (0, 500)}
"""The least and the largest return, where scores reach them."""

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
    """Return the table of all scores, and which bars are met."""
    scores = _sorted(scores)
    rows = [
        f"| {bar} | {name} | {np.mean([*by_seed.values()]):.1f} | {np.median([*by_seed.values()]):.1f} "
        f"| {', '.join(f'{score:.0f}' for score in by_seed.values())} |"
        for bar, names in scores.items()
        for name, by_seed in names.items()
        if by_seed
    ]
    return "\n".join([HEAD, *rows, "", *(f"- {verdict}" for verdict in map(_verdict, scores, scores.values())), ""])


def _sorted(scores: Scores) -> Scores:
    """Return the scores in the order of the kinds of bars."""
    return {bar: scores[bar] for bar in sorted(scores, key=lambda bar: bar.partition(",")[0])}


def bar_of(bar: str, names: dict[str, dict[str, float]]) -> float:
    """Return the score that a population should reach, given the scores of all cases."""
    kind, (_, other) = bar.partition(",")[0], [*names.values()][:2]
    if kind == "explore":
        return SOLVED
    single = [*other.values()]
    if kind == "best":
        return float(np.quantile(single, 0.75))
    mean = float(np.mean(single))
    return mean * SHARE if mean > 0 else mean / SHARE


def _verdict(bar: str, names: dict[str, dict[str, float]]) -> str:
    """Return, in words, the comparison with a bar."""
    values = {name: np.array([*by_seed.values()]) for name, by_seed in names.items()}
    missing = [case.name for case in cases() if case.bar == bar and len(values.get(case.name, ())) < case.seeds]
    if missing:
        return f"{bar}: runs of {', '.join(missing)} are missing."
    (_, ours), (_, other), *_ = values.items()
    aim = bar_of(bar, names)
    if bar.startswith("mean"):
        met = _met(ours.mean() >= aim)
        return f"{bar}: the mean is {ours.mean():.1f}, of one run {other.mean():.1f}; the bar of {aim:.1f} is {met}."
    if bar.startswith("best"):
        middle = np.median(ours)
        single, met = np.median(other), _met(middle >= aim)
        return f"{bar}: the median is {middle:.1f}, of single runs {single:.1f}; the bar of {aim:.1f} is {met}."
    fixed = np.mean([values[f"lr={lr:g}"].mean() for lr in BAD_RATES])
    solved, met = np.count_nonzero(ours >= aim), _met(bool((ours >= aim).all()))
    return f"{bar}: {solved} of {len(ours)} reach {aim:g}: {met}; the mean of the fixed rates is {fixed:.1f}."


def _met(reached: bool) -> str:
    return "met" if reached else "**missed**"


HEAD = f"""# Populations

Made by `python -m benchmarks.population learning`: the mean return of 100 deterministic episodes after training. The
settings are in [cases.py](cases.py). Population-based training (`explore`) starts with learning rates of
{", ".join(f"{lr:g}" for lr in BAD_RATES)}.
`best` chooses once, at the end, by 100 other episodes of each member. Before, it chose by the last 100 episodes of
training: the medians were 490 (CartPole-v1), -88.2 (Acrobot-v1) and -74.4 (LunarLander-v3), with the same seeds.
*bar* is this project's target: for `best` the median of five populations should reach the 75th percentile of 20 single
runs, for `explore` each seed {SOLVED}, for `mean` the mean {SHARE} times that of one run of as many steps (a negative
return is divided by {SHARE}). The lines below the table say which bars are met and which are missed.

![scores](scores.png)

| bar | runs | mean | median | each seed |
| --- | --- | --- | --- | --- |"""


def plot(scores: Scores) -> None:
    """Draw the scores of each case: a dot for each seed, a line at the median, and a line at the bar."""
    figure = Figure(figsize=(9.5, 6), layout="constrained")
    grid, cell = figure.add_gridspec(ROWS, COLUMNS), 0
    for bar, names in _sorted(scores).items():
        width = 1 + (len(names) > 3)
        axes = figure.add_subplot(grid[cell // COLUMNS, cell % COLUMNS : cell % COLUMNS + width])
        cell += width
        _draw_panel(axes, bar, names)
    handles = [
        Line2D([], [], color="0.3", marker="o", linestyle="", label="a seed"),
        Line2D([], [], color="0.3", label="median of the seeds"),
        *(Line2D([], [], color="black", linestyle=style, label=label) for style, label in BARS.values()),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    figure.supylabel("mean return of 100 episodes")
    figure.savefig(PICTURE, dpi=110)


def _draw_panel(axes: Axes, bar: str, names: dict[str, dict[str, float]]) -> None:
    kind, _, env_id = bar.partition(", ")
    for place, by_seed in enumerate(names.values()):
        values, color = [*by_seed.values()], COLORS[place % len(COLORS)]
        offsets = np.linspace(-0.15, 0.15, len(values)) if len(values) > 1 else [0.0]
        axes.plot(place + np.array(offsets), values, "o", color=color, alpha=0.6, markersize=5, clip_on=False)
        axes.hlines(np.median(values or [np.nan]), place - 0.3, place + 0.3, color=color)
    axes.axhline(bar_of(bar, names), color="black", linestyle=BARS[kind][0], linewidth=1)
    axes.set_title(bar, fontsize=10, pad=8)
    axes.set_xlim(-0.6, len(names) - 0.4)
    if env_id in POSSIBLE:
        axes.set_ylim(*POSSIBLE[env_id])
    axes.set_xticks(range(len(names)), [fill(name, 11) for name in names], fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"speed": speed, "members": members, "learning": learning})
