"""The command `tune`: a search for better settings of an agent, by Optuna (Akiba et al. 2019, arXiv:1907.10902)."""

import math
import shlex
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from AsyncPPO.progress import Bar
from parallel_rl.commands.arguments import PRESET_OF_RUN, parse
from parallel_rl.commands.build import callbacks_of, env_of, fresh_agent, load_start, make_trainer
from parallel_rl.commands.output import say
from parallel_rl.commands.parsing import flag_of
from parallel_rl.commands.program import PROGRAM
from parallel_rl.commands.run_directory import locked, runs_of, write_json
from parallel_rl.commands.single_run import TUNE_SEED
from parallel_rl.commands.stopping import stopped_by_signals
from parallel_rl.commands.trust import run_arguments
from parallel_rl.commands.tune_report import plot_search, table
from parallel_rl.config import RunConfig, TrainConfig, train_config
from parallel_rl.search_space import LogRange, Space, search_space
from parallel_rl.utils import SettingValues, counted, reason_of, settings_in

if TYPE_CHECKING:
    import optuna

STUDY_FILE, PRESET_FILE, PICTURE_FILE = "study.db", "preset.json", "search.png"
STARTED_WITH, ERROR = "started_with", "error"
"""Attributes of a study with its first settings, and of a trial with its error."""
POINTS, EPISODES = 5, 20
"""The number of evaluations of a trial; and the episodes of all but the last, after each of which it may be pruned."""
LOCK_SECONDS = 60
"""Seconds that a process waits while another one writes into the study."""
SAME = (
    "steps", "num_envs", "mode", "seed", "env_id", "env_kwargs", "wrapper", "action_masks", "load_weights", "callback",
    "max_seconds", "target_return", "lag", "eval_episodes",
)  # fmt: skip
"""Settings of a run that all trials of a study share."""


class Stopped(Exception):
    """A signal ended a trial."""


def tune(arguments: Sequence[str]) -> int:
    """Search, save the best settings as a preset, and report.

    Raises:
        ImportError: Optuna is missing.
        ValueError: the study in the directory has other settings, or is damaged.
        RuntimeError: every trial failed.
    """
    config, flags = parse(arguments, tuning=True)
    counted("trials", flags.trials)
    if config.run.copies > 1:
        raise ValueError("tune trains single agents: without --copies")
    if config.run.track != "none":
        raise ValueError("tune reports no trials: without --track")
    try:
        import optuna
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError as error:
        raise ImportError(reason_of(error)) from error

    # here an unknown environment or callback is one error, not one for each trial
    actions = fresh_agent(config).action_space
    callbacks_of(config.run)
    space = search_space(config.agent, config.flat(), actions)
    run_dir = Path(config.run.run_dir or runs_of(config.run.env_id) / f"tune_{config.agent}")
    config = config.changed({"run_dir": str(run_dir)})
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        search = Search(config, open_study(config, space), space)
        say(f"study     {run_dir}: {len(search.finished)} of {flags.trials} trials, {config.run.steps:,} steps each")
        with stopped_by_signals(search, "ending this trial") as signals:
            search.run(flags.trials)
        return search.report() if not signals else 128 + signals[0]
    except (optuna.exceptions.OptunaError, SQLAlchemyError) as error:
        raise RuntimeError(f"{run_dir / STUDY_FILE} cannot be read or written: {error}") from error


def open_study(config: TrainConfig, space: Space) -> "optuna.Study":
    """Return the study in a directory, or a new one, whose first trial has the settings of the command line.

    Raises:
        ValueError: the trials of the study have other settings in `SAME` than the command line.
    """
    import optuna
    from sqlalchemy import URL

    with locked(config.run_dir, wait=True):
        storage = optuna.storages.RDBStorage(
            URL.create("sqlite", database=str(config.run_dir / STUDY_FILE)).render_as_string(),
            engine_kwargs={"connect_args": {"timeout": LOCK_SECONDS}},
        )
        study = optuna.create_study(
            storage=storage,
            study_name=config.agent,
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(),
            load_if_exists=True,
        )
        wanted, known = _started_with(config), study.user_attrs.get(STARTED_WITH)
        if known is None:
            study.set_user_attr(STARTED_WITH, wanted)
            flat = config.flat()
            study.enqueue_trial({name: flat[name] for name in space})
            return study
        known = _started_with(train_config(config.agent)) | known  # an older version saved fewer settings
        if differ := [name for name in wanted if known[name] != wanted[name]]:
            raise ValueError(
                f"the study in {config.run_dir} has "
                f"{', '.join(f'{name}={known[name]!r}, not {wanted[name]!r}' for name in differ)}: "
                "choose another --run-dir"
            )
    return study


