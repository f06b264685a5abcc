"""The commands `train` and `resume`."""

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import tyro

from AsyncPPO.callbacks import CHECKPOINT_DIRECTORY, checkpoints_in
from parallel_rl.commands.arguments import parse
from parallel_rl.commands.build import fresh_agent, load_start, make_trainer
from parallel_rl.commands.cluster import checked_nodes, work_on_ranks, workers_of_rank
from parallel_rl.commands.copies import STATE_FILE, check_copies, make_population, train_copies
from parallel_rl.commands.flags import ClusterName
from parallel_rl.commands.output import say
from parallel_rl.commands.parsing import flag_of
from parallel_rl.commands.run_directory import (
    CONFIG_FILE,
    config_of,
    load_newest,
    locked,
    values_over_time,
    with_run_dir,
)
from parallel_rl.commands.seeds import seeds_in, train_seeds
from parallel_rl.commands.single_run import callbacks_for, evaluate_again, lacks_evaluation, run_to_end, train_along
from parallel_rl.commands.stopping import stop_is_told
from parallel_rl.commands.trust import check_trust
from parallel_rl.commands.values import overrides
from parallel_rl.config import TrainConfig
from parallel_rl.utils import ALONE, Cluster


def train(arguments: Sequence[str]) -> int:
    """Run the command `train`: a single run, on one rank or several, or one for each of `--seeds`."""
    config, flags = parse(arguments)
    nodes = checked_nodes(flags.cluster, flags.nodes, flags.min_nodes, flags.preempt, config.run.num_envs)
    if flags.seeds is not None:
        if nodes is not None:
            raise ValueError("give either --seeds or --cluster")
        seeds, config = seeds_in(flags.seeds), with_run_dir(config)
        _check_start(config)
        return train_seeds(config, seeds, _train_or_continue)
    if nodes is not None:  # all ranks know the directory, because the first rank may be replaced
        config = with_run_dir(config)
    return work_on_ranks(nodes, partial(train_run, config, workers_of_rank(nodes), flags.origin))


def _check_start(config: TrainConfig) -> None:
    """Make what a run needs first, so that its error is one, and not one for each seed."""
    if config.run.copies > 1:
        check_copies(config)
        make_population(config)
        return
    load_start(fresh_agent(config), config)
    callbacks_for(config)


def train_run(config: TrainConfig, num_workers: int | None, origin: str | None = None, ranks: Cluster = ALONE) -> int:
    """Train, save, evaluate and report; only the first rank does more than train.

    Args:
        config: of the run.
        num_workers: the number of processes that step, if the config has none; the record of the run does not have it.
        origin: says where the settings come from; it is printed.
        ranks: of the run.

    Returns:
        The exit code.
    """
    is_first = not (ranks.node or ranks.joined)
    if is_first and origin is not None:
        say(f"settings  {origin}")
    config = with_run_dir(config) if is_first else config
    if config.run.copies > 1:
        if ranks.nodes > 1:
            raise ValueError("a run with copies trains on one rank: without --cluster and torchrun")
        return train_copies(config)
    own = config.with_workers(num_workers)
    with stop_is_told():
        trainer = make_trainer(own, ranks)
    with trainer:
        load_start(trainer.agent, config)
        if ranks.node:
            return train_along(config, trainer)
        trainer.callbacks += callbacks_for(config)
        with locked(config.run_dir):
            return run_to_end(own, trainer)


def _train_or_continue(config: TrainConfig) -> int:
    """Train one of several runs in one process: the others use the other cores.

    Continue it if it was stopped, and only evaluate it if that is all that it lacks.
    """
    if lacks_evaluation(config.run_dir):
        return evaluate_again(config.with_workers(1))
    if (config.run_dir / STATE_FILE).is_file():
        return train_copies(config, resumed=True)
    if checkpoints_in(config.run_dir / CHECKPOINT_DIRECTORY):
        return _resume_run(config, 1, None, {})
    return train_run(config, 1)


def resume(
    run_dir: tyro.conf.Positional[Path],
    steps: int | None = None,
    num_envs: int | None = None,
    override: tuple[str, ...] = (),
    max_seconds: float | None = None,
    target_return: float | None = None,
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
        max_seconds: end the run after this many seconds from now; by default as before.
        target_return: end the run when the last 100 episodes, or an evaluation, reach this mean return; by default as
            before.
        cluster: continue on several ranks; their number may change. local: processes on this machine; ray: one on each
            machine of a Ray cluster.
        nodes: number of ranks of --cluster.
        min_nodes: replace lost ranks while the others go on; with fewer than this, wait.
        preempt: once this fraction of the ranks has collected its share of a batch, the others stop collecting.
        trust_env_module: import the modules that the run's config.json names.
    """
    config = config_of(run_dir).changed({"run_dir": str(run_dir)})  # it may have been moved
    check_trust(config.run, run_dir / CONFIG_FILE, trust_env_module)
    given = {"steps": steps, "num_envs": num_envs, "max_seconds": max_seconds, "target_return": target_return}
    given = {name: value for name, value in given.items() if value is not None}
    if config.run.copies > 1:
        if checked_nodes(cluster, nodes, min_nodes, preempt, config.run.num_envs) is not None:
            raise ValueError("a run with copies trains on one rank: without --cluster")
        if given or override:
            flags = ", ".join(map(flag_of, given)) or "--override"
            raise ValueError(
                f"a run with copies resumes as it was, without {flags}; once it is complete, a new run goes on from "
                f"its weights: --load-weights {run_dir}"
            )
        return train_copies(config, resumed=True)
    changed: dict[str, Any] = {name: value for name, value in given.items() if value != getattr(config.run, name)}
    changed |= overrides(config, override)
    config = config.changed(changed)
    wanted = checked_nodes(cluster, nodes, min_nodes, preempt, config.run.num_envs)
    return work_on_ranks(wanted, partial(_resume_run, config, workers_of_rank(wanted), steps, changed))


def _resume_run(
    config: TrainConfig, num_workers: int | None, steps: int | None, changed: dict[str, Any], ranks: Cluster = ALONE
) -> int:
    own, run_dir = config.with_workers(num_workers), config.run_dir
    with make_trainer(own, ranks) as trainer, nullcontext() if ranks.node else locked(run_dir):
        if ranks.node == 0:
            trainer.callbacks += callbacks_for(config, changed)
        checkpoints = checkpoints_in(run_dir / CHECKPOINT_DIRECTORY)
        if not checkpoints:
            raise FileNotFoundError(
                f"{run_dir} has no checkpoint to resume from: it ended before the first; train again"
            )
        names = changed.keys() | values_over_time(run_dir).keys()  # the checkpoint may be from before or after a change
        load_newest(partial(trainer.load_checkpoint, any_num_envs=True, changed=names), checkpoints)
        done = trainer.steps_done
        if steps is not None:
            trainer.goal = done, done + steps
            changed["steps"] = done + steps  # the record has the steps of the whole run
        elif done >= trainer.goal[1] and not ranks.joined:  # the others may have saved their last step just now
            raise ValueError(f"{run_dir} finished after {done:,} steps: pass the number of further steps with --steps")
        if ranks.node:
            return train_along(config, trainer)
        # in mask mode all environments have finished at a checkpoint anyway
        new_episodes = config.run.mode == "streaming" and trainer.env.finished.all()
        say(f"resumed   {run_dir} after {done:,} steps{', in new episodes' if new_episodes else ''}")
        return run_to_end(own, trainer)
