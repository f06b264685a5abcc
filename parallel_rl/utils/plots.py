"""Plots of runs."""

import math
import os
import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from parallel_rl.utils.files import write_atomically
from parallel_rl.utils.history import Metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
FEW_POINTS = 20
"""A curve with fewer points also shows the points, since a single point has no line."""
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""The color-blind safe palette of Okabe & Ito, without yellow, which is hard to see on white."""
STYLES = ("-", "--", "-.")
"""Line styles, used when the colors repeat."""
WIDTH, LINE_HEIGHT = 9.0, 0.19
"""In inches: the width of a figure, and the height of a line of text below it."""
LETTERS = 125
"""The number of letters in a line of that text."""
DISC = 14.0
"""The diameter, in points, of a disc with a number."""
SHORT = 0.98
"""A run ended early if it has less than this share of its planned steps, or of the steps of others in its group."""
POINTS = 2000
"""The largest number of points at which curves are compared."""
X = Literal["steps", "seconds"]
X_LABELS = {"steps": "environment steps", "seconds": "seconds of training"}
Y_LABELS = {
    "mean_return": "mean return of the last 100 episodes",
    "success_rate": "share of successes in the last 100 episodes",
}
"""Labels of columns whose names do not say enough."""
MetricRows = Sequence[Metrics]
"""The history that `AsyncPPO.run` returns, or a list of such dicts."""


class Run(NamedTuple):
    """The data to plot for a run."""

    name: str
    history: MetricRows
    goal: int
    """The planned number of steps."""

    @classmethod
    def of(cls, name: str, history: MetricRows, done: int, planned: int) -> "Run":
        """Make a run that has done so many steps; if all, it is complete, though its last ones may have no row."""
        return cls(name, history, int(history[-1]["steps"]) if done >= planned else planned)


Panels = Mapping[str, Mapping[str, Sequence[Run]]]
"""Runs by task and by label; the runs of a label are one curve."""


def curve_of(history: Sequence[Metrics], x: str = "steps", y: str = "mean_return") -> np.ndarray:
    """Return `(n, 2)`: the columns `x` and `y` of a history, from the first row with a finished episode."""
    curve = np.array([(row[x], row.get(y, np.nan)) for row in history], float).reshape(-1, 2)
    return curve[np.isfinite(curve).all(axis=1)]


def align(curves: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate curves at common points.

    Args:
        curves: `(n, 2)` each, n at least 1: rising x, and y.

    Returns:
        The points x `(m,)`, and y of each curve there `(len(curves), m)`, NaN before its start and after its end. If
        the curves have few points, all are among them. The ends of each curve always are.
    """
    first, last = (np.array([curve[row, 0] for curve in curves]) for row in (0, -1))
    inside = np.unique(np.concatenate([curve[:, 0] for curve in curves]))
    if len(inside) > POINTS:
        inside = np.linspace(first.min(), last.max(), POINTS)
    places = np.unique(np.concatenate([inside, first, last]))
    return places, np.stack(
        [np.interp(places, curve[:, 0], curve[:, 1], left=np.nan, right=np.nan) for curve in curves]
    )


def plot_learning_curve(
    history: MetricRows,
    path: str | os.PathLike[str],
    title: str,
    threshold: float | None = None,
    evaluations: Sequence[tuple[int, float]] = (),
) -> None:
    """Plot the mean return of the last 100 episodes over environment steps.

    Args:
        history: of the run.
        path: of the figure, a PNG, SVG or PDF.
        title: above it.
        threshold: the return at which the task counts as solved, drawn as a line.
        evaluations: steps and mean return of each, drawn as points.
    """
    figure = _figure(4.5)
    axes = figure.subplots()
    curve = curve_of(history)
    axes.plot(*curve.T, color=COLORS[0], linewidth=2, marker="." if len(curve) < FEW_POINTS else "", label="training")
    if not len(curve):
        missing = "no episode has ended" if history else "no update yet"
        axes.text(0.5, 0.6, missing, transform=axes.transAxes, ha="center", color="grey")
    if evaluations:
        axes.plot(*zip(*evaluations, strict=True), "o", color=COLORS[1], label="evaluation, deterministic")
    if threshold is not None:
        axes.axhline(threshold, color=COLORS[2], linestyle="--", linewidth=1, label=f"solved: {threshold:g}")
    style_axes(axes, title)
    if not (len(curve) or evaluations):
        axes.set(xticks=[], yticks=[])  # nothing that has a scale
    axes.set(xlabel=X_LABELS["steps"], ylabel=Y_LABELS["mean_return"])
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    save_figure(figure, path)


