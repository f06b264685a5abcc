"""A single run: it trains, saves, evaluates and reports."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from AsyncPPO.callbacks import (
    CHECKPOINT_DIRECTORY,
    BackgroundEvaluation,
    Callback,
    Checkpoints,
    CSVLog,
    MLflow,
    TensorBoard,
    WeightsAndBiases,
    checkpoints_in,
)
from AsyncPPO.episodes import Evaluation
from parallel_rl.commands.build import agent_of, callbacks_of, env_of, factory_of
from parallel_rl.commands.output import say
from parallel_rl.commands.program import PROGRAM
from parallel_rl.commands.run_directory import (
    BEST_DIRECTORY,
    CURVE_FILE,
    SUMMARY_FILE,
    locked,
    note_start,
    steps_saved,
    write_json,
)
from parallel_rl.commands.stopping import stopped_by_signals
from parallel_rl.commands.trust import run_arguments
from parallel_rl.config import TrainConfig
from parallel_rl.utils import read_json, remove_unfinished

if TYPE_CHECKING:
    from AsyncPPO import AsyncTrainer

FINAL_SEED, BACKGROUND_SEED, PLAY_SEED, TUNE_SEED = 1_000_000, 2_000_000, 3_000_000, 4_000_000
"""Seeds of evaluations: the final one, in the background, by `evaluate`, and by `tune`.

