"""The report of `tune`: a table of trials, and a picture of the search. Trials count from 1; in Optuna, from 0."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

SHOWN = 5
"""The number of trials in the table, besides the first one."""


def table(trials: "Sequence[FrozenTrial]", names: Sequence[str]) -> str:
    """Return a table with the first trial and the best ones, and how many trials were pruned or failed."""
    ended = sorted((trial for trial in trials if trial.state.name == "COMPLETE"), key=lambda trial: -_value(trial))
    shown = ended[:SHOWN] + [trial for trial in ended[SHOWN:] if trial.number == 0]
    rows = [["trial", "return", *names]]
    rows += [
        [str(trial.number + 1), f"{trial.value:.1f}", *(_text(trial.params.get(name)) for name in names)]
        for trial in shown
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    states = [trial.state.name for trial in trials]
    counts = f"{len(ended)} trials complete, {states.count('PRUNED')} pruned, {states.count('FAIL')} failed"
    return "\n".join([*lines, counts])


def plot_search(study: "Study", path: Path, title: str) -> None:
    """Plot the return of each trial and the best so far, and the importance of each setting.

    Args:
        study: with at least one complete trial.
        path: of the picture.
        title: of the picture.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from parallel_rl.utils.plots import COLORS, save_figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    history, shares = figure.subplots(1, 2, width_ratios=[1.4, 1])
    ended = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    pruned = [trial for trial in study.trials if trial.state.name == "PRUNED" and trial.intermediate_values]
    numbers, values = [trial.number + 1 for trial in ended], [_value(trial) for trial in ended]
    best = np.maximum.accumulate(values)
    total = 1 + max(trial.number for trial in study.trials if trial.state.is_finished())
    last = [trial.intermediate_values[trial.last_step] for trial in pruned if trial.last_step is not None]
    if pruned:
        history.plot(
            [trial.number + 1 for trial in pruned], last, "x", color="0.6", label="pruned, its last evaluation"
        )
    history.plot(numbers, values, "o", color=COLORS[0], label="complete")
    history.step([*numbers, total], [*best, best[-1]], where="post", color=COLORS[1], label="best so far")
    history.set(title=title, xlabel="trial", ylabel="mean return, deterministic", xlim=(0.5, total + 0.5))
    history.xaxis.set_major_locator(MaxNLocator(integer=True))
    importances = _importances(study)
    shares.barh([*importances][::-1], [*importances.values()][::-1], color=COLORS[0])
    shares.set(title="importance of each setting", xlabel="share (PED-ANOVA)" if importances else "too few trials")
    for axes in (history, shares):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    save_figure(figure, path)


def _importances(study: "Study") -> dict[str, float]:
    """Return the importance of each setting for good trials, as fractions (Watanabe et al. 2023, arXiv:2304.10255)."""
    import optuna

    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few trials
        try:
            return optuna.importance.get_param_importances(study, evaluator=evaluator)
        except (ValueError, RuntimeError):  # too few
            return {}


def _value(trial: "FrozenTrial") -> float:
    assert trial.value is not None
    return trial.value


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
