"""From results to a table and a picture."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.learning.published import HEADER, RESAMPLES, line
from benchmarks.learning.rows import ROWS, Bar, Result

POINTS = 200
"""To which the curves of a row are brought, so that they can be averaged."""
Results = dict[str, dict[int, Result]]
"""By row, by seed."""


def verdict(bar: Bar, results: dict[int, Result]) -> str:
    """Say in how many seeds a bar was reached."""
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
    """Return the table beside the published figures."""
    tasks = [(ROWS[name].task, [*by_seed.values()]) for name, by_seed in results.items()]
    return "\n".join([HEADER, *(line(task, runs) for task, runs in tasks if task is not None)])


def page(results: Results) -> str:
    """Return the page with the table."""
    return f"""# What is learnt

Made by `python -m benchmarks.learning` (seeds 0 to 4, two runs at a time).
*score* is the mean return of 100 deterministic episodes after training, for the custom loop the mean of its last ten
iterations; *training* is the mean return of the last 100 training episodes. The settings are the presets in
`presets.py`, found on seeds from 100 up; the quick start and the custom loop run with the parameters that they show.

Machine: {os.cpu_count()} cores ({platform.machine()}), no GPU, Python {platform.python_version()}.

{table(results)}

## Beside the published tables

The mean return of 20 deterministic episodes after training, its interquartile mean over the seeds with a bootstrap
interval, the same with actions by chance, and the best mean over the seeds of the last 100 training episodes.
Tianshou's figures are maxima over training of a mean over ten seeds, the others are final ones. MuJoCo's tasks of
version 5 differ from the 2 to 4 of the published figures: Hopper, Walker2d, Ant and Humanoid reward health only
while there is some, Walker2d's feet rub alike, Ant and Humanoid leave out observations that were always zero,
InvertedPendulum's last step earns nothing, and Reacher and Pusher reward what a step has led to
([Gymnasium](https://gymnasium.farama.org/environments/mujoco/)). Of the 105 numbers that Ant-v5 sees 78 are contact
forces, which Ant-v4 leaves out and Ant-v3 was reported to see as zeros
([Gymnasium](https://gymnasium.farama.org/environments/mujoco/ant/)); so there is a row without them. MinAtar has no
bars: [gymnax](https://github.com/RobertTLange/gymnax)'s PPO has figures of one trained agent for each game, and DQN has
curves ([Young & Tian 2019](https://arxiv.org/abs/1903.03176)).

{published_table(results)}

![learning curves](learning_curves.png)

Thin lines: seeds; thick: their mean, with a 95% bootstrap interval.
"""


def mean_curve(curves: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return steps, the mean of curves `(n, 2)` there, and its 95% bootstrap interval, low and high."""
    known = [curve[np.isfinite(curve[:, 1])] for curve in curves]
    steps = np.linspace(max(curve[0, 0] for curve in known), min(curve[-1, 0] for curve in known), POINTS)
    returns = np.stack([np.interp(steps, *curve.T) for curve in known])
    draws = np.random.default_rng(0).integers(len(returns), size=(RESAMPLES, len(returns)))
    low, high = np.quantile(returns[draws].mean(axis=1), [0.025, 0.975], axis=0)
    return steps, returns.mean(axis=0), low, high


def plot(results: Results, path: Path) -> None:
    """Draw every row's curves: a thin line for each seed, their mean with its interval, the threshold dashed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 4
    rows = -(-len(results) // columns)
    figure = Figure(figsize=(4 * columns, 3 * rows), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns)).flatten()
    for axis, (name, by_seed) in zip(axes, results.items(), strict=False):
        curves = [np.array(result["curve"], float) for _, result in sorted(by_seed.items())]
        for curve in curves:
            axis.plot(curve[:, 0] / 1000, curve[:, 1], color="tab:blue", linewidth=0.5, alpha=0.6)
        if len(curves) > 1:
            steps, mean, low, high = mean_curve(curves)
            axis.plot(steps / 1000, mean, color="tab:blue", linewidth=2)
            axis.fill_between(steps / 1000, low, high, color="tab:blue", alpha=0.2, linewidth=0)
        threshold = ROWS[name].threshold
        if threshold is not None:
            axis.axhline(threshold, color="black", linestyle="--", linewidth=0.8)
        axis.set(title=name, xlabel="thousand steps", ylabel="mean return")
        axis.grid(alpha=0.3)
    for axis in axes[len(results) :]:
        axis.set_axis_off()
    FigureCanvasAgg(figure).print_png(str(path))