All but `PLAY_SEED` are added to the seed of the run. So no evaluation repeats episodes of the training, and none that
chose the best weights or settings.
"""
LARGE_REPLAY = 1e8
"""Bytes from which on the size of a replay buffer is printed."""


def train_along(config: TrainConfig, trainer: "AsyncTrainer") -> int:
    """Train as one of the ranks that write no files; return the exit code."""
    run = config.run
    trainer.callbacks.append(Checkpoints(CHECKPOINT_DIRECTORY, run.checkpoint_seconds, run.keep_checkpoints))
    with stopped_by_signals(trainer) as signals:
        trainer.run()
    return 128 + signals[0] if signals else 0


def run_to_end(config: TrainConfig, trainer: "AsyncTrainer") -> int:
    """Run a trainer to its end, save, evaluate and report; return the exit code."""
    for directory in (config.run_dir, config.run_dir / BEST_DIRECTORY):
        remove_unfinished(directory)
    started = time.perf_counter() - trainer.seconds
    signals = _train(config, trainer)
    if signals:
        if not trainer.stopped:
            say_unevaluated(config)
        return 128 + signals[0]
    if not trainer.steps_done:
        return 0
    trainer.close()  # the evaluation makes its own environments
    evaluation = final_evaluation(config, trainer.agent, trainer.steps_done)
    summary = _summary(config, trainer) | {
        "evaluation": evaluation.figures(),
        "total_seconds": time.perf_counter() - started,
    }
    write_json(config.run_dir / SUMMARY_FILE, summary)
    say_result(config, evaluation)
    if not trainer.stopped:
        say(f"continue  {_how_to_continue(config)} --steps {config.run.steps}")
    return 0


def _train(config: TrainConfig, trainer: "AsyncTrainer") -> list[int]:
    """Run a trainer to its end and save the results, however it ended; return the signals that it received."""
    before = trainer.steps_done
    run, env = config.run, trainer.env
    across = f" on {trainer.ranks.nodes} ranks" if trainer.ranks.nodes > 1 else ""
    say(
        f"{run.env_id}: {run.num_envs} environments{across}, {env.backend} backend: {env.backend_reason}\n"
        f"acting    {trainer.acting_reason}{_about_agent(trainer.agent)}"
    )

    def save() -> None:
        if not before or trainer.steps_done > before:  # a resumed run without a step leaves its files as they are
            _save(config, trainer)

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


def _about_agent(agent: Any) -> str:
    """Return lines about a large replay buffer, which takes memory only as it fills, and about compiling, if any."""
    size = getattr(getattr(agent, "replay", None), "nbytes", 0)
    about_replay = f"\nreplay    {size / 1e9:.1f} GB of memory when it is full" if size >= LARGE_REPLAY else ""
    compiles = getattr(agent, "compiled_update", None) is not None
    return about_replay + ("\ncompile   at the first update, which takes up to half a minute" if compiles else "")


def _save(config: TrainConfig, trainer: "AsyncTrainer") -> None:
    run_dir = config.run_dir
    write_json(run_dir / SUMMARY_FILE, _summary(config, trainer))
    if not trainer.steps_done:  # nothing to continue; the same command may start again in this directory
        say(f"stopped   {trainer.stopped or 'by an error'}, before the first step")
        return
    if trainer.stopped or trainer.error:
        why = trainer.stopped or "by an error"
        say(f"stopped   {why}, at step {trainer.steps_done:,}; to continue: {_how_to_continue(config)}")
    trainer.agent.save_weights(run_dir)
    _plot(config, trainer)
    say(f"saved     {run_dir} (weights, checkpoints, metrics)\ncurve     {run_dir / CURVE_FILE}")


def final_evaluation(config: TrainConfig, agent: Any, steps: int) -> Evaluation:
    """Return the evaluation of an agent at the end of a run, after so many steps."""
    from AsyncPPO import evaluate_episodes

    seed = config.run.seed + FINAL_SEED
    settings: dict[str, Any] = {"seed": seed, "progress": True} | config.run.evaluation_arguments()
    try:
        episodes = evaluate_episodes(agent, env_of(config.run), config.run.eval_episodes, **settings)
    except KeyboardInterrupt:
        say("")  # the end of the bar's line
        say_unevaluated(config)
        raise
    return Evaluation.of(steps, episodes)


def lacks_evaluation(run_dir: Path) -> bool:
    """Return whether a run is complete but for its evaluation, which was stopped or failed."""
    try:
        summary = read_json(run_dir / SUMMARY_FILE)
        return bool(summary["steps"]) and summary["stopped"] is None and summary["evaluation"] is None
    except (OSError, ValueError, LookupError):
        return False


def evaluate_again(config: TrainConfig) -> int:
    """Make up for the evaluation that a complete run lacks; return the exit code."""
    file = config.run_dir / SUMMARY_FILE
    with locked(config.run_dir):
        _, agent = agent_of(config.run_dir, typed=config.run)
        evaluation = final_evaluation(config, agent, steps_saved(config.run_dir))
        write_json(file, read_json(file) | {"evaluation": evaluation.figures()})
    say_result(config, evaluation)
    return 0


def say_unevaluated(config: TrainConfig) -> None:
    """Print that a complete run was stopped before the end of its evaluation, and the command that evaluates it."""
    arguments = run_arguments(config.run, config.run_dir)
    say(f"stopped   after the training, without an evaluation; to evaluate: {PROGRAM} evaluate {arguments}")


def say_result(config: TrainConfig, evaluation: Evaluation) -> None:
    """Print the evaluation at the end of a run, and the command that shows its policy."""
    say(
        f"result    mean {evaluation.mean:.2f}, min {evaluation.min:.2f}, max {evaluation.max:.2f} "
        f"over {evaluation.episodes} deterministic episodes{evaluation.in_words}\n"
        f"watch     {PROGRAM} watch {run_arguments(config.run, config.run_dir)}"
    )


def background_evaluation(config: TrainConfig) -> list[Callback]:
    """Return the callback that evaluates in the background and keeps the best weights; none if the config has none."""
    run = config.run
    every = max(run.steps // 10, 1) if run.eval_every is None else run.eval_every
    if not every:
        return []
    own = {"backend", "num_workers"}  # of the training: the evaluation has a process of its own
    return [
        BackgroundEvaluation(
            factory_of(run),
            every,
            seed=run.seed + BACKGROUND_SEED,
            keep_best=config.run_dir / BEST_DIRECTORY,
            **{name: value for name, value in run.evaluation_arguments().items() if name not in own},
        )
    ]


def callbacks_for(config: TrainConfig, changed: dict[str, Any] | None = None) -> list[Callback]:
    """Return the callbacks that write a run's files, and those that stop it.

    `changed` are the settings of a resumed run that are other than before, with their new values when it starts.

    `on_end` comes in the reverse order: the run is saved first, so that other ranks do not wait while this one
    evaluates; and the others end after the last evaluation, which they report.
    """
    run, run_dir = config.run, config.run_dir
    callbacks: list[Callback] = [CSVLog(run_dir), TensorBoard(run_dir)]
    tracker = {"wandb": WeightsAndBiases, "mlflow": MLflow}.get(run.track)
    if tracker is not None:
        name = {"name": str(run_dir)} if tracker is WeightsAndBiases else {"run_name": str(run_dir)}
        callbacks.append(tracker({"agent": config.agent} | config.flat(), **name))
    callbacks += callbacks_of(run)
    saves = Checkpoints(run_dir / CHECKPOINT_DIRECTORY, run.checkpoint_seconds, run.keep_checkpoints)
    return [*callbacks, *background_evaluation(config), saves, WriteConfig(config, {} if changed is None else changed)]


class WriteConfig(Callback):
    """Writes `config.json` when a run starts or resumes, once everything else is ready."""

    def __init__(self, config: TrainConfig, changed: dict[str, Any]) -> None:
        self.config, self.changed = config, changed

    def on_start(self, trainer: "AsyncTrainer") -> None:
        """Write the file."""
        note_start(self.config, resumed=trainer.steps_done > 0, changed=self.changed)


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
        "stopped": _why_stopped(trainer),
        "episodes": trainer.episodes_done,
        "mean_return": trainer.mean_return,
        "threshold": threshold,
        "solved": {"steps": solved[0]["steps"], "seconds": solved[0]["seconds"]} if solved else None,
        "best": best and best.figures(),
        "evaluation": None,
    }


def _why_stopped(trainer: "AsyncTrainer") -> str | None:
    """Return why a run ended early: the reason of its stop, or its error in one line; None if it is complete."""
    if trainer.stopped or trainer.error is None:
        return trainer.stopped
    first = next(iter(str(trainer.error).splitlines()), "")
    return f"by an error: {type(trainer.error).__name__}: {first}"


def _plot(config: TrainConfig, trainer: "AsyncTrainer") -> None:
    from parallel_rl.utils.plots import plot_learning_curve

    threshold = trainer.env.spec.reward_threshold if trainer.env.spec else None
    evaluations = [(evaluation.steps, evaluation.mean) for evaluation in trainer.evaluations]
    title = f"{config.run.env_id}, seed {config.run.seed}"
    plot_learning_curve(trainer.history, config.run_dir / CURVE_FILE, title, threshold, evaluations)


def _how_to_continue(config: TrainConfig) -> str:
    """Return the command that continues a run; without a checkpoint, it starts from the weights."""
    arguments = run_arguments(config.run, config.run_dir)
    saved = checkpoints_in(config.run_dir / CHECKPOINT_DIRECTORY)
    return f"{PROGRAM} resume {arguments}" if saved else f"{PROGRAM} --load-weights {arguments}"
