"""Train, and go on with a run."""

import math
import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro

from AsyncPPO.callbacks import (
    CHECKPOINT_DIRECTORY,
    Callback,
    Checkpoints,
    CSVLog,
    Evaluation,
    StopAfter,
    StopAtReturn,
    TensorBoard,
    checkpoints_in,
)
from parallel_rl.commands.output import say
from parallel_rl.commands.program import NAME, PROGRAM
from parallel_rl.commands.run import (
    BEST_DIRECTORY,
    CONFIG_FILE,
    CURVE_FILE,
    SUMMARY_FILE,
    choose_run_dir,
    config_of,
    env_of,
    factory_of,
    fresh_agent,
    load_latest,
    load_newest,
    locked,
    note_start,
    write_json,
)
from parallel_rl.commands.stopping import stopped_by_signals
from parallel_rl.commands.trust import check_trust, trust_flag
from parallel_rl.config import CommandLine, TrainConfig
from parallel_rl.presets import preset
from parallel_rl.utils import Setting, fault_of, remove_unfinished

if TYPE_CHECKING:
    from AsyncPPO import AsyncPPO, AsyncTrainer

EVALUATION_SEED, FINAL_SEED = 2_000_000, 1_000_000
"""Added to the seed for the evaluations beside the training, and for that at its end: other episodes than those of the
training, and at the end others than those by which the best was chosen."""
REPEATABLE = ("--env-kwargs", "--wrapper", "--info-keys")
"""Flags that may be there several times, with one value or more."""
POSITIVE = ("eval_episodes", "eval_envs", "checkpoint_seconds", "keep_checkpoints", "max_seconds")


def train(arguments: Sequence[str]) -> int:
    """Train, save, evaluate and report."""
    config = parse(arguments)
    run_dir = choose_run_dir(config)
    with make_trainer(config) as trainer:
        if config.load_weights:
            load_latest(trainer.ppo, Path(config.load_weights))
        with locked(run_dir):
            return _run(config, trainer, run_dir)


def resume(
    run_dir: tyro.conf.Positional[Path],
    steps: int | None = None,
    num_envs: int | None = None,
    trust_env_module: bool = False,
) -> int:
    """Go on with a run from its newest checkpoint, as if it had never stopped.

    Args:
        run_dir: what a training run saved.
        steps: how many to take from there; by default those that were missing.
        num_envs: how many parallel environments from now on; another number begins new episodes.
        trust_env_module: import the module that the run's environment is in.
    """
    config = config_of(run_dir)
    check_trust(config, run_dir / CONFIG_FILE, trust_env_module)
    changed: dict[str, Any] = {} if num_envs in (None, config.num_envs) else {"num_envs": num_envs}
    config = replace(config, **changed)
    if steps is not None and steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    with make_trainer(config) as trainer, locked(run_dir):
        checkpoints = checkpoints_in(run_dir / CHECKPOINT_DIRECTORY)
        if not checkpoints:
            raise FileNotFoundError(f"{run_dir} has no checkpoint to go on from: it ended before the first; train anew")
        load_newest(partial(trainer.load_checkpoint, any_num_envs=True), checkpoints)
        done = trainer.steps_done
        if steps is not None:
            trainer.goal = done, done + steps
        elif done >= trainer.goal[1]:
            raise ValueError(f"{run_dir} has come to its end after {done:,} steps: say how many more with --steps")
        say(f"resumed   {run_dir} after {done:,} steps")
        return _run(config, trainer, run_dir, changed)


def parse(arguments: Sequence[str]) -> TrainConfig:
    """Return the configuration of a command line: the defaults, the environment's preset, then the flags.

    With the weights of a run, that run's configuration takes the place of the first two, but for its seed: what comes
    is not to be what was.

    Raises:
        ValueError: a bad configuration, or one that names a module that is not to be imported.
    """
    arguments = _gathered(arguments)
    without_help = [argument for argument in arguments if argument not in {"-h", "--help"}]
    asked, _ = tyro.cli(CommandLine, prog=NAME, args=without_help, return_unknown_args=True)
    settings = {"env_id": asked.env_id} | preset(asked.env_id, asked.use_rnd)
    record = Path(asked.load_weights or ".") / CONFIG_FILE
    from_record = asked.load_weights is not None and record.is_file()
    if from_record:
        before = config_of(record.parent)
        settings = vars(before) | {"run_dir": None, "seed": before.seed + 1}
    config = tyro.cli(CommandLine, prog=NAME, args=arguments, default=CommandLine(**settings)).config()
    if from_record:
        check_trust(config, record, asked.trust_env_module, typed=asked)
    return config


