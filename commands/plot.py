"""Draw the learning curves of several runs."""

from collections import defaultdict
from dataclasses import asdict
from math import isnan
from pathlib import Path
from typing import Any

import tyro

from AsyncPPO.callbacks import METRICS_FILE, read_table
from commands.run import config_of

NOT_A_DIFFERENCE = {"seed", "run_dir", "load_weights", "num_workers", "backend"}
"""Settings that make no other experiment."""


def plot(run_dirs: tyro.conf.Positional[tuple[Path, ...]], out: Path = Path("learning_curves.png")) -> int:
    """Draw the learning curves of runs in one picture; those that differ only by their seeds are one curve with a band.

    Args:
        run_dirs: what training runs saved.
        out: the picture, a PNG.
    """
    from utils.plots import Rows, plot_runs

    if not run_dirs:
        raise ValueError("no run to plot")
    settings, histories = [], []
    for run_dir in run_dirs:
        config = asdict(config_of(run_dir))
        settings.append({name: value for name, value in config.items() if name not in NOT_A_DIFFERENCE})
        histories.append(read_table(run_dir / METRICS_FILE))
        if all(isnan(row["mean_return"]) for row in histories[-1]):
            raise ValueError(f"in {run_dir} no episode has ended yet")
    groups: dict[str, list[Rows]] = defaultdict(list)
    for label, history in zip(_labels(settings), histories, strict=True):
        groups[label].append(history)
    tasks = sorted({config["env_id"] for config in settings})
    plot_runs(groups, out, ", ".join(tasks))
    print(f"curves    {out}")
    return 0


def _labels(settings: list[dict[str, Any]]) -> list[str]:
    """Name each run by what sets it apart from the others."""
    differ = [name for name in settings[0] if any(other[name] != settings[0][name] for other in settings)]
    return [", ".join(_said(name, config[name]) for name in differ) or config["env_id"] for config in settings]


def _said(name: str, value: Any) -> str:
    return str(value) if name == "env_id" else f"{name}={value}"
