"""`train --seeds`: independent runs with different seeds, in parallel."""

import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np

from AsyncPPO.backends.choice import available_cores
from AsyncPPO.callbacks import METRICS_FILE, read_table
from AsyncPPO.workers import choose_start_method
from AsyncPPO.workers.contexts import context_of
from AsyncPPO.workers.processes import free, kill, start_child
from parallel_rl.commands.output import say
from parallel_rl.commands.run_directory import (
    CONFIG_FILE,
    CURVES_FILE,
    SUMMARY_FILE,
    config_of,
    steps_saved,
    write_json,
)
from parallel_rl.commands.stopping import last_line, passed_on, run_in_child
from parallel_rl.config import TrainConfig
from parallel_rl.utils import bootstrap_interval, interquartile_mean, read_json

LOG_FILE, PREFIX = "log.txt", "seed_"
MOST_SEEDS = 1000
STOPPED = -1
"""In place of a seed: the exit code of a command that a signal stopped."""
Train = Callable[[TrainConfig], int]


def seeds_in(text: str) -> list[int]:
    """Return the seeds in the value of `--seeds`: `0..4` (both included), or `0,3,7`.

    Raises:
        ValueError: it has neither form, names a seed twice, or names too many.
    """
    span = re.fullmatch(r"(\d+)\.\.(\d+)", text)
    if span is None and not re.fullmatch(r"\d+(,\d+)*", text):
        raise ValueError(f"--seeds must be a range such as 0..4, or a list such as 0,3,7, not {text!r}")
    if span is None:
        seeds = [int(number) for number in text.split(",")]
    else:
        first, last = int(span[1]), int(span[2])
        if last < first:
            raise ValueError(f"--seeds must begin with the smaller number, not {text!r}")
        seeds = [*range(first, min(last, first + MOST_SEEDS) + 1)]
    if not 0 < len({*seeds}) == len(seeds) <= MOST_SEEDS:
        raise ValueError(f"--seeds must name up to {MOST_SEEDS} different seeds, not {text!r}")
    return seeds


def train_seeds(config: TrainConfig, seeds: Sequence[int], train: Train) -> int:
    """Train once with each seed, in as many processes at once as there are cores; compare the results.

    Runs that are complete in the directory are compared, too, and not repeated.

    Args:
        config: of all runs, except for the seed. Its directory gets `seed_N` for each run, a picture and a summary.
        seeds: one for each run.
        train: trains with one config, or continues a run that was stopped, and returns an exit code.

    Returns:
        The exit code: that of the first run that failed, or 0.

    Raises:
        ValueError: a run in the directory has other settings.
    """
    directory = config.run_dir
    complete = [seed for seed in seeds_begun(directory) if _score(run_of(directory, seed)) is not None]
    configs = {
        seed: config.changed({"seed": seed, "run_dir": str(run_of(directory, seed))})
        for seed in sorted({*complete, *seeds})
    }
    for one in configs.values():
        _check_same(one)
    directory.mkdir(parents=True, exist_ok=True)
    due = [seed for seed in seeds if seed not in complete]
    say(f"seeds     {', '.join(map(str, seeds))}: {min(available_cores(), len(seeds))} at a time, in {directory}")
    for seed in complete:
        _report(seed, 0, run_of(directory, seed))
    started = time.monotonic()
    codes = _run_all({seed: configs[seed] for seed in due}, train)
    scores = {seed: _score(one.run_dir) for seed, one in configs.items() if not codes.get(seed)}
    finished = {seed: score for seed, score in scores.items() if score is not None}
    _compare(config, finished, time.monotonic() - started)
    _picture(config, configs)
    if STOPPED in codes:
        say(f"stopped   the same command with --run-dir {directory} continues")
    return next((code for code in codes.values() if code), 0)


def run_of(directory: Path, seed: int) -> Path:
    """Return the directory of the run with a seed."""
    return directory / f"{PREFIX}{seed}"


def seeds_begun(directory: Path) -> list[int]:
    """Return the seeds of the runs in a directory."""
    names = (path.name.removeprefix(PREFIX) for path in directory.glob(f"{PREFIX}*"))
    return sorted(int(name) for name in names if name.isdecimal())


