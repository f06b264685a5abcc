"""The commands `train` and `resume`."""

import argparse
import shlex
import time
from collections.abc import Sequence
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
from parallel_rl.commands.build import env_of, factory_of, load_latest, make_trainer
from parallel_rl.commands.output import say
from parallel_rl.commands.program import NAME, PROGRAM
from parallel_rl.commands.run_directory import (
    BEST_DIRECTORY,
    CONFIG_FILE,
    CURVE_FILE,
    SUMMARY_FILE,
    changes_of,
    checked,
    choose_run_dir,
    config_of,
    load_newest,
    locked,
    note_start,
    write_json,
)
from parallel_rl.commands.stopping import stopped_by_signals
from parallel_rl.commands.trust import check_trust, named_values, trust_flag
from parallel_rl.config import DEFAULT_AGENT, TrainConfig, check_flags, command_line, setting_types, train_config
from parallel_rl.presets import preset
from parallel_rl.utils import remove_unfinished, settings_in

if TYPE_CHECKING:
    from AsyncPPO import AsyncTrainer

EVALUATION_SEED, FINAL_SEED = 2_000_000, 1_000_000
"""Added to the seed for the background evaluations, and for the final one: their episodes differ from those of the
training, and the final ones differ from those that selected the best weights."""
NO_SETTINGS = {"agent", "trust_env_module"}
"""Flags that are not settings."""
REPEATABLE = ("--env-kwargs", "--wrapper", "--info-keys")
"""Flags that may be repeated, with one or more values."""


def train(arguments: Sequence[str]) -> int:
    """Train, save, evaluate and report."""
    config = parse(arguments)
    run_dir = choose_run_dir(config)
    with make_trainer(config) as trainer:
        if config.run.load_weights:
            load_latest(trainer.agent, config.agent, Path(config.run.load_weights))
        with locked(run_dir):
            return _run(config, trainer, run_dir)


def resume(
    run_dir: tyro.conf.Positional[Path],
    steps: int | None = None,
    num_envs: int | None = None,
    override: tuple[str, ...] = (),
    trust_env_module: bool = False,
) -> int:
    """Continue a run from its newest checkpoint, as if it had never stopped.

    Args:
        run_dir: directory of a training run.
        steps: number of further environment steps; by default the remaining ones.
        num_envs: number of parallel environments from now on; another number starts new episodes.
        override: NAME=VALUE, new values for settings of the agent: --override lr=1e-4 entropy_coef=0.
        trust_env_module: import the module that the run's environment is in.
    """
    config = config_of(run_dir)
    check_trust(config.run, run_dir / CONFIG_FILE, trust_env_module)
    changed: dict[str, Any] = {} if num_envs in (None, config.run.num_envs) else {"num_envs": num_envs}
    changed |= _overrides(config, override)
    config = config.changed(changed)
    if steps is not None and steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    with make_trainer(config) as trainer, locked(run_dir):
        checkpoints = checkpoints_in(run_dir / CHECKPOINT_DIRECTORY)
        if not checkpoints:
            raise FileNotFoundError(
                f"{run_dir} has no checkpoint to resume from: it ended before the first; train again"
            )
        names = changed.keys() | changes_of(run_dir).keys()  # the checkpoint may be from before or after a change
        load_newest(partial(trainer.load_checkpoint, any_num_envs=True, changed=names), checkpoints)
        done = trainer.steps_done
        if steps is not None:
            trainer.goal = done, done + steps
        elif done >= trainer.goal[1]:
            raise ValueError(f"{run_dir} finished after {done:,} steps: pass the number of further steps with --steps")
        say(f"resumed   {run_dir} after {done:,} steps")
        return _run(config, trainer, run_dir, changed)


def _overrides(config: TrainConfig, arguments: Sequence[str]) -> dict[str, Any]:
    """Return the settings of a run's agent that change from now on.

    Raises:
        ValueError: one that is no setting of the agent, or that its weights depend on, or of another type.
    """
    about, types = settings_in(type(config.settings)), setting_types(config.agent)
    names = {name.lower(): name for name in about}
    values = {}
    for typed, value in named_values(arguments, "overrides").items():
        name = names.get(typed.lower(), typed)
        if name not in about:
            raise ValueError(f"{config.agent} has no setting {name!r} to override")
        if about[name].structure:
            raise ValueError(f"{name} cannot be overridden: the weights depend on it")
        values[name] = checked(name, value, types[name])
    return values


