"""Pictures of runs."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from utils.checkpoint import write_atomically
from utils.history import Metrics

FEW_POINTS = 20
"""Below this a curve shows its points: a single one has no line."""
POINTS = 200
"""To which the curves of several runs are brought, so that they can be averaged."""
Rows = Sequence[Metrics]
"""What `AsyncPPO.run` returns, or a list of such dicts."""


def plot_learning_curve(
    history: Rows,
    path: str | os.PathLike[str],
    title: str,
    threshold: float | None = None,
    evaluations: Sequence[tuple[int, float]] = (),
) -> None:
    """Draw the mean return of the last 100 episodes over environment steps into a PNG.

    Args:
        history: of the run.
        path: of the picture.
        title: above it.
        threshold: drawn as a line: the return at which the task counts as solved.
        evaluations: steps and mean return of each, drawn as points.
    """
    with _picture(path, title) as axes:
        steps, returns = _curve(history)
        axes.plot(steps, returns, linewidth=2, marker="." if len(history) < FEW_POINTS else "", label="training")
        if evaluations:
            axes.plot(*zip(*evaluations, strict=True), "o", color="tab:orange", label="evaluation, deterministic")
        if threshold is not None:
            axes.axhline(threshold, color="tab:green", linestyle="--", linewidth=1, label=f"solved: {threshold:g}")


def plot_runs(groups: Mapping[str, Sequence[Rows]], path: str | os.PathLike[str], title: str) -> None:
    """Draw the learning curves of several runs into a PNG, the mean of each group with a band from least to most.

    Args:
        groups: runs by label; those of a group differ by their seeds alone.
        path: of the picture.
        title: above it.
    """
    with _picture(path, title) as axes:
        for label, histories in groups.items():
            curves = [_curve(history) for history in histories]
            common = np.linspace(max(steps[0] for steps, _ in curves), min(steps[-1] for steps, _ in curves), POINTS)
            returns = np.stack([np.interp(common, *curve) for curve in curves])
            count = f" ({len(curves)} runs)" if len(curves) > 1 else ""
            (line,) = axes.plot(common, returns.mean(axis=0), linewidth=2, label=f"{label}{count}")
            if len(curves) > 1:
                axes.fill_between(
                    common, returns.min(axis=0), returns.max(axis=0), color=line.get_color(), alpha=0.2, linewidth=0
                )


@contextmanager
def _picture(path: str | os.PathLike[str], title: str) -> Iterator[Any]:
    """Give axes to draw returns over steps in; save them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    yield axes
    axes.set(title=title, xlabel="environment steps", ylabel="mean return of the last 100 episodes")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="best")
    write_atomically(path, lambda file: FigureCanvasAgg(figure).print_png(file))


def _curve(history: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Return steps and mean returns, from the first episode that has ended."""
    curve = np.array([(row["steps"], row["mean_return"]) for row in history], float).reshape(-1, 2)
    known = curve[np.isfinite(curve[:, 1])]
    return known[:, 0], known[:, 1]