def _gathered(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with all values of a flag of `REPEATABLE` together: tyro takes those of the last alone."""
    values: dict[str, list[str]] = {}
    rest: list[str] = []
    into = rest
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        flag = flag.replace("_", "-")
        if flag in REPEATABLE:
            into = values.setdefault(flag, [])
            into += [value] if equals else []
            continue
        if argument.startswith("-"):
            into = rest
        into.append(argument)
    return rest + [word for flag, given in values.items() for word in (flag, *given)]


def make_trainer(config: TrainConfig) -> "AsyncPPO":
    """Make the environments and the agent of a run.

    Raises:
        ValueError: a setting out of its range; the message names it.
    """
    from AsyncPPO import AsyncPPO

    checked = [(name, Setting("", above=0)) for name in POSITIVE] + [("eval_every", Setting("", least=0))]
    faults = [fault_of(name, getattr(config, name), about, float | None) for name, about in checked]
    if any(faults):
        raise ValueError("; ".join(filter(None, faults)))
    if config.target_return is not None and not math.isfinite(config.target_return):
        raise ValueError(f"target_return must be finite, not {config.target_return}")
    ppo = fresh_agent(config)
    return AsyncPPO(env_of(config, training=True), ppo, config.num_envs, config.steps, **config.loop())


def _run(config: TrainConfig, trainer: "AsyncPPO", run_dir: Path, changed: dict[str, Any] | None = None) -> int:
    """Run a trainer to its end, save, evaluate and report; return the exit code.

    Args:
        config: of the run.
        trainer: of it.
        run_dir: its directory.
        changed: settings that are others than before, in a run that goes on.
    """
    for directory in (run_dir, run_dir / BEST_DIRECTORY):
        remove_unfinished(directory)
    started = time.perf_counter() - trainer.seconds
    trainer.callbacks += [*_callbacks(config, run_dir), Note(config, run_dir, changed)]
    signals = _train(config, trainer, run_dir)
    if signals:
        return 128 + signals[0]
    trainer.close()  # the evaluation has environments of its own
    evaluation = _evaluate(config, trainer)
    summary = _summary(config, trainer) | {
        "evaluation": evaluation.figures(),
        "total_seconds": time.perf_counter() - started,
    }
    write_json(run_dir / SUMMARY_FILE, summary)
    say(
        f"result    mean {evaluation.mean:.2f}, min {evaluation.min:.2f}, max {evaluation.max:.2f} "
        f"over {evaluation.episodes} deterministic episodes{evaluation.in_words}\n"
        f"watch     {PROGRAM} watch {shlex.quote(str(run_dir))}{trust_flag(config)}"
    )
    if not trainer.stopped:
        say(f"continue  {_how_to_go_on(config, run_dir)} --steps {config.steps}")
    return 0


def _train(config: TrainConfig, trainer: "AsyncPPO", run_dir: Path) -> list[int]:
    """Run a trainer to its end and save what came of it, however it ended; return the signals that came."""
    before = trainer.steps_done
    say(
        f"{config.env_id}: {config.num_envs} copies, {trainer.env.backend} backend: {trainer.env.backend_reason}\n"
        f"acting    {trainer.acting_reason}"
    )

    def save() -> None:
        if not before or trainer.steps_done > before:  # what went on in vain leaves everything as it was
            _save(config, trainer, run_dir)

    try:
        with stopped_by_signals(trainer) as signals:
            trainer.run()
    except BaseException:
        try:
            save()
        except OSError as error:  # the disk is full, say; what is to be told is what came first
            say(f"not saved {error}")
        raise
    save()
    return signals


def _save(config: TrainConfig, trainer: "AsyncPPO", run_dir: Path) -> None:
    if trainer.stopped or trainer.error:
        why = trainer.stopped or "by an error"
        say(f"stopped   {why}, after {trainer.steps_done:,} steps; to go on: {_how_to_go_on(config, run_dir)}")
    trainer.ppo.save_weights(run_dir)
    write_json(run_dir / SUMMARY_FILE, _summary(config, trainer))
    _plot(config, trainer, run_dir)
    say(f"saved     {run_dir} (weights, checkpoints, metrics)\ncurve     {run_dir / CURVE_FILE}")


def _evaluate(config: TrainConfig, trainer: "AsyncPPO") -> Evaluation:
    from AsyncPPO import evaluate_episodes

    seed = config.seed + FINAL_SEED
    settings: dict[str, Any] = {"seed": seed, "progress": True} | config.evaluating()
    episodes = evaluate_episodes(trainer.ppo, env_of(config), config.eval_episodes, **settings)
    return Evaluation.of(trainer.steps_done, episodes)


def _callbacks(config: TrainConfig, run_dir: Path) -> list[Callback]:
    """Return what keeps a run's files up to date, and what ends it."""
    from AsyncPPO.evaluation import BackgroundEvaluation

    callbacks: list[Callback] = [
        CSVLog(run_dir),
        TensorBoard(run_dir),
        Checkpoints(run_dir / CHECKPOINT_DIRECTORY, config.checkpoint_seconds, config.keep_checkpoints),
    ]
    every = max(config.steps // 10, 1) if config.eval_every is None else config.eval_every
    if every:
        seed, best = config.seed + EVALUATION_SEED, run_dir / BEST_DIRECTORY
        callbacks.append(
            BackgroundEvaluation(
                factory_of(config),
                every,
                num_envs=config.eval_envs or config.num_envs,
                seed=seed,
                info_keys=config.info_keys,
                keep_best=best,
                on_env_error=config.on_env_error,
                step_timeout=config.step_timeout,
                start_method=config.start_method,
                close_timeout=config.close_timeout,
            )
        )
    if config.max_seconds is not None:
        callbacks.append(StopAfter(config.max_seconds))
    if config.target_return is not None:
        callbacks.append(StopAtReturn(config.target_return))
    return callbacks


class Note(Callback):
    """Notes in `config.json` that a run begins or goes on, once all else is ready."""

    def __init__(self, config: TrainConfig, run_dir: Path, changed: dict[str, Any] | None = None) -> None:
        """Keep what is noted, and where; of a run that goes on the settings that were changed."""
        self.config, self.run_dir, self.changed = config, run_dir, changed or {}

    def on_start(self, trainer: "AsyncTrainer") -> None:
        """Write."""
        note_start(self.run_dir, self.config, resumed=trainer.steps_done > 0, changed=self.changed)


def _summary(config: TrainConfig, trainer: "AsyncPPO") -> dict[str, Any]:
    """Return what `summary.json` holds, before the evaluation."""
    threshold = trainer.env.spec.reward_threshold if trainer.env.spec else None
    full = [row for row in trainer.history if row["episodes"] >= 100]
    solved = [row for row in full if threshold is not None and row["mean_return"] >= threshold]
    best = max(trainer.evaluations, key=lambda evaluation: evaluation.mean, default=None)
    return {
        "env_id": config.env_id,
        "seed": config.seed,
        "backend": trainer.env.backend,
        "steps": trainer.steps_done,
        "seconds": trainer.seconds,
        "stopped": trainer.stopped,
        "episodes": trainer.episodes_done,
        "mean_return": trainer.mean_return if np.isfinite(trainer.mean_return) else None,
        "threshold": threshold,
        "solved": {"steps": solved[0]["steps"], "seconds": solved[0]["seconds"]} if solved else None,
        "best": best and best.figures(),
        "evaluation": None,
    }


def _plot(config: TrainConfig, trainer: "AsyncPPO", run_dir: Path) -> None:
    from parallel_rl.utils.plots import plot_learning_curve

    threshold = trainer.env.spec.reward_threshold if trainer.env.spec else None
    evaluations = [(evaluation.steps, evaluation.mean) for evaluation in trainer.evaluations]
    title = f"{config.env_id}, seed {config.seed}"
    plot_learning_curve(trainer.history, run_dir / CURVE_FILE, title, threshold, evaluations)


def _how_to_go_on(config: TrainConfig, run_dir: Path) -> str:
    """Return the command; a run that failed before its first checkpoint has only weights to go on with."""
    path = shlex.quote(str(run_dir)) + trust_flag(config)
    saved = checkpoints_in(run_dir / CHECKPOINT_DIRECTORY)
    return f"{PROGRAM} resume {path}" if saved else f"{PROGRAM} --load-weights {path}"
