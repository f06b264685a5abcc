"""The commands `train` and `resume`."""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from AsyncPPO.callbacks import (
    CHECKPOINT_DIRECTORY,
    Callback,
    Checkpoints,
    CSVLog,
    MLflow,
    TensorBoard,
    WeightsAndBiases,
    checkpoints_in,
)
from parallel_rl.commands.arguments import parse
from parallel_rl.commands.build import callbacks_of, fresh_agent, load_latest, make_trainer
from parallel_rl.commands.cluster import ClusterName, checked_nodes, work_on_ranks, workers_of_rank
from parallel_rl.commands.copies import STATE_FILE, check_copies, make_population, train_copies
from parallel_rl.commands.evaluating import background_evaluation, final_evaluation, say_result, say_unevaluated
from parallel_rl.commands.output import say
from parallel_rl.commands.overrides import overrides
from parallel_rl.commands.program import PROGRAM
from parallel_rl.commands.run_directory import (
    BEST_DIRECTORY,
    CONFIG_FILE,
    CURVE_FILE,
    SUMMARY_FILE,
    changes_of,
    choose_run_dir,
    config_of,
    load_newest,
    locked,
    note_start,
    write_json,
)
from parallel_rl.commands.seeds import seeds_in, train_seeds
from parallel_rl.commands.stopping import stop_is_told, stopped_by_signals
from parallel_rl.commands.trust import check_trust, run_arguments
from parallel_rl.config import TrainConfig
from parallel_rl.utils import ALONE, Cluster, remove_unfinished

if TYPE_CHECKING:
    from AsyncPPO import AsyncTrainer


LARGE_REPLAY = 1e8
"""Bytes from which on the size of a replay buffer is printed."""


def train(arguments: Sequence[str]) -> int:
    """Run the command `train`: a single run, on one rank or several, or one for each of `--seeds`."""
    config, flags = parse(arguments)
    nodes = checked_nodes(flags.cluster, flags.nodes, flags.min_nodes, flags.preempt, config.run.num_envs)
    if flags.seeds is not None:
        if nodes is not None:
            raise ValueError("give either --seeds or --cluster")
        seeds, directory = seeds_in(flags.seeds), choose_run_dir(config)
        _check_start(config, directory)
        return train_seeds(config, seeds, directory, _train_or_continue)
    if nodes is not None:  # all ranks know the directory, because the first rank may be replaced
        config = config.changed({"run_dir": str(choose_run_dir(config))})
    return work_on_ranks(nodes, partial(_announce_and_train, config, workers_of_rank(nodes), flags.origin))


def _check_start(config: TrainConfig, directory: Path) -> None:
    """Make what a run needs first, so that its error is one, and not one for each seed."""
    if config.run.copies > 1:
        check_copies(config)
        make_population(config, lambda trainer: None)
        return
    agent = fresh_agent(config)
    if config.run.load_weights:
        load_latest(agent, config.agent, Path(config.run.load_weights))
    _callbacks(config, directory)


def _announce_and_train(config: TrainConfig, num_workers: int | None, origin: str, ranks: Cluster = ALONE) -> int:
    """Print where the settings come from, and train."""
    if not (ranks.node or ranks.joined):
        say(f"settings  {origin}")
    return train_run(config, ranks, num_workers)


def train_run(config: TrainConfig, ranks: Cluster = ALONE, num_workers: int | None = None) -> int:
    """Train, save, evaluate and report; only the first rank does more than train.

    Args:
        config: of the run.
        ranks: of the run.
        num_workers: the number of processes that step, if the config has none; the record of the run does not have it.

    Returns:
        The exit code.
    """
    run_dir = Path(str(config.run.run_dir)) if ranks.node or ranks.joined else choose_run_dir(config)
    if config.run.copies > 1:
        _check_alone(ranks)
        return train_copies(config, run_dir)
    own = config.with_workers(num_workers)
    with stop_is_told():
        trainer = make_trainer(own, ranks)
    with trainer:
        if config.run.load_weights:
            load_latest(trainer.agent, config.agent, Path(config.run.load_weights))
        if ranks.node:
            return _train_along(config, trainer)
        trainer.callbacks += [*_callbacks(config, run_dir), WriteConfig(config, run_dir)]
        with locked(run_dir):
            return _run(own, trainer, run_dir)


def _train_or_continue(config: TrainConfig) -> int:
    """Train one of several runs in one process: the others use the other cores. Continue it if it was stopped."""
    run_dir = Path(str(config.run.run_dir))
    if (run_dir / STATE_FILE).is_file():
        return train_copies(config, run_dir, resumed=True)
    if checkpoints_in(run_dir / CHECKPOINT_DIRECTORY):
        return _resume_run(config, 1, run_dir, None, {})
    return train_run(config, num_workers=1)