def ended_early(panels: Panels) -> list[tuple[Run, int]]:
    """Return the runs that ended before their goal or before others of their group, each with its expected steps."""
    early: list[tuple[Run, int]] = []
    for groups in panels.values():
        for runs in groups.values():
            longest = max(int(run.history[-1]["steps"]) for run in runs)
            for run in runs:
                steps = run.history[-1]["steps"]
                if steps < SHORT * max(run.goal, longest):
                    early.append((run, run.goal if steps < SHORT * run.goal else longest))
    return early


def plot_runs(
    panels: Panels,
    path: str | os.PathLike[str],
    x: X = "steps",
    y: str = "mean_return",
    *,
    quartiles: bool = False,
) -> None:
    """Plot the learning curves of several runs, a panel for each task.

    A group of runs is plotted as thin lines, with their mean and a band from the lowest to the highest run as far as
    all of them reach. Numbers mark where runs ended early.

    Args:
        panels: the runs; at least one episode has ended in each.
        path: of the figure, a PNG, SVG or PDF.
        x: the horizontal axis.
        y: the vertical axis, a column of the histories.
        quartiles: whether bands are from the lower to the upper quartile.
    """
    labels = [*dict.fromkeys(label for groups in panels.values() for label in groups)]
    early = ended_early(panels)
    numbers = {run.name: number for number, (run, _) in enumerate(early, 1)}
    entries, columns = _entries(panels, labels)
    entry_lines = _lines(entries, columns)
    caption = _caption(panels, [(numbers[run.name], run, goal) for run, goal in early], quartiles)
    across = min(math.ceil(math.sqrt(len(panels))), 3)
    down = -(-len(panels) // across)
    above, below = 4.3 if down == across == 1 else 2.9 * down + 0.3, LINE_HEIGHT * (entry_lines + len(caption) + 0.7)
    figure = _figure(above + below)
    pictures, words = figure.subfigures(2, 1, squeeze=False, height_ratios=[above, below]).flat
    grid = pictures.subplots(down, across, squeeze=False)
    handles: dict[str, Any] = {}
    ends: dict[Axes, list[tuple[int, Any, str]]] = defaultdict(list)
    for axes, (task, groups) in zip(grid.flat, panels.items(), strict=False):
        for label, runs in groups.items():
            number = labels.index(label)
            style: dict[str, Any] = {
                "color": COLORS[number % len(COLORS)],
                "linestyle": STYLES[number // len(COLORS) % len(STYLES)],
            }
            handles[label] = _draw_group(axes, runs, x, y, style, quartiles)
            marked = [run for run in runs if run.name in numbers]
            ends[axes] += [(numbers[run.name], curve_of(run.history, x, y)[-1], style["color"]) for run in marked]
        style_axes(axes, task)
        if y == "success_rate":
            axes.set_ylim(-0.02, 1.02)  # the same for all tasks
        if ends[axes]:
            axes.margins(x=0.05 * across)  # room for the numbers
        axes.set_xlim(left=0)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    pictures.supxlabel(X_LABELS[x], fontsize=10)
    pictures.supylabel(Y_LABELS.get(y, y), fontsize=10)
    if any(entries):
        shown = [handles[label] for label in labels]
        words.legend(shown, entries, loc="upper center", ncols=columns, frameon=False, fontsize=9, borderaxespad=0)
    words.text(0.5, 0.02, "\n".join(caption), ha="center", va="bottom", fontsize=8, color="0.35")
    figure.draw_without_rendering()  # the layout, and so which numbers would overlap
    for axes, marks in ends.items():
        _mark_ends(axes, marks, figure.dpi)
    save_figure(figure, path)


def _draw_group(axes: "Axes", runs: Sequence[Run], x: X, y: str, style: dict[str, Any], quartiles: bool) -> Any:
    """Plot runs, their mean and their band; return the line of the mean."""
    curves = [curve_of(run.history, x, y) for run in runs]
    places, returns = align(curves)
    for curve in curves:
        if len(curve) == 1:  # a single point has no line
            axes.plot(*curve.T, "o", color=style["color"])
        elif len(runs) > 1:
            axes.plot(*curve.T, linewidth=0.8, alpha=0.7, **style)
    if len(runs) > 1:
        low, high = band_of(returns, quartiles)
        axes.fill_between(places, low, high, color=style["color"], alpha=0.18, linewidth=0)
    (line,) = axes.plot(places, returns.mean(axis=0), linewidth=2, **style)
    return line


def band_of(returns: np.ndarray, quartiles: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and the upper edge `(m,)` of the band of curves `(n, m)`; NaN where one is NaN."""
    low, high = np.quantile(returns, [0.25, 0.75] if quartiles else [0.0, 1.0], axis=0)
    return low, high


def _mark_ends(axes: "Axes", marks: Sequence[tuple[int, Any, str]], dpi: float) -> None:
    """Put numbers in discs of some colors, joined to places `(2,)`: to the right of them, so that no end is hidden."""
    size = DISC * dpi / 72
    taken: list[np.ndarray] = []
    middle = axes.transAxes.transform((0.5, 0.5))[1]
    placed = [(number, place, axes.transData.transform(place), color) for number, place, color in marks]
    for number, place, end, color in sorted(placed, key=lambda mark: -abs(mark[2][1] - middle)):
        at, inwards = end + np.array([1.2 * size, 0.0]), 1 if end[1] < middle else -1
        while any(np.hypot(*(at - other)) < size for other in taken):
            at = at + np.array([0.0, 0.2 * inwards * size])
        taken.append(at)
        axes.annotate(
            str(number), (place[0], place[1]), tuple((at - end) * 72 / dpi), textcoords="offset points",
            ha="center", va="center", color="white", fontsize=7, weight="bold", zorder=6 + 1 / number,
            bbox={"boxstyle": "circle", "facecolor": color, "edgecolor": "white"},
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 1},
        )  # fmt: skip


def _entries(panels: Panels, labels: Sequence[str]) -> tuple[list[str], int]:
    """Return the text of the legend for each label, and the number of columns."""
    entries = []
    for label in labels:
        counts = sorted({len(groups[label]) for groups in panels.values() if label in groups})
        many = f"{'-'.join(map(str, counts))}\xa0runs" if counts != [1] else ""
        entries.append(f"{label} ({many})" if label and many else label or many)
    longest = max(map(len, entries))
    columns = max(min(len(entries), LETTERS // (min(longest, LETTERS // 2 - 8) + 8)), 1)
    return [textwrap.fill(entry, LETTERS // columns - 8) for entry in entries], columns


def _lines(entries: Sequence[str], columns: int) -> int:
    """Return the number of lines of a legend, whose columns are filled one after the other."""
    if not any(entries):
        return 0
    down = -(-len(entries) // columns)
    lines = [entry.count("\n") + 1 for entry in entries]
    return max(sum(lines[start : start + down]) for start in range(0, len(lines), down))


def _caption(panels: Panels, early: Sequence[tuple[int, Run, int]], quartiles: bool) -> list[str]:
    """Return the lines of the caption."""
    notes = [
        f"({number}) {run.name} ends at {run.history[-1]['steps']:,.0f} of {goal:,}" for number, run, goal in early
    ]
    edges = "the lower to the upper quartile" if quartiles else "the least to the most"
    if any(len(runs) > 1 for groups in panels.values() for runs in groups.values()):
        notes.insert(
            0, f"Thin lines: the runs; thick line: their mean, as far as all reach; band: from {edges} of them."
        )
    return [line for sentence in notes for line in textwrap.wrap(sentence, LETTERS)]


def _figure(height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), layout="constrained")


def style_axes(axes: "Axes", title: str, ticks: int = 6) -> None:
    """Give axes a title, a grid, and at most `ticks` ticks, with labels such as 0.5, 10k or 2M."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    thousands = EngFormatter(sep="")

    axes.set_title(title, fontsize=11)
    axes.xaxis.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}" if abs(value) < 1 else thousands(value))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def save_figure(figure: "Figure", path: str | os.PathLike[str]) -> None:
    """Write a figure, whole or not at all, as a PNG, SVG or PDF."""
    suffix = Path(path).suffix
    if suffix not in FORMATS:
        raise ValueError(f"a picture must end in {', '.join(FORMATS)}, not {Path(path).name!r}")
    write_atomically(path, lambda file: figure.savefig(file, format=suffix[1:], dpi=150))