def _started_with(config: TrainConfig) -> SettingValues:
    """Return the settings that all trials of a study share, and the first trial's, as plain values."""
    about = settings_in(type(config.settings))
    settings = {name: value for name, value in vars(config.settings).items() if not about[name].incidental}
    values = {name: getattr(config.run, name) for name in SAME} | settings
    return {name: [*value] if isinstance(value, tuple) else value for name, value in values.items()}


class Search:
    """Runs trials one after the other; other processes may run trials of the same study."""

    def __init__(self, config: TrainConfig, study: "optuna.Study", space: Space) -> None:
        self.config, self.study, self.space = config, study, space
        self.stopped: str | None = None
        self._trainer: Any = None

    @property
    def collecting_since(self) -> float | None:
        """The start of the current collection; None between collections."""
        return getattr(self._trainer, "collecting_since", None)

    def stop(self, why: str, *, skip_slow_work: bool = False) -> None:
        """End the search after the current update."""
        self.stopped = why
        if self._trainer is not None:
            self._trainer.stop(why, skip_slow_work=skip_slow_work)

    @property
    def finished(self) -> "list[optuna.trial.FrozenTrial]":
        """The finished trials of all processes, without those that a signal ended."""
        return [
            trial
            for trial in self.study.trials
            if trial.state.name in {"COMPLETE", "PRUNED"} or ERROR in trial.user_attrs
        ]

    def run(self, trials: int) -> None:
        """Search until the study has this number of finished trials, from all processes."""
        with Bar(total=trials, initial=len(self.finished), unit="trial") as bar:
            while self.stopped is None and len(finished := self.finished) < trials:
                bar.update(len(finished) - bar.n)
                self._try(self.study.ask())
                if values := [trial.value for trial in self.finished if trial.value is not None]:
                    bar.set_description(f"best return {max(values):.1f}", refresh=False)
            bar.update(min(len(self.finished), trials) - bar.n)
        if self.stopped is not None:
            say(f"stopped   {self.stopped}; the same command continues the search")

    def _try(self, trial: "optuna.Trial") -> None:
        """Run a trial, and record how it ended."""
        import optuna
        from optuna.trial import TrialState

        seed = self.config.run.seed + trial.number  # so that processes that start together try different settings
        self.study.sampler = optuna.samplers.TPESampler(seed=seed, multivariate=False)
        try:
            self.study.tell(trial, self._score(trial))
        except optuna.TrialPruned:
            self.study.tell(trial, state=TrialState.PRUNED)
        except Stopped:
            self.study.enqueue_trial(trial.params)
            self.study.tell(trial, state=TrialState.FAIL)
        except Exception as error:
            trial.set_user_attr(ERROR, f"{type(error).__name__}: {error}")
            self.study.tell(trial, state=TrialState.FAIL)
            Bar.note(f"trial {trial.number + 1} failed: {error}")
        else:
            self._save_best()

    def _score(self, trial: "optuna.Trial") -> float:
        """Train; return the mean return of deterministic episodes.

        Raises:
            TrialPruned: the trial is worse than the median of the earlier ones.
            Stopped: a signal was received.
            ValueError: the settings exclude each other, or the return is not finite.
        """
        import optuna

        config = self._config({name: _suggested(trial, name, self.space[name]) for name in self.space})
        reported = 0
        with make_trainer(config, progress=False) as self._trainer, closing(self._trainer.updates()) as rows:
            self._trainer.callbacks += callbacks_of(config.run)
            load_start(self._trainer.agent, config)
            for row in rows:
                if self.stopped is not None:
                    raise Stopped
                point = int(row["steps"] * POINTS / config.run.steps)
                if not reported < point < POINTS:
                    continue
                reported = point
                trial.report(self._evaluate(config, min(EPISODES, config.run.eval_episodes)), point)
                if trial.should_prune():
                    raise optuna.TrialPruned
            if self.stopped is not None:  # a search that is stopped ends its run without a further row
                raise Stopped
            score = self._evaluate(config, config.run.eval_episodes)
        trial.report(score, POINTS)
        return score

    def _evaluate(self, config: TrainConfig, episodes: int) -> float:
        from AsyncPPO import evaluate

        settings = config.run.stepping_arguments() | {"num_envs": config.run.eval_envs or config.run.num_envs}
        seed = config.run.seed + TUNE_SEED
        mean = float(np.mean(evaluate(self._trainer.agent, env_of(config.run), episodes, seed=seed, **settings)))
        if not math.isfinite(mean):
            raise ValueError(f"the mean return is {mean}")
        return mean

    def _save_best(self) -> None:
        """Write the best settings so far as a preset."""
        best, usual = self._config(best_trial(self.finished).params).flat(), train_config(self.config.agent).flat()
        if self.config.run.load_weights:  # then the defaults are the settings of that run: name every setting
            usual = {}
        names = (*PRESET_OF_RUN, *vars(self.config.settings))
        changed = {name: best[name] for name in names if name in self.space or best[name] != usual.get(name, ...)}
        write_json(self.config.run_dir / PRESET_FILE, {"agent": self.config.agent} | changed)

    def _config(self, values: SettingValues) -> TrainConfig:
        """Return the config with the values of a trial; a minibatch is never larger than the batch."""
        if "mini_batch_size" in values:
            values = values | {"mini_batch_size": min(values["mini_batch_size"], values["batch_size"])}
        return self.config.changed(values)

    def report(self) -> int:
        """Print the best trials, and plot the search.

        Raises:
            RuntimeError: every trial failed.
        """
        finished = self.finished
        if all(trial.value is None for trial in finished):
            errors = [trial.user_attrs[ERROR] for trial in finished if ERROR in trial.user_attrs]
            raise RuntimeError(f"no trial was completed; the last failure: {errors[-1] if errors else 'none'}")
        self._save_best()
        run, run_dir = self.config.run, self.config.run_dir
        plot_search(self.study, run_dir / PICTURE_FILE, run.env_id)
        weights = f"--load-weights {run_arguments(run, Path(run.load_weights))} " if run.load_weights else ""
        preset = shlex.quote(str(run_dir / PRESET_FILE))
        say(
            f"{table(finished, [*self.space])}\n"
            f"picture   {run_dir / PICTURE_FILE}\n"
            f"preset    {PROGRAM} {_environment_flags(run)} {weights}--preset {preset}"
        )
        return 0


def _environment_flags(run: RunConfig) -> str:
    """Return the flags with which `train` makes the environment of a run, and its callbacks, which may change it."""
    words = ["--env-id", run.env_id]
    for name, about in settings_in(RunConfig).items():
        value = getattr(run, name)
        if (about.group == "environment" or name == "callback") and name != "env_id" and value:
            words += [flag_of(name), *(value if isinstance(value, tuple) else [])]
    return shlex.join(words)


def best_trial(trials: "Sequence[optuna.trial.FrozenTrial]") -> "optuna.trial.FrozenTrial":
    """Return the trial with the highest return; of equal ones that with the highest mean over its evaluations."""
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    return max(complete, key=lambda trial: (trial.value, np.mean([*trial.intermediate_values.values()])))


def _suggested(trial: "optuna.Trial", name: str, values: LogRange | tuple[Any, ...]) -> Any:
    if isinstance(values, LogRange):
        return trial.suggest_float(name, values.low, values.high, log=True)
    return trial.suggest_categorical(name, values)