def resume(
    run_dir: tyro.conf.Positional[Path],
    steps: int | None = None,
    num_envs: int | None = None,
    override: tuple[str, ...] = (),
    cluster: ClusterName = "none",
    nodes: int = 1,
    min_nodes: int | None = None,
    preempt: float | None = None,
    trust_env_module: bool = False,
) -> int:
    """Continue a run from its newest checkpoint, as if it had never stopped.

    Args:
        run_dir: directory of a training run.
        steps: number of further environment steps; by default the remaining ones.
        num_envs: number of parallel environments from now on; if it changes, all start new episodes.
        override: NAME=VALUE, new values for settings of the agent: --override lr=1e-4 entropy_coef=0.
        cluster: continue on several ranks; their number may change. local: processes on this machine; ray: one on each
            machine of a Ray cluster.
        nodes: number of ranks of --cluster.
        min_nodes: replace lost ranks while the others go on; with fewer than this, wait.
        preempt: once this fraction of the ranks has collected its share of a batch, the others stop collecting.
        trust_env_module: import the modules that the run's config.json names.
    """
    config = config_of(run_dir)
    check_trust(config.run, run_dir / CONFIG_FILE, trust_env_module)
    if config.run.copies > 1:
        if steps is not None or num_envs is not None or override:
            raise ValueError(
                "a run with copies resumes as it was: without --steps, --num-envs and --override; once it is complete, "
                f"a new run goes on from its weights: --load-weights {run_dir}"
            )
        return train_copies(config, run_dir, resumed=True)
    changed: dict[str, Any] = {} if num_envs in (None, config.run.num_envs) else {"num_envs": num_envs}
    changed |= overrides(config, override)
    if steps not in (None, config.run.steps):
        changed["steps"] = steps
    config = config.changed(changed)
    ranks = checked_nodes(cluster, nodes, min_nodes, preempt, config.run.num_envs)
    return work_on_ranks(ranks, partial(_resume_run, config, workers_of_rank(ranks), run_dir, steps, changed))


def _resume_run(
    config: TrainConfig,
    num_workers: int | None,
    run_dir: Path,
    steps: int | None,
    changed: dict[str, Any],
    ranks: Cluster = ALONE,
) -> int:
    own = config.with_workers(num_workers)
    with make_trainer(own, ranks) as trainer, nullcontext() if ranks.node else locked(run_dir):
        if ranks.node == 0:
            trainer.callbacks += [*_callbacks(config, run_dir), WriteConfig(config, run_dir, changed)]
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
        elif done >= trainer.goal[1] and not ranks.joined:  # the others may have saved their last step just now
            raise ValueError(f"{run_dir} finished after {done:,} steps: pass the number of further steps with --steps")
        if ranks.node:
            return _train_along(config, trainer)
        # in mask mode all environments have finished at a checkpoint anyway
        new_episodes = config.run.mode == "streaming" and trainer.env.finished.all()
        say(f"resumed   {run_dir} after {done:,} steps{', in new episodes' if new_episodes else ''}")
        return _run(own, trainer, run_dir)


def _check_alone(ranks: Cluster) -> None:
    if ranks.nodes > 1:
        raise ValueError("a run with copies trains on one rank: without --cluster and torchrun")


def _train_along(config: TrainConfig, trainer: "AsyncTrainer") -> int:
    """Train as one of the ranks that write no files; return the exit code."""
    run = config.run
    trainer.callbacks.append(Checkpoints(CHECKPOINT_DIRECTORY, run.checkpoint_seconds, run.keep_checkpoints))
    with stopped_by_signals(trainer) as signals:
        trainer.run()
    return 128 + signals[0] if signals else 0


def _run(config: TrainConfig, trainer: "AsyncTrainer", run_dir: Path) -> int:
    """Run a trainer to its end, save, evaluate and report; return the exit code."""
    for directory in (run_dir, run_dir / BEST_DIRECTORY):
        remove_unfinished(directory)
    started = time.perf_counter() - trainer.seconds
    signals = _train(config, trainer, run_dir)
    if signals:
        if not trainer.stopped:
            say_unevaluated(config, run_dir)
        return 128 + signals[0]
    if not trainer.steps_done:
        return 0
    trainer.close()  # the evaluation makes its own environments
    evaluation = final_evaluation(config, trainer.agent, trainer.steps_done, run_dir)
    summary = _summary(config, trainer) | {
        "evaluation": evaluation.figures(),
        "total_seconds": time.perf_counter() - started,
    }
    write_json(run_dir / SUMMARY_FILE, summary)
    say_result(config, evaluation, run_dir)
    if not trainer.stopped:
        say(f"continue  {_how_to_continue(config, run_dir)} --steps {config.run.steps}")
    return 0