def parse(arguments: Sequence[str]) -> TrainConfig:
    """Return the config of a command line: the defaults, the environment's preset, then the flags.

    With the weights of a run, its config replaces defaults and preset; the seed is the next, to not repeat that run.

    Raises:
        ValueError: a bad config, one that names a module that is not trusted, or a flag of another agent.
    """
    arguments = _gathered(arguments)
    agent, before = _agent_in(arguments)
    flags: Any = command_line(agent)
    without_help = [argument for argument in arguments if argument not in {"-h", "--help"}]
    typed, unknown = tyro.cli(flags, prog=NAME, args=without_help, return_unknown_args=True)
    check_flags(agent, unknown)
    use_rnd = getattr(typed, "use_rnd", False) or "rnd" in getattr(typed, "companions", ())
    settings = preset(agent, typed.env_id, use_rnd) | {"env_id": typed.env_id}
    if before is not None:
        settings = before.flat() | {"run_dir": None, "seed": before.run.seed + 1}
    defaults = flags(**{name.lower(): value for name, value in settings.items()})
    values = vars(tyro.cli(flags, prog=NAME, args=arguments, default=defaults))
    config = train_config(agent, {name: value for name, value in values.items() if name not in NO_SETTINGS})
    if before is not None:
        check_trust(config.run, Path(typed.load_weights) / CONFIG_FILE, typed.trust_env_module, typed=typed)
    return config


def _agent_in(arguments: Sequence[str]) -> tuple[str, TrainConfig | None]:
    """Return the agent that a command line names, and the config of the run in `--load-weights`, if it is one.

    Raises:
        ValueError: the agent is unknown, or not that of the run.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--agent", default=None)
    parser.add_argument("--load-weights", "--load_weights", default=None)
    named, _ = parser.parse_known_args(arguments)
    if named.load_weights is None or not (Path(named.load_weights) / CONFIG_FILE).is_file():
        return named.agent or DEFAULT_AGENT, None
    before = config_of(Path(named.load_weights))
    if named.agent not in (None, before.agent):
        raise ValueError(f"the weights in {named.load_weights} are of the agent {before.agent!r}, not {named.agent!r}")
    return before.agent, before


def _gathered(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the values of repeated flags of `REPEATABLE` joined: tyro uses only the last flag."""
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


def _run(config: TrainConfig, trainer: "AsyncTrainer", run_dir: Path, changed: dict[str, Any] | None = None) -> int:
    """Run a trainer to its end, save, evaluate and report; return the exit code.

    Args:
        config: of the run.
        trainer: of the run.
        run_dir: of the run.
        changed: settings that change in a resumed run.
    """
    for directory in (run_dir, run_dir / BEST_DIRECTORY):
        remove_unfinished(directory)
    started = time.perf_counter() - trainer.seconds
    trainer.callbacks += [*_callbacks(config, run_dir), Note(config, run_dir, changed)]
    signals = _train(config, trainer, run_dir)
    if signals:
        return 128 + signals[0]
    trainer.close()  # the evaluation makes its own environments
    evaluation = _evaluate(config, trainer)
    summary = _summary(config, trainer) | {
        "evaluation": evaluation.figures(),
        "total_seconds": time.perf_counter() - started,
    }
    write_json(run_dir / SUMMARY_FILE, summary)
    say(
        f"result    mean {evaluation.mean:.2f}, min {evaluation.min:.2f}, max {evaluation.max:.2f} "
        f"over {evaluation.episodes} deterministic episodes{evaluation.in_words}\n"
        f"watch     {PROGRAM} watch {shlex.quote(str(run_dir))}{trust_flag(config.run)}"
    )
    if not trainer.stopped:
        say(f"continue  {_how_to_continue(config, run_dir)} --steps {config.run.steps}")
    return 0


def _train(config: TrainConfig, trainer: "AsyncTrainer", run_dir: Path) -> list[int]:
    """Run a trainer to its end and save the results, however it ended; return the signals that it received."""
    before = trainer.steps_done
    run, env = config.run, trainer.env
    say(
        f"{run.env_id}: {run.num_envs} environments, {env.backend} backend: {env.backend_reason}\n"
        f"acting    {trainer.acting_reason}"
    )

    def save() -> None:
        if not before or trainer.steps_done > before:  # a resumed run that took no step does not change its files
            _save(config, trainer, run_dir)

    try:
        with stopped_by_signals(trainer) as signals:
            trainer.run()
    except BaseException:
        try:
            save()
        except OSError as error:  # a full disk, say; the first error is the one to report
            say(f"not saved {error}")
        raise
    save()
    return signals


