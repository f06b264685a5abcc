"""Draw the learning curves of several runs."""

from collections import defaultdict
from dataclasses import asdict, fields
from math import isnan
from pathlib import Path
from typing import Any

import tyro

from AsyncPPO.callbacks import METRICS_FILE, read_table
from commands.run import config_of
from config import RunConfig, TrainConfig

EXPERIMENT = {"env_id", "env_kwargs", "wrapper", "action_masks", "num_envs", "steps", "mode", "load_weights"} | (
    {field.name for field in fields(TrainConfig)} - {field.name for field in fields(RunConfig)} - {"compile", "device"}
)
"""Settings in which runs of one experiment agree: not their seeds, nor what says how fast or how safely they go."""


def plot(run_dirs: tyro.conf.Positional[tuple[Path, ...]], out: Path = Path("learning_curves.png")) -> int:
    """Draw the learning curves of runs in one picture; those that differ only by their seeds are one curve with a band.

    Args:
        run_dirs: what training runs saved.
        out: the picture, a PNG.
    """
    from utils.plots import Rows, plot_runs

    if not run_dirs:
        raise ValueError("no run to plot")
    if out.suffix != ".png":
        raise ValueError(f"out must end in .png, not {out.name!r}")
    settings, histories = [], []
    for run_dir in dict.fromkeys(run_dirs):
        config = asdict(config_of(run_dir))
        settings.append({name: value for name, value in config.items() if name in EXPERIMENT})
        histories.append(read_table(run_dir / METRICS_FILE))
        if all(isnan(row["mean_return"]) for row in histories[-1]):
            raise ValueError(f"in {run_dir} no episode has ended yet")
    groups: dict[str, list[Rows]] = defaultdict(list)
    for label, history in zip(_labels(settings), histories, strict=True):
        groups[label].append(history)
    tasks = sorted({config["env_id"] for config in settings})
    out.parent.mkdir(parents=True, exist_ok=True)
    plot_runs(groups, out, ", ".join(tasks))
    print(f"curves    {out}")
    return 0


def _labels(settings: list[dict[str, Any]]) -> list[str]:
    """Name each run by what sets it apart from the others."""
    differ = [name for name in settings[0] if any(other[name] != settings[0][name] for other in settings)]
    return [", ".join(_said(name, config[name]) for name in differ) or config["env_id"] for config in settings]


def _said(name: str, value: Any) -> str:
    return str(value) if name == "env_id" else f"{name}={value}"