def _train(config: TrainConfig, trainer: "AsyncTrainer", run_dir: Path) -> list[int]:
    """Run a trainer to its end and save the results, however it ended; return the signals that it received."""
    before = trainer.steps_done
    run, env = config.run, trainer.env
    across = f" on {trainer.ranks.nodes} ranks" if trainer.ranks.nodes > 1 else ""
    say(
        f"{run.env_id}: {run.num_envs} environments{across}, {env.backend} backend: {env.backend_reason}\n"
        f"acting    {trainer.acting_reason}{_about_replay(trainer.agent)}"
    )

    def save() -> None:
        if not before or trainer.steps_done > before:  # a resumed run without a step leaves its files as they are
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


def _about_replay(agent: Any) -> str:
    """Return a line about a large replay buffer, which takes memory only as it fills; nothing without one."""
    size = getattr(getattr(agent, "replay", None), "nbytes", 0)
    return f"\nreplay    {size / 1e9:.1f} GB of memory when it is full" if size >= LARGE_REPLAY else ""


def _save(config: TrainConfig, trainer: "AsyncTrainer", run_dir: Path) -> None:
    write_json(run_dir / SUMMARY_FILE, _summary(config, trainer))
    if not trainer.steps_done:  # nothing to continue; the same command may start again in this directory
        say(f"stopped   {trainer.stopped or 'by an error'}, before the first step")
        return
    if trainer.stopped or trainer.error:
        why = trainer.stopped or "by an error"
        say(f"stopped   {why}, at step {trainer.steps_done:,}; to continue: {_how_to_continue(config, run_dir)}")
    trainer.agent.save_weights(run_dir)
    _plot(config, trainer, run_dir)
    say(f"saved     {run_dir} (weights, checkpoints, metrics)\ncurve     {run_dir / CURVE_FILE}")


def _callbacks(config: TrainConfig, run_dir: Path) -> list[Callback]:
    """Return the callbacks that write a run's files, and those that stop it.

    `on_end` comes in the reverse order: the run is saved first, so that other ranks do not wait while this one
    evaluates; and the others end after the last evaluation, which they report.
    """
    directory, run = run_dir / CHECKPOINT_DIRECTORY, config.run
    callbacks: list[Callback] = [CSVLog(run_dir), TensorBoard(run_dir)]
    tracker = {"wandb": WeightsAndBiases, "mlflow": MLflow}.get(run.track)
    if tracker is not None:
        name = {"name": str(run_dir)} if tracker is WeightsAndBiases else {"run_name": str(run_dir)}
        callbacks.append(tracker({"agent": config.agent} | config.flat(), **name))
    callbacks += callbacks_of(run)
    saves = Checkpoints(directory, run.checkpoint_seconds, run.keep_checkpoints)
    return [*callbacks, *background_evaluation(config, run_dir), saves]


class WriteConfig(Callback):
    """Writes `config.json` when a run starts or resumes, once everything else is ready."""

    def __init__(self, config: TrainConfig, run_dir: Path, changed: dict[str, Any] | None = None) -> None:
        self.config, self.run_dir, self.changed = config, run_dir, changed or {}

    def on_start(self, trainer: "AsyncTrainer") -> None:
        """Write the file."""
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


def _plot(config: TrainConfig, trainer: "AsyncTrainer", run_dir: Path) -> None:
    from parallel_rl.utils.plots import plot_learning_curve

    threshold = trainer.env.spec.reward_threshold if trainer.env.spec else None
    evaluations = [(evaluation.steps, evaluation.mean) for evaluation in trainer.evaluations]
    title = f"{config.run.env_id}, seed {config.run.seed}"
    plot_learning_curve(trainer.history, run_dir / CURVE_FILE, title, threshold, evaluations)


def _how_to_continue(config: TrainConfig, run_dir: Path) -> str:
    """Return the command that continues a run; without a checkpoint, it starts from the weights."""
    arguments = run_arguments(config.run, run_dir)
    saved = checkpoints_in(run_dir / CHECKPOINT_DIRECTORY)
    return f"{PROGRAM} resume {arguments}" if saved else f"{PROGRAM} --load-weights {arguments}"
