"""Time every contestant, from the start of its process, then write the table and the figure."""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from tqdm import tqdm

from benchmarks.solve.contestants import CONTESTANTS, TASKS

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PICTURE = HERE / "time_to_solve.png"
COLORS = {"ours": "C3", "SBX": "C0", "Stable-Baselines3": "C7"}

Result = dict[str, Any]
"""`solved`: seconds, or None; `curve`: rows of seconds, steps and mean return."""


def result_file(contestant: str, task: str, seed: int) -> Path:
    """Return the path of the result of a run."""
    return RESULTS / f"{contestant}_{task.replace(' ', '_')}_{seed}.json"


def run(contestant: str, task: str, seed: int, python: str) -> Result:
    """Run a process that trains until the task is solved; note the time of every point of its curve."""
    command = [python, "-m", "benchmarks.solve.contestants", "--contestant", contestant, "--task", task]
    start, curve = time.perf_counter(), []
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(
            [*command, "--seed", str(seed)], stdout=subprocess.PIPE, stderr=complaints, text=True
        ) as process,
    ):
        assert process.stdout is not None
        episodes, mean = 0, float("nan")
        for line in process.stdout:
            seconds, point = time.perf_counter() - start, json.loads(line)
            episodes, mean = point["episodes"], point["mean_return"]
            if episodes:
                curve.append([round(seconds, 3), point["steps"], mean])
        if process.wait():
            complaints.seek(0)
            raise RuntimeError(f"{' '.join(command)} exited with {process.returncode}:\n{complaints.read()}")
    return {"solved": curve[-1][0] if TASKS[task].is_solved(episodes, mean) else None, "curve": curve}


def table(results: dict[tuple[str, str], list[Result]]) -> str:
    """Return the medians, and the ratios to the first contestant's."""
    lines = [f"| task | {' | '.join(CONTESTANTS)} |", f"|{' --- |' * (len(CONTESTANTS) + 1)}"]
    for name, task in TASKS.items():
        cells, best = [], 0.0
        for contestant in CONTESTANTS:
            runs = results.get((contestant, name), [])
            seconds = [result["solved"] or np.inf for result in runs]
            solved = int(np.isfinite(seconds).sum())
            median = float(np.median(seconds)) if runs else np.nan
            best = best or median
            time_text = f"{median:.1f} s" if np.isfinite(median) else "not solved"
            ratio = f", {median / best:.1f} times as long" if np.isfinite(median) and contestant != "ours" else ""
            cells.append(f"{time_text} ({solved} of {len(runs)}{ratio})" if runs else "")
        lines.append(f"| {name}, {task.threshold:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(results: dict[tuple[str, str], list[Result]]) -> None:
    """Draw return against seconds of PPO: a line for each run, a dot where it solved the task."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    tasks = {name: task for name, task in TASKS.items() if task.agent == "ppo"}
    figure, axes = pyplot.subplots(1, len(tasks), figsize=(4 * len(tasks), 3.6), layout="constrained")
    for axis, (name, task) in zip(axes, tasks.items(), strict=True):
        axis.axhline(task.threshold, color="0.8", linestyle="--", linewidth=1)
        for contestant in reversed(CONTESTANTS):
            for index, result in enumerate(results.get((contestant, name), [])):
                seconds, _, returns = np.array(result["curve"]).T
                label = contestant if index == 0 else None
                axis.plot(seconds, returns, color=COLORS[contestant], linewidth=1, alpha=0.8, label=label)
                if result["solved"]:
                    axis.plot(seconds[-1], returns[-1], "o", color=COLORS[contestant], markersize=4)
        axis.set(title=name, xlabel="seconds since the shell started it", xscale="log")
        axis.set_xticks([1, 3, 10, 30, 100, 300], ["1", "3", "10", "30", "100", "300"])
        axis.minorticks_off()
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("mean return of the last 100 episodes")
    handles, labels = axes[0].get_legend_handles_labels()
    axes[0].legend(handles[::-1], labels[::-1], frameon=False)
    figure.savefig(PICTURE, dpi=110)


def main(
    contestants: Sequence[str] = tuple(CONTESTANTS),
    tasks: Sequence[str] = tuple(TASKS),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    python: str = sys.executable,
) -> None:
    """Train what is missing, one run at a time, on an idle machine; write `README.md` and the figure next to this file.

    Runs with a file in `results/` are not repeated: delete the file to measure again.

    Args:
        contestants: the contestants to run.
        tasks: the tasks to run.
        seeds: the seeds of each.
        python: an interpreter with the other libraries (`pip install stable-baselines3 sbx-rl`).
    """
    RESULTS.mkdir(exist_ok=True)
    runs = [(contestant, task, seed) for seed in seeds for task in tasks for contestant in contestants]
    for contestant, task, seed in tqdm([some for some in runs if not result_file(*some).exists()], unit="run"):
        result_file(contestant, task, seed).write_text(json.dumps(run(contestant, task, seed, python)))
    results: dict[tuple[str, str], list[Result]] = {}
    for contestant in CONTESTANTS:
        for task in TASKS:
            files = [result_file(contestant, task, seed) for seed in seeds]
            found = [json.loads(file.read_text()) for file in files if file.exists()]
            if found:
                results[contestant, task] = found
    page = f"""# Time to solve a task

Made by `python -m benchmarks.solve` on a quiet machine: {os.cpu_count()} cores ({platform.machine()}), no GPU, Python
{platform.python_version()}. The time is from the start of the process until the mean return of the last 100
training episodes (with SAC 20) reaches the threshold. The table has medians over the seeds, and in parentheses how
many of them solved the task. The agent is PPO where the task names none; SAC learns FetchReach with hindsight. Ours
has the presets of `main.py`, the others have the hyperparameters of RL-Zoo. None of them renders.
Finished runs are kept, so contestants may have been measured at different times, on machines of the same kind.

{table(results)}

![return against seconds](time_to_solve.png)
"""
    (HERE / "README.md").write_text(page)
    plot(results)
    print(page)


if __name__ == "__main__":
    tyro.cli(main)
