"""`train --copies`: a population of copies of the agent, which are combined while they train."""

import time
from collections import deque
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from AsyncPPO.callbacks import METRICS_FILE, CSVLog, Table, TensorBoard
from AsyncPPO.callbacks.base import started
from AsyncPPO.episodes import Evaluation
from parallel_rl.commands.build import callbacks_of, env_of, fresh_agent, load_start
from parallel_rl.commands.output import say
from parallel_rl.commands.program import PROGRAM
from parallel_rl.commands.run_directory import CURVE_FILE, SUMMARY_FILE, locked, note_start, write_json
from parallel_rl.commands.single_run import background_evaluation, final_evaluation, say_result
from parallel_rl.commands.stopping import stop_is_told, stopped_by_signals
from parallel_rl.commands.trust import run_arguments
from parallel_rl.config import TrainConfig
from parallel_rl.utils import History

if TYPE_CHECKING:
    from Population import AgentCombiner, Trainer
    from Population.schedule import Count

STATE_FILE = "population.state"
EXPLORED = ("lr", "entropy_coef")


def train_copies(config: TrainConfig, *, resumed: bool = False) -> int:
    """Train a population, save its agent, evaluate it and report; return the exit code.

    Args:
        config: of the run.
        resumed: whether to continue from the state in the directory.

    Raises:
        FileNotFoundError: there is no state to resume from.
        ValueError: settings that a population does not support.
    """
    from Population.schedule import Count

    check_copies(config)
    run_dir = config.run_dir
    if resumed and not (run_dir / STATE_FILE).is_file():
        raise FileNotFoundError(f"{run_dir} has no saved state: the run is complete, or ended before its first save")
    with stop_is_told():
        trainer = make_population(config)
    with locked(run_dir):
        count = trainer.load_checkpoint(run_dir / STATE_FILE) if resumed else Count()
        callbacks: list[Any] = [CSVLog(run_dir), TensorBoard(run_dir), *background_evaluation(config)]
        callbacks += callbacks_of(config.run)
        population = PopulationRun(config, trainer, callbacks, count)
        with stopped_by_signals(population) as signals, started(callbacks, population):
            note_start(config, resumed=resumed, changed={})
            say(f"{config.run.env_id}: {config.run.copies} copies with {config.run.num_envs} environments each")
            agent, result = trainer.run()
            agent.save_weights(run_dir)
            _write(config, result["workers"])
        if all(record.finished for record in trainer.records):  # there is nothing left to resume
            (run_dir / STATE_FILE).unlink(missing_ok=True)
        _summarize(config, population, None)
        say(f"saved     {run_dir} (weights, metrics of each copy)\ncurves    {run_dir / CURVE_FILE}")
        complete = not (run_dir / STATE_FILE).is_file()
        if signals or not complete:  # a signal may come after the last step
            how, command = ("evaluate", "evaluate") if complete else ("continue", "resume")
            say(f"stopped   {trainer.stopped}; to {how}: {PROGRAM} {command} {run_arguments(config.run, run_dir)}")
        if signals:
            return 128 + signals[0]
        evaluation = final_evaluation(config, agent, population.steps_done)
        _summarize(config, population, evaluation)
        say_result(config, evaluation)
        if complete:
            say(f"continue  {PROGRAM} --load-weights {run_arguments(config.run, run_dir)} --steps {config.run.steps}")
    return 0


def check_copies(config: TrainConfig) -> None:
    """Check that a run has no settings that a population does not support.

    Raises:
        ValueError: it has; the message names the flags.
    """
    run = config.run
    unsupported = {
        "--callback": run.callback,
        "--track": run.track != "none",
        "--backend vector": run.backend == "vector",
    }
    if given := [flag for flag, is_given in unsupported.items() if is_given]:
        raise ValueError(f"--copies works only without {' and '.join(given)}")


def make_population(config: TrainConfig) -> "Trainer":
    """Return the trainer of the population of a run."""
    from Population import Trainer

    run, agent = config.run, fresh_agent(config)
    load_start(agent, config)
    schedule: list[tuple[str, float, str]] = [
        ("finish", run.steps, "steps"),
        ("combine_agents", run.combine_every * run.copies, "steps"),  # the steps of all
    ]
    options = config.with_workers(1).run.trainer_arguments()  # by default one process: the copies use the other cores
    del options["seed"]  # each copy has its own
    return Trainer(
        agent,
        env_of(run, training=True),
        run.copies,
        "parallel_learning",
        _combiner(config),
        schedule,
        "sync",
        seed=run.seed,
        num_envs=run.num_envs,
        trainer_options=options,
    )


def _combiner(config: TrainConfig) -> "AgentCombiner":
    from Population import ExploitExplore, FixedStatAgentCombiner, MeanAgentCombiner

    if config.run.combine == "mean":
        return MeanAgentCombiner()
    if config.run.combine == "best":
        return FixedStatAgentCombiner("mean_x_episodes_reward")
    values = {name: vars(config.settings).get(name) for name in EXPLORED}
    of = [name for name, value in values.items() if isinstance(value, float) and value > 0]  # factors do not change 0
    if not of:
        raise ValueError(f"--combine explore changes {' and '.join(EXPLORED)}, which {config.agent} does not have")
    return ExploitExplore(of=of, seed=config.run.seed)


