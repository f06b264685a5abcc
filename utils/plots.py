"""Pictures of runs."""

import os
from collections.abc import Sequence

from utils.checkpoint import write_atomically

FEW_POINTS = 20
"""Below this a curve shows its points: a single one has no line."""


def plot_learning_curve(
    history: Sequence[dict[str, float]], path: str | os.PathLike[str], title: str, threshold: float | None = None
) -> None:
    """Draw the mean return of the last 100 episodes over environment steps into a PNG.

    Args:
        history: what `AsyncPPO.run` returns.
        path: of the picture.
        title: above it.
        threshold: drawn as a line: the return at which the task counts as solved.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    steps, returns = [row["steps"] for row in history], [row["mean_return"] for row in history]
    axes.plot(steps, returns, linewidth=2, marker="." if len(history) < FEW_POINTS else "", label="mean return")
    if threshold is not None:
        axes.axhline(threshold, color="tab:green", linestyle="--", linewidth=1, label=f"solved: {threshold:g}")
    axes.set(title=title, xlabel="environment steps", ylabel="mean return of the last 100 episodes")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    write_atomically(path, lambda file: FigureCanvasAgg(figure).print_png(file))
