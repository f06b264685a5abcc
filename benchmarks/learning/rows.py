"""The runs of the table, and their targets."""

import contextlib
import hashlib
import io
import json
import re
import runpy
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import tqdm as tqdm_module

from benchmarks.learning.published import DEMONSTRATIONS, OFF_POLICY, TASKS, Task
from benchmarks.pick_and_place import write_demonstrations

ROOT = Path(__file__).parents[2]
SNIPPETS = ROOT / "tests" / "seed_snippets"
RESULTS = Path(__file__).parent / "results"
RUNS = ROOT / "runs" / "learning"
"""Directories of unfinished runs."""

QUIET = ("--backend", "inline", "--eval-every", "0")
"""Flags with which a run takes one process."""

SHOWN = 2000
"""Characters of the output of a failed run."""

POINTS = 500
Result = dict[str, Any]
"""`score`, further figures, and `curve`: pairs of steps and mean return."""


@dataclass(frozen=True)
class Bar:
    """The target of a figure, and the number of seeds (of five) that must reach it."""

    figure: str
    at_least: float
    seeds: int = 5


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    run: Callable[[int], Result]
    """From a seed to a result."""
    bars: Sequence[Bar]
    """The targets; empty if figures are only reported."""
    threshold: float | None = None
    """A return to mark by a line in the picture."""
    seeds: int = 5
    """The number of seeds."""
    task: Task | None = None
    """The task in the published tables, if it is one."""


def command(*flags: str, seed: int) -> Result:
    """Run `main.py` with these flags, or continue an interrupted run; the score is its evaluation's mean."""
    from AsyncPPO.callbacks import CHECKPOINT_DIRECTORY, checkpoints_in
    from parallel_rl import main
    from parallel_rl.commands.run_directory import SUMMARY_FILE

    run_dir = RUNS / hashlib.sha256(json.dumps([flags, seed]).encode()).hexdigest()[:16]  # flags can be too long a name
    if checkpoints_in(run_dir / CHECKPOINT_DIRECTORY):
        arguments = ["resume", str(run_dir), "--trust-env-module"]
    else:
        shutil.rmtree(run_dir, ignore_errors=True)
        arguments = [*flags, "--seed", str(seed), *QUIET, "--run-dir", str(run_dir)]
    if (code := main.main(arguments)) != 0:
        raise RuntimeError(f"main.py {' '.join(arguments)} exited with {code}")
    summary = json.loads((run_dir / SUMMARY_FILE).read_text())
    table = np.genfromtxt(run_dir / "metrics.csv", delimiter=",", names=True)
    stochastic = _stochastic(run_dir, seed)
    shutil.rmtree(run_dir)
    return {
        "stochastic": stochastic,
        "score": summary["evaluation"]["mean"],
        "training": summary["mean_return"],
        "steps": summary["steps"],
        "seconds": summary["seconds"],
        "solved": summary["solved"],
        "curve": _thinned(np.column_stack([table["steps"], table["mean_return"]]).round(1)).tolist(),
        **({"success": 100 * summary["evaluation"]["success_rate"]} if "success_rate" in summary["evaluation"] else {}),
    }