def _check_same(config: TrainConfig) -> None:
    """Check that a run that exists has the settings of this config."""
    run_dir = config.run_dir
    if not (run_dir / CONFIG_FILE).is_file():
        return
    own, other = ({"agent": each.agent} | each.flat() for each in (config, config_of(run_dir)))
    differ = [name for name in own if name != "run_dir" and own[name] != other.get(name)]
    if differ:
        raise ValueError(f"{run_dir} has other values of {', '.join(differ)}: choose another --run-dir")


def _run_all(configs: dict[int, TrainConfig], train: Train) -> dict[int, int]:
    """Run all, some at a time, and return their exit codes. A signal is passed on, and then no further run begins."""
    context = context_of(choose_start_method("auto")[0])
    waiting, running, codes = [*configs], dict[int, Any](), dict[int, int]()
    with passed_on(lambda: [*running.values()]) as signals:
        try:
            while running or (waiting and not signals):
                while waiting and not signals and len(running) < available_cores():
                    seed = waiting.pop(0)
                    running[seed] = start_child(context, f"seed {seed}", _train_one, configs[seed], train)
                wait([process.sentinel for process in running.values()], 1.0)
                for seed in [seed for seed, process in running.items() if not process.is_alive()]:
                    process = running.pop(seed)
                    codes[seed] = process.exitcode
                    free(process)
                    _report(seed, codes[seed], configs[seed].run_dir)
        finally:
            for process in running.values():
                kill(process)
                free(process)
    return codes | ({STOPPED: 128 + signals[0]} if signals else {})


def _train_one(config: TrainConfig, train: Train) -> None:
    """Train in this child process, and write its output to a file."""
    config.run_dir.mkdir(parents=True, exist_ok=True)
    run_in_child(partial(train, config), config.run_dir / LOG_FILE)


def _report(seed: int, code: int, directory: Path) -> None:
    score = _score(directory)
    if code > 128:
        say(f"seed {seed:<4} stopped  {directory}")
    elif code or score is None:
        say(f"seed {seed:<4} ended with exit code {code}: {last_line(directory / LOG_FILE) or 'no output'}")
    else:
        say(f"seed {seed:<4} mean {score:.2f}  {directory}")


def _score(directory: Path) -> float | None:
    """Return the mean return of the evaluation at the end of a run, if it had one."""
    try:
        return read_json(directory / SUMMARY_FILE)["evaluation"]["mean"]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _compare(config: TrainConfig, scores: dict[int, float], seconds: float) -> None:
    """Print and write the interquartile mean of the scores, with its confidence interval."""
    if not scores:
        return
    values = np.array([*scores.values()])
    interval = [*bootstrap_interval(values)] if len(values) > 1 else None  # one seed tells nothing of the others
    write_json(
        config.run_dir / SUMMARY_FILE,
        {
            "env_id": config.run.env_id, "agent": config.agent, "seconds": seconds, "scores": scores,
            "interquartile_mean": float(interquartile_mean(values)), "interval": interval,
        },
    )  # fmt: skip
    say(f"result    {over_seeds(values)}")


def over_seeds(values: np.ndarray) -> str:
    """Return, in words, the middle and the spread of the scores `(n,)` of n seeds."""
    if len(values) == 1:
        return f"mean {values[0]:.2f} over 1 seed"
    low, high = bootstrap_interval(values)
    return (
        f"interquartile mean {interquartile_mean(values):.2f}, 95% interval {low:.2f} to {high:.2f}; median "
        f"{np.median(values):.2f}, min {values.min():.2f}, max {values.max():.2f} over {len(values)} seeds"
    )


def _picture(config: TrainConfig, configs: dict[int, TrainConfig]) -> None:
    from parallel_rl.utils.plots import Run, plot_runs

    runs = []
    for one in configs.values():
        history = read_table(one.run_dir / METRICS_FILE)
        if any(np.isfinite(row["mean_return"]) for row in history):
            runs.append(Run.of(str(one.run_dir), history, steps_saved(one.run_dir), one.run.steps))
    if runs:
        picture = config.run_dir / CURVES_FILE
        plot_runs({config.run.env_id: {config.agent: runs}}, picture, quartiles=True)
        say(f"curves    {picture}")