class PopulationRun:
    """A population with the attributes of an `AsyncTrainer` that `stopped_by_signals` and callbacks read.

    It saves the population at intervals and before it stops. It counts the steps of one copy. Its return is the best
    copy's, or the mean over the copies if their weights are averaged.
    """

    collecting_since, lag, progress = None, 0, True

    def __init__(self, config: TrainConfig, trainer: "Trainer", callbacks: list[Any], count: "Count") -> None:
        """Add it to the callbacks of the population.

        Args:
            config: of the run.
            trainer: of the population.
            callbacks: of the run.
            count: of the steps of all copies so far.
        """
        self.trainer, self.callbacks = trainer, callbacks
        self.history, self.evaluations = History(), list[Evaluation]()
        self.skip_slow_work = False
        self.error: BaseException | None = None
        self._copies, self._over_copies = config.run.copies, np.mean if config.run.combine == "mean" else np.max
        self._run_dir, self._save_every = config.run_dir, config.run.checkpoint_seconds
        self._saved_at = time.monotonic()
        self._count(count)
        trainer.callbacks.append(self)

    def _count(self, count: "Count") -> None:
        self.steps_done, self.episodes_done = int(count.steps) // self._copies, int(count.episodes)
        self.seconds = count.seconds

    @property
    def mean_return(self) -> float:
        """The return of the run at the last report; NaN before the first episode."""
        return float(self.history[-1]["mean_return"]) if len(self.history) else np.nan

    @property
    def recent(self) -> deque[float]:
        """The returns of the last 100 episodes of each copy that `mean_return` is of."""
        from Population.statistics import RECENT

        returns = [own[-RECENT:] for own in self.trainer.returns]
        if returns and self._over_copies is np.max:
            returns = [max(returns, key=lambda own: np.mean(own) if own else -np.inf)]
        return deque(chain(*returns), maxlen=RECENT * max(len(returns), 1))

    @property
    def agent(self) -> Any:
        """The agent that the copies were combined into last."""
        return self.trainer.agent

    def has_reported(self, steps: float) -> bool:
        """Return whether a row at step `steps` is in the metrics: saves are made after rows."""
        return steps <= self.steps_done

    def stop(self, why: str, *, skip_slow_work: bool = False) -> None:
        """Stop it when the copies next report."""
        self.skip_slow_work |= skip_slow_work
        self.trainer.stop(why)

    def __call__(self, trainer: "Trainer") -> None:
        """Add a row to the history; save if the interval is over, or the population was stopped."""
        self._count(trainer.count)
        means = {f"copy_{number}_return": returns_of(stats) for number, stats in enumerate(trainer.stats)}
        finite = [mean for mean in means.values() if np.isfinite(mean)]
        row = {
            "steps": self.steps_done, "seconds": self.seconds, "episodes": self.episodes_done,
            "mean_return": float(self._over_copies(finite)) if finite else np.nan,
        }  # fmt: skip
        self.history.append(row | means)
        for callback in self.callbacks:
            callback.on_update(self, row | means)
        if trainer.stopped or time.monotonic() >= self._saved_at + self._save_every:
            trainer.save_checkpoint(self._run_dir / STATE_FILE)
            trainer.agent.save_weights(self._run_dir)
            self._saved_at = time.monotonic()

    def add_evaluation(self, evaluation: Evaluation) -> None:
        """Append an evaluation to `evaluations` and call `on_evaluation` of the callbacks."""
        self.evaluations.append(evaluation)
        for callback in self.callbacks:
            callback.on_evaluation(self, evaluation)


def returns_of(stats: Any) -> float:
    """Return the mean return of the last episodes of a copy; NaN before the first."""
    mean = stats["mean_x_episodes_reward"]
    return np.nan if mean is None else float(mean)


def _write(config: TrainConfig, workers: list[Any]) -> None:
    """Write the metrics of each copy, and the picture of their curves."""
    from parallel_rl.utils.plots import Run, plot_runs

    curves = {}
    for worker in workers:
        directory, rows = config.run_dir / f"copy_{worker['id']}", worker["history"]
        directory.mkdir(exist_ok=True)
        Table(directory / METRICS_FILE).write(rows, [*rows[0]] if rows else [])
        if any(np.isfinite(row["mean_return"]) for row in rows):
            curves[f"copy {worker['id']}"] = [Run.of(str(directory), rows, worker["total_steps"], config.run.steps)]
    if curves:
        plot_runs({config.run.env_id: curves}, config.run_dir / CURVE_FILE)


def _summarize(config: TrainConfig, population: PopulationRun, evaluation: Evaluation | None) -> None:
    trainer, best = population.trainer, max(population.evaluations, key=lambda one: one.mean, default=None)
    summary = {
        "steps": population.steps_done,
        "episodes": population.episodes_done,
        "stopped": trainer.stopped,
        "mean_returns": [stats["mean_x_episodes_reward"] for stats in trainer.stats],
        "best": best and best.figures(),
        "evaluation": evaluation and evaluation.figures(),
    }
    write_json(config.run_dir / SUMMARY_FILE, summary)