def _thinned(curve: np.ndarray) -> np.ndarray:
    """Return a curve with at most 500 points, the last one among them; off-policy agents have one for each step."""
    return curve[:: -max(1, -(-len(curve) // POINTS))][::-1]


def _stochastic(run_dir: Path, seed: int) -> float:
    """Return the mean return of 20 episodes with a run's stochastic policy."""
    from AsyncPPO import evaluate
    from parallel_rl.commands.build import agent_of, factory_of
    from parallel_rl.commands.single_run import FINAL_SEED

    config, agent = agent_of(run_dir, trust_env_module=True)
    factory, seed = factory_of(config.run), seed + FINAL_SEED
    return float(evaluate(agent, factory, 20, deterministic=False, seed=seed, backend="inline").mean())


def quick_start(seed: int) -> Result:
    """Run the seed's quick start unchanged, except for its random seeds."""
    import AsyncPPO
    import PPO

    with (
        mock.patch.object(PPO.PPO, "save_weights"),
        mock.patch.object(PPO, "PPO", partial(PPO.PPO, seed=seed)),
        mock.patch.object(AsyncPPO, "AsyncPPO", partial(AsyncPPO.AsyncPPO, seed=seed, progress=False), create=True),
    ):
        run = runpy.run_path(str(SNIPPETS / "quick_start.py"), run_name="__main__")["async_ppo"]
    return {
        "score": AsyncPPO.evaluate(run.ppo, "CartPole-v1", 100, seed=seed + 1_000_000).mean(),
        "training": run.mean_return,
        "steps": run.steps_done,
        "seconds": run.seconds,
        "curve": [[row["steps"], round(row["mean_return"], 1)] for row in run.history],
    }


def custom_loop(seed: int) -> Result:
    """Run the seed's custom loop unchanged, except for random seeds; the score is its last ten iterations' mean."""
    import AsyncPPO
    import PPO

    curve: list[list[float]] = []

    class Recorder(tqdm_module.tqdm):
        def set_description(self, desc: str | None = None, refresh: bool | None = True) -> None:
            curve.append([float(self.n), float((desc or "").split()[-1])])

    with (
        mock.patch.object(PPO, "PPO", partial(PPO.PPO, seed=seed)),
        mock.patch.object(AsyncPPO, "EnvVectorizer", partial(AsyncPPO.EnvVectorizer, seed=seed)),
        mock.patch.object(tqdm_module, "tqdm", Recorder),
    ):
        runpy.run_path(str(SNIPPETS / "custom_loop.py"), run_name="__main__")["env"].close()
    return {"score": float(np.mean([value for _, value in curve[-10:]])), "iterations": len(curve), "curve": curve}


def _main(*flags: str) -> Callable[[int], Result]:
    return lambda seed: command(*flags, seed=seed)


def run_task(task: Task, seed: int) -> Result:
    """Run a task of the published tables; write its demonstrations first, if it has some."""
    if DEMONSTRATIONS in task.flags and not (file := Path(DEMONSTRATIONS)).exists():
        file.parent.mkdir(exist_ok=True)
        write_demonstrations(file)
    return command(*task.command_line, seed=seed)


ROWS = {
    row.name: row
    for row in (
        Row("main.py", _main(), [Bar("score", 475)], 475),
        Row("quick start", quick_start, [Bar("score", 475), Bar("training", 430, 4)], 475),
        Row("custom loop", custom_loop, [Bar("score", 300)], 475),
        Row("Pendulum-v1", _main("--env-id", "Pendulum-v1"), [Bar("score", -200)], -200),
        Row("Acrobot-v1", _main("--env-id", "Acrobot-v1"), [Bar("score", -100)], -100),
        Row("LunarLander-v3", _main("--env-id", "LunarLander-v3"), [Bar("score", 200)], 200),
        Row(
            "MountainCar-v0 --use-rnd", _main("--env-id", "MountainCar-v0", "--use-rnd"), [Bar("score", -130, 4)], -110
        ),
        Row("MountainCar-v0", _main("--env-id", "MountainCar-v0"), [], -110),
        *(
            Row(f"{task.name}, published", partial(run_task, task), [], task.bar, task.seeds, task)
            for task in TASKS + OFF_POLICY
        ),
    )
}


def result_file(row: str, seed: int) -> Path:
    """Return the path of the result of a run."""
    return RESULTS / f"{re.sub('[ ,/]+', '_', row)}_{seed}.json"


def run_one(row: str, seed: int) -> None:
    """Run one seed of a row, and save its result; its output is shown only if it fails."""
    with io.StringIO() as output, contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            result = ROWS[row].run(seed)
        except Exception as error:
            error.add_note(output.getvalue()[-SHOWN:])
            raise
    result_file(row, seed).write_text(json.dumps(result))
