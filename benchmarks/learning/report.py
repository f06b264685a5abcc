"""A table and a figure from results."""

import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.learning.published import HEADER, RESAMPLES, line
from benchmarks.learning.rows import ROWS, Bar, Result
from parallel_rl.utils.plots import COLORS, align, style_axes

ACROSS = 4
"""Panels in a row."""
MAIN = {"CartPole-v1": "main.py", "MountainCar-v0": "without RND", "Ant-v5": "with contact forces"}
"""Labels of published tasks that have several rows."""
BESIDE = {
    "CartPole-v1": {"quick start": "quick start", "custom loop": "custom loop"},
    "MountainCar-v0": {"with RND": "MountainCar-v0 --use-rnd"},
}
"""Rows of the first table that are plotted with those of the second, by label."""
Results = dict[str, dict[int, Result]]
"""By row and seed."""


def verdict(bar: Bar, results: dict[int, Result]) -> str:
    """Return, as text, for how many seeds a target was reached."""
    reached = sum(result[bar.figure] >= bar.at_least for result in results.values())
    return f"{bar.figure} >= {bar.at_least:g} in {reached} of {len(results)} ({bar.seeds} asked)"


def table(results: Results) -> str:
    """Return the table in Markdown."""
    lines = ["| run | figures of each seed | median steps | median seconds | bar |", "| --- | --- | --- | --- | --- |"]
    for name, by_seed in results.items():
        if ROWS[name].task is not None:
            continue
        runs = [by_seed[seed] for seed in sorted(by_seed)]
        figures = []
        for figure in ("score", "training"):
            if figure in runs[0]:
                figures.append(f"{figure}: " + ", ".join(f"{run[figure]:.1f}" for run in runs))
        steps = f"{np.median([run['steps'] for run in runs]):,.0f}" if "steps" in runs[0] else "100,000"
        seconds = f"{np.median([run['seconds'] for run in runs]):.0f}" if "seconds" in runs[0] else ""
        bars = "<br>".join(verdict(bar, by_seed) for bar in ROWS[name].bars) or "reported only"
        lines.append(f"| `{name}` | {'<br>'.join(figures)} | {steps} | {seconds} | {bars} |")
    return "\n".join(lines)


def published_table(results: Results) -> str:
    """Return the table with the published figures of PPO."""
    tasks = [(ROWS[name].task, [*by_seed.values()]) for name, by_seed in results.items()]
    return "\n".join([HEADER, *(line(task, runs) for task, runs in tasks if task is not None and task.agent == "ppo")])


def off_policy_table(results: Results) -> str:
    """Return the table of the off-policy agents, those that were not run among them."""
    tasks = [(row.task, [*results.get(name, {}).values()]) for name, row in ROWS.items()]
    return "\n".join([HEADER, *(line(task, runs) for task, runs in tasks if task is not None and task.agent != "ppo")])


def page(results: Results) -> str:
    """Return the page with the table."""
    return f"""# Learning results

Made by `python -m benchmarks.learning` (seeds 0 to 4, two runs at the same time; Hopper-v5 has seeds 0 to 9).
*score* is the mean return of 100 deterministic episodes after training; for the custom loop it is the mean of the last
ten iterations. *training* is the mean return of the last 100 training episodes. *bar* is this project's target. The
settings of the first table are the presets in `presets.py`, tuned on seeds from 100 up; the quick start and the custom
loop have the settings of their programs. Runs of the other tables have further flags ([published.py](published.py)).

Machine: {os.cpu_count()} cores ({platform.machine()}), no GPU, Python {platform.python_version()}.

{table(results)}

## Comparison with published results

Each seed's score is the mean return of 20 deterministic episodes after training. *mean* and *IQM* (interquartile mean,
with a bootstrap interval) are over the scores of the seeds. *stochastic* is the mean with stochastic actions. *best
of training* is the highest point of the learning curve, which is the mean over the seeds of the mean return of the last
100 training episodes. Tianshou's published figures are such highest points, of ten seeds; the others are final returns.

Version 5 of MuJoCo's tasks differs from versions 2 to 4, which the published figures are for
([Gymnasium](https://gymnasium.farama.org/environments/mujoco/)):

- Hopper, Walker2d, Ant and Humanoid pay the healthy reward only while healthy.
- Walker2d's feet have equal friction.
- Ant and Humanoid omit observations that were always zero.
- InvertedPendulum's last step has no reward.
- Reacher and Pusher compute the reward after the step.
- 78 of the 105 observed numbers of Ant-v5 are contact forces. Ant-v4 omits them, and in Ant-v3 they were reported to be
  zeros ([Gymnasium](https://gymnasium.farama.org/environments/mujoco/ant/)). So there is a row without them.

MinAtar has no targets: [gymnax](https://github.com/RobertTLange/gymnax)'s PPO has figures of one trained agent for each
game, and DQN has curves ([Young & Tian 2019](https://arxiv.org/abs/1903.03176)).

{published_table(results)}

![learning curves](learning_curves.png)

Dashed line: the target. Thin lines: seeds. Thick line: their mean (thinner if some seeds are missing), with its 95%
bootstrap interval as a band. The runs of MountainCar with RND end at 500,000 steps. Each task of the second table
has a panel with its runs. The quick start, the custom loop and RND of the first table are in the panels of their tasks.

## Off-policy agents

These are the same figures for [OffPolicy](../../docs/offpolicy.md). Evaluations of Pendulum have 100 episodes, since
its initial states vary. The tasks of Fetch are trained with hindsight. For these tasks, and for
[BitFlip](../bit_flip.py) with 15 bits, the figures are successes in percent, but *stochastic* and *best of training*
are returns.

{off_policy_table(results)}

![learning curves of the off-policy agents](off_policy_curves.png)

Lines and bands are as above; those of Fetch and BitFlip are returns, too, so they have no target.
"""


