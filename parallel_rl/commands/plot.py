"""The command `plot`."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from math import isnan, nan
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import tyro

from AsyncPPO.callbacks import METRICS_FILE, read_table
from parallel_rl.commands.run_directory import CURVES_FILE, config_of, runs_in, steps_saved, values_over_time
from parallel_rl.config import TrainConfig
from parallel_rl.utils import Metrics, settings_in

TASK = ("env_kwargs", "wrapper", "action_masks")
"""Settings of a run that define its task, besides the environment."""
EXPERIMENT = (*TASK, "num_envs", "mode", "lag", "load_weights", "copies", "callback")
"""Settings of a run that define an experiment: neither the seed, nor those about speed and faults."""
OF_COPIES = ("combine", "combine_every")
"""Further ones of a run with copies."""
UNNAMED = {"copies": 1, "load_weights": None, "lag": 0, "callback": ()}
"""The usual values of settings that are named only where a run has others."""

Experiment = dict[str, list[Any]]
"""The settings that define an experiment, each with its values over time."""
MISSING = {"mean_return": "no episode has ended", "success_rate": "no episode has reported is_success"}
"""Why a run may lack a metric; otherwise its agent or its settings do not give it."""


class Recorded(NamedTuple):
    """What the directory of a run holds."""

    run_dir: Path
    config: TrainConfig
    history: list[Metrics]
    experiment: Experiment

    @classmethod
    def of(cls, run_dir: Path, config: TrainConfig) -> Self:
        """Read the directory of a run with this config."""
        return cls(run_dir, config, read_table(run_dir / METRICS_FILE), _experiment(config, values_over_time(run_dir)))

    @property
    def task(self) -> str:
        """The id of its environment."""
        return self.config.run.env_id


def plot(
    run_dirs: tyro.conf.Positional[tuple[Path, ...]],
    out: Path | None = None,
    labels: tuple[str, ...] = (),
    x: Literal["steps", "seconds"] = "steps",
    y: str = "mean_return",
) -> int:
    """Plot the learning curves of runs, a panel for each task; runs that differ only in the seed share a curve.

    Args:
        run_dirs: directories of training runs; any other directory stands for the runs in it.
        out: the image, .png, .svg or .pdf; by default learning_curves.png, for a single run in its directory.
        labels: names of the curves: one for each curve, or one for each run (runs with the same label share a curve).
            By default the settings in which the curves differ.
        x: the horizontal axis.
        y: the vertical axis: a column of metrics.csv, such as success_rate, entropy or critic_loss.
    """
    from parallel_rl.utils.plots import FORMATS, Run, ended_early, plot_runs

    if out is not None and out.suffix not in FORMATS:
        raise ValueError(f"out must end in {', '.join(FORMATS)}, not {out.name!r}")
    runs = [Recorded.of(run_dir, config) for run_dir, config in _configs_in(run_dirs).items()]
    is_single = len(runs) == 1 and run_dirs == (runs[0].run_dir,)
    out = out or (run_dirs[0] if is_single else Path()) / CURVES_FILE
    known = dict.fromkeys(name for run in runs for row in run.history[-1:] for name in row)
    if y not in {*known, *MISSING}:
        raise ValueError(f"no run has the metric {y!r}; there are {', '.join(known) or 'none yet'}")
    missing = MISSING.get(y, f"there is no {y}") if known else "there is no row of metrics"
    panels: dict[str, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run, label in zip(runs, _labels(runs, labels), strict=True):
        if all(isnan(row.get(y, nan)) for row in run.history):
            print(f"left out  {run.run_dir}: {missing if run.history else 'there is no row of metrics'} in it")
        else:
            curve = Run.of(str(run.run_dir), run.history, steps_saved(run.run_dir), run.config.run.steps)
            panels[run.task][label].append(curve)
    if not panels:
        raise ValueError(f"{missing} yet in any of the runs")
    _note_repeated(runs)
    for number, (curve, goal) in enumerate(ended_early(panels), 1):
        print(f"({number})       {curve.name} ends at {curve.history[-1]['steps']:,.0f} of {goal:,} steps")
    out.parent.mkdir(parents=True, exist_ok=True)
    plot_runs(panels, out, x, y)
    print(f"curves    {out}")
    return 0


def _configs_in(directories: Sequence[Path]) -> dict[Path, TrainConfig]:
    """Return the configs of runs, by their directory; what is not a run in a directory of runs is left out and named.

    Raises:
        FileNotFoundError: a directory holds no run.
        ValueError: the config of a run is not valid.
    """
    configs = dict[Path, TrainConfig]()
    for directory in directories:
        for run_dir in runs_in(directory) or [directory]:
            try:
                configs.setdefault(run_dir, config_of(run_dir))
            except ValueError as error:
                if run_dir == directory:
                    raise
                print(f"left out  {error}")
    if not configs:
        raise ValueError("no run to plot")
    return configs


def _note_repeated(runs: Sequence[Recorded]) -> None:
    """Print which runs have the same settings and seed, so that they may be copies and not independent."""
    seen = Counter((run.task, run.config.run.seed, str(run.experiment)) for run in runs)
    for (task, seed, _), count in seen.items():
        if count > 1:
            print(f"repeated  {count} runs on {task} have the same settings and seed {seed}, and each counts")


def _labels(runs: Sequence[Recorded], given: Sequence[str]) -> list[str]:
    """Return the label of each run, from the labels of the command line if there are any.

    Raises:
        ValueError: there are neither as many labels as runs nor as many as curves.
    """
    own = [(run.task, _difference(run, runs)) for run in runs]
    curves = [*dict.fromkeys(own)]
    if not given:
        return [label for _, label in own]
    if len(given) == len(runs):
        return [*given]
    if len(given) == len(curves):
        return [given[curves.index(curve)] for curve in own]
    raise ValueError(f"--labels takes one for each of the {len(curves)} curves, or of the {len(runs)} runs")


def _experiment(config: TrainConfig, changes: dict[str, list[Any]]) -> Experiment:
    """Return the settings that define a run's experiment, each with its values over time."""
    about, current = settings_in(type(config.settings)), config.flat()
    settings = [name for name in vars(config.settings) if not about[name].incidental]
    anneals = any(current[name] for name in settings if name.startswith("anneal_"))  # then the length matters
    names = [*EXPERIMENT, *(OF_COPIES if config.run.copies > 1 else ()), *(["steps"] if anneals else []), *settings]
    return {"agent": [config.agent]} | {name: changes.get(name, [current[name]]) for name in names}


def _difference(run: Recorded, runs: Sequence[Recorded]) -> str:
    """Return, as text, how a run differs from others on the same task; the name of its agent if in nothing.

    Runs of other agents have other settings, so besides the task only the names of the agents differ.
    """
    others = [other.experiment for other in runs if other.task == run.task]
    agent = run.experiment["agent"]
    same = [other for other in others if other["agent"] == agent]
    differ = [
        name
        for name, values in run.experiment.items()
        if any(other.get(name, values) != values for other in (others if name in ("agent", *TASK) else same))
    ]
    texts = [_text_of(name, run.experiment[name]) for name in differ]
    return ", ".join(text for text in texts if text) or str(agent[0])


def _text_of(name: str, values: list[Any]) -> str:
    """Return the values over time of a setting as text; none for a value in `UNNAMED`."""
    if name == "agent":
        return str(values[0])
    if name in UNNAMED and values == [UNNAMED[name]]:
        return ""
    text = " then ".join(map(_text, values))
    return f"{name}={text}" if text else f"no {name}"


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        numbers = all(isinstance(part, int) for part in value)
        return "x".join(map(str, value)) if numbers else f"({' '.join(map(str, value))})"
    return f"{value:g}" if isinstance(value, float) else str(value)