def _save(config: TrainConfig, trainer: "AsyncTrainer", run_dir: Path) -> None:
    if trainer.stopped or trainer.error:
        why = trainer.stopped or "by an error"
        say(f"stopped   {why}, after {trainer.steps_done:,} steps; to continue: {_how_to_continue(config, run_dir)}")
    trainer.agent.save_weights(run_dir)
    write_json(run_dir / SUMMARY_FILE, _summary(config, trainer))
    _plot(config, trainer, run_dir)
    say(f"saved     {run_dir} (weights, checkpoints, metrics)\ncurve     {run_dir / CURVE_FILE}")


def _evaluate(config: TrainConfig, trainer: "AsyncTrainer") -> Evaluation:
    from AsyncPPO import evaluate_episodes

    seed = config.run.seed + FINAL_SEED
    settings: dict[str, Any] = {"seed": seed, "progress": True} | config.run.evaluating()
    episodes = evaluate_episodes(trainer.agent, env_of(config.run), config.run.eval_episodes, **settings)
    return Evaluation.of(trainer.steps_done, episodes)


def _callbacks(config: TrainConfig, run_dir: Path) -> list[Callback]:
    """Return the callbacks that write a run's files, and those that stop it."""
    from AsyncPPO.evaluation import BackgroundEvaluation

    callbacks: list[Callback] = [
        CSVLog(run_dir),
        TensorBoard(run_dir),
        Checkpoints(run_dir / CHECKPOINT_DIRECTORY, config.run.checkpoint_seconds, config.run.keep_checkpoints),
    ]
    every = max(config.run.steps // 10, 1) if config.run.eval_every is None else config.run.eval_every
    if every:
        seed, best = config.run.seed + EVALUATION_SEED, run_dir / BEST_DIRECTORY
        callbacks.append(
            BackgroundEvaluation(
                factory_of(config.run),
                every,
                num_envs=config.run.eval_envs or config.run.num_envs,
                seed=seed,
                info_keys=config.run.info_keys,
                keep_best=best,
                on_env_error=config.run.on_env_error,
                step_timeout=config.run.step_timeout,
                start_method=config.run.start_method,
                close_timeout=config.run.close_timeout,
            )
        )
    if config.run.max_seconds is not None:
        callbacks.append(StopAfter(config.run.max_seconds))
    if config.run.target_return is not None:
        callbacks.append(StopAtReturn(config.run.target_return))
    return callbacks


class Note(Callback):
    """Writes `config.json` when a run starts or resumes, after everything else is ready."""

    def __init__(self, config: TrainConfig, run_dir: Path, changed: dict[str, Any] | None = None) -> None:
        """Store the config, the directory, and the settings that changed since the run was interrupted."""
        self.config, self.run_dir, self.changed = config, run_dir, changed or {}

    def on_start(self, trainer: "AsyncTrainer") -> None:
        """Write."""
        note_start(self.run_dir, self.config, resumed=trainer.steps_done > 0, changed=self.changed)


def _summary(config: TrainConfig, trainer: "AsyncTrainer") -> dict[str, Any]:
    """Return the content of `summary.json`, before the evaluation."""
    threshold = trainer.env.spec.reward_threshold if trainer.env.spec else None
    full = [row for row in trainer.history if row["episodes"] >= 100]
    solved = [row for row in full if threshold is not None and row["mean_return"] >= threshold]
    best = max(trainer.evaluations, key=lambda evaluation: evaluation.mean, default=None)
    return {
        "env_id": config.run.env_id,
        "seed": config.run.seed,
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


def _plot(config: TrainConfig, trainer: "AsyncTrainer", run_dir: Path) -> None:
    from parallel_rl.utils.plots import plot_learning_curve

    threshold = trainer.env.spec.reward_threshold if trainer.env.spec else None
    evaluations = [(evaluation.steps, evaluation.mean) for evaluation in trainer.evaluations]
    title = f"{config.run.env_id}, seed {config.run.seed}"
    plot_learning_curve(trainer.history, run_dir / CURVE_FILE, title, threshold, evaluations)


def _how_to_continue(config: TrainConfig, run_dir: Path) -> str:
    """Return the command that continues a run; without a checkpoint, it starts from the weights."""
    path = shlex.quote(str(run_dir)) + trust_flag(config.run)
    saved = checkpoints_in(run_dir / CHECKPOINT_DIRECTORY)
    return f"{PROGRAM} resume {path}" if saved else f"{PROGRAM} --load-weights {path}"