def interval_of(returns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the 95% bootstrap interval, low and high, of the mean of curves `(n, places)`, NaN where missing."""
    draws = np.random.default_rng(0).integers(len(returns), size=(RESAMPLES, len(returns)))
    times = (draws[..., None] == np.arange(len(returns))).sum(axis=1)  # each curve is in each resample
    there = np.isfinite(returns)
    total, count = times @ np.where(there, returns, 0.0), times @ there
    means = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    low, high = np.nanquantile(means, [0.025, 0.975], axis=0)
    return low, high


Panels = dict[str, dict[str, str]]
"""The row of each curve, by task and label; each task has one panel."""


def panels_of(results: Results) -> Panels:
    """Return the panels of PPO."""
    panels: Panels = {}
    for name in results:
        task = ROWS[name].task
        if task is not None and task.agent == "ppo":
            panels.setdefault(task.env_id, {})[task.variant or MAIN.get(task.env_id, "")] = name
    for env_id, others in BESIDE.items():
        panels.setdefault(env_id, {}).update({label: name for label, name in others.items() if name in results})
    return {env_id: rows for env_id, rows in panels.items() if rows}


def off_policy_panels(results: Results) -> Panels:
    """Return the panels of the off-policy agents."""
    panels: Panels = {}
    for name in results:
        task = ROWS[name].task
        if task is not None and task.agent != "ppo":
            label = f"{task.agent.upper()}, {task.variant}" if task.variant else task.agent.upper()
            panels.setdefault(task.env_id.rpartition(":")[2], {})[label] = name
    return panels


def plot(panels: Panels, results: Results, path: Path) -> None:
    """Plot a panel for each task: a thin line for each seed, their mean with its interval, the target dashed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    down = -(-len(panels) // ACROSS)
    figure = Figure(figsize=(10, 1.9 * down + 0.3), layout="constrained")
    axes = figure.subplots(down, ACROSS, squeeze=False).flatten()
    for axis, (env_id, rows) in zip(axes, panels.items(), strict=False):
        for (label, name), color in zip(rows.items(), COLORS, strict=False):
            _draw_row(axis, results[name], label, color)
        first = ROWS[next(iter(rows.values()))]
        threshold = None if first.task is not None and first.task.figure == "success" else first.threshold
        if threshold is not None:
            axis.axhline(threshold, color="black", linestyle="--", linewidth=0.8)
        style_axes(axis, env_id, 4)
        axis.title.set_fontsize(9)
        axis.tick_params(labelsize=8)
        if len(rows) > 1 or (first.task is not None and first.task.agent != "ppo"):
            axis.legend(loc="best", fontsize=7.5, framealpha=0.8, borderpad=0.3)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    figure.supxlabel("environment steps", fontsize=10)
    figure.supylabel("mean return of the last 100 episodes", fontsize=10)
    FigureCanvasAgg(figure).print_figure(str(path), dpi=150)


def _draw_row(axis: Any, by_seed: dict[int, Result], label: str, color: str) -> None:
    curves = [np.array(result["curve"], float) for _, result in sorted(by_seed.items())]
    curves = [curve[np.isfinite(curve[:, 1])] for curve in curves]
    for curve in curves:
        axis.plot(*curve.T, color=color, linewidth=0.4, alpha=0.5)
    places, returns = align(curves)
    axis.plot(places, returns.mean(axis=0), color=color, linewidth=1.5, label=label)
    axis.fill_between(places, *interval_of(returns), color=color, alpha=0.2, linewidth=0)
