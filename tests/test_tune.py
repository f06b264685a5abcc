"""`tune`: a search for good settings, and the preset that it writes."""

import json
import os
import shlex
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

import AsyncPPO
from AsyncPPO.callbacks import Callback
from parallel_rl import main
from parallel_rl.commands.tune import Search, best_trial
from parallel_rl.commands.tune_report import plot_search, table
from parallel_rl.search_space import SEARCH, LogRange, search_space
from tests.program import Forked, config_from

QUICK = [
    "tune", "--steps", "512", "--num-envs", "4", "--hidden-sizes", "8", "--batch-size", "256", "--eval-episodes", "2",
    "--backend", "inline",
]  # fmt: skip


@pytest.fixture
def optuna(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(SEARCH, "ppo", {"lr": LogRange(1e-4, 1e-2), "k_epochs": (1, 2)})
    return pytest.importorskip("optuna")


class AllAllowed(gym.Wrapper):
    def action_masks(self) -> np.ndarray:
        return np.ones(2, bool)


def tune(directory: Path, *flags: str, trials: int = 3) -> int:
    return main.main([*QUICK, "--run-dir", str(directory), "--trials", str(trials), *flags])


def study_in(directory: Path) -> Any:
    import optuna

    storage = optuna.storages.RDBStorage(f"sqlite:///{directory / 'study.db'}", skip_compatibility_check=True)
    return optuna.load_study(study_name="ppo", storage=storage)


def test_the_study_is_beside_the_runs_of_its_environment(
    optuna: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the id names a module, the directory has no colon."""
    monkeypatch.chdir(tmp_path)
    assert main.main([*QUICK, "--trials", "1", "--env-id", "gymnasium:CartPole-v1"]) == 0
    assert study_in(Path("runs/gymnasium/CartPole-v1/tune_ppo")).trials


@pytest.mark.pictures
def test_the_first_trial_is_the_command_line_and_the_best_becomes_a_preset(
    optuna: Any, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert tune(tmp_path, "--lr", "2e-6", "--k-epochs", "3") == 0
    out = capsys.readouterr().out
    study = study_in(tmp_path)
    first, best = study.trials[0], best_trial(study.trials)
    assert first.params == {"lr": 2e-6, "k_epochs": 3}
    assert {trial.state.name for trial in study.trials} == {"COMPLETE"}
    assert all([*trial.intermediate_values] == [2, 5] for trial in study.trials), "after 256 and 512 steps"
    preset = json.loads((tmp_path / "preset.json").read_text())
    assert preset["agent"] == "ppo"
    assert {name: preset[name] for name in best.params} == best.params
    assert (preset["steps"], preset["num_envs"], preset["hidden_sizes"]) == (512, 4, [8])
    config = config_from(["--preset", str(tmp_path / "preset.json"), "--steps", "1024"])
    assert (config.run.steps, config.settings.lr, config.settings.hidden_sizes) == (1024, best.params["lr"], (8,))
    assert (tmp_path / "search.png").stat().st_size > 10_000
    assert "3 trials complete, 0 pruned, 0 failed" in out
    assert f"--env-id CartPole-v1 --preset {tmp_path / 'preset.json'}" in out


def test_the_command_of_the_preset_is_for_the_same_task_and_settings(
    optuna: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(Search, "_evaluate", lambda self, config, episodes: 1.0)
    wrapper = "tests.test_tune:AllAllowed"
    task = ["--env-kwargs", "render_mode=rgb_array", "--wrapper", wrapper, "--action-masks"]
    before = str(tmp_path / "before")
    assert main.main([*QUICK[1:], *task, "--gamma", "0.5", "--run-dir", before, "--eval-every", "0"]) == 0
    directory = tmp_path / "a study"
    for flags in (task, [*task, "--load-weights", before, "--gamma", "0.99"]):
        capsys.readouterr()
        assert tune(directory, *flags, trials=1) == 0
        _, program, words = capsys.readouterr().out.partition("main.py --env-id")
        config = config_from(shlex.split("--env-id" + words))
        assert program, "a command is printed"
        assert (config.run.env_id, config.run.env_kwargs) == ("CartPole-v1", ("render_mode=rgb_array",))
        assert (config.run.wrapper, config.run.action_masks) == ((wrapper,), True)
        assert config.run.load_weights == (before if "--load-weights" in flags else None)
        assert (config.settings.gamma, config.settings.batch_size) == (0.99, 256)
        directory = tmp_path / "another study"


def test_a_preset_trains_to_the_score_of_its_trial(optuna: Any, tmp_path: Path) -> None:
    assert tune(tmp_path / "study") == 0
    best = best_trial(study_in(tmp_path / "study").trials)
    flags = ["--preset", str(tmp_path / "study" / "preset.json"), "--eval-episodes", "2", "--eval-every", "0"]
    config, trial = config_from(["--preset", flags[1], *QUICK[-4:]]), Fixed(best.params)
    search = Search(config, trial, dict.fromkeys(best.params, ()))  # type: ignore[arg-type]
    assert search._score(trial) == best.value  # type: ignore[arg-type]


def test_trials_are_scored_on_other_episodes_than_those_that_are_reported(
    optuna: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []

    def remembered(evaluate: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, seed, **settings: (seeds.append(seed), evaluate(*args, seed=seed, **settings))[1]

    for name in ("evaluate", "evaluate_episodes"):
        monkeypatch.setattr(AsyncPPO, name, remembered(getattr(AsyncPPO, name)))
    run = str(tmp_path / "run")
    assert tune(tmp_path / "study", trials=1) == 0
    assert main.main([*QUICK[1:], "--run-dir", run, "--eval-every", "0"]) == 0
    assert main.main(["evaluate", run, "--episodes", "2"]) == 0
    *trial, final, reported = seeds
    assert len({*trial}) == 1, "all evaluations of trials have the same episodes"
    assert len({trial[0], final, reported}) == 3


def test_the_same_command_goes_on_and_another_one_is_refused(
    optuna: Any, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert tune(tmp_path, trials=2) == 0
    before = study_in(tmp_path).trials
    assert tune(tmp_path, trials=3) == 0
    assert "2 of 3 trials" in capsys.readouterr().out
    after = study_in(tmp_path).trials
    assert [trial.params for trial in after[:2]] == [trial.params for trial in before]
    assert len(after) == 3
    assert tune(tmp_path, trials=3) == 0, "there is nothing left to do"
    assert len(study_in(tmp_path).trials) == 3
    capsys.readouterr()
    assert tune(tmp_path, "--steps", "600", "--lr", "0.1") == 1
    err = capsys.readouterr().err
    assert f"the study in {tmp_path} has steps=512, not 600, lr=0.001, not 0.1: choose another --run-dir" in err
    assert tune(tmp_path, "--eval-episodes", "3") == 1
    assert "not 3: choose another --run-dir" in capsys.readouterr().err


class Started(Callback):
    """Counts the trials that it is called in, and their updates."""

    trials, updates = 0, 0

    def on_start(self, trainer: Any) -> None:
        Started.trials += 1

    def on_update(self, trainer: Any, metrics: Any) -> None:
        Started.updates += 1


def test_callbacks_and_stops_hold_in_every_trial(optuna: Any, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    Started.trials, Started.updates = 0, 0
    flags = ["--callback", f"{__name__}:Started", "--max-seconds", "1e-9"]
    assert tune(tmp_path, *flags, trials=2) == 0
    assert (Started.trials, Started.updates) == (2, 2), "each trial ends at its first update, not after both"
    assert {trial.state.name for trial in study_in(tmp_path).trials} == {"COMPLETE"}
    capsys.readouterr()
    assert tune(tmp_path, trials=3) == 1
    assert f"has callback=['{__name__}:Started'], not [], max_seconds=1e-09, not None" in capsys.readouterr().err


def test_a_study_of_an_older_version_that_saved_fewer_settings_goes_on(optuna: Any, tmp_path: Path) -> None:
    assert tune(tmp_path, trials=1) == 0
    study = study_in(tmp_path)
    started_with = study.user_attrs["started_with"]
    study.set_user_attr("started_with", {name: started_with[name] for name in started_with if name != "callback"})
    assert tune(tmp_path, trials=2) == 0
    assert tune(tmp_path, "--callback", f"{__name__}:Started", trials=3) == 1


def test_a_failed_trial_is_recorded_and_the_search_goes_on(
    optuna: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    score = Search._score

    def fail(self: Search, trial: Any) -> float:
        if trial.number == 1:
            raise FloatingPointError("the loss is nan")
        return score(self, trial)

    monkeypatch.setattr(Search, "_score", fail)
    assert tune(tmp_path) == 0
    captured = capsys.readouterr()
    assert "trial 2 failed: the loss is nan" in captured.err
    assert "2 trials complete, 0 pruned, 1 failed" in captured.out
    trial = study_in(tmp_path).trials[1]
    assert (trial.state.name, trial.user_attrs["error"]) == ("FAIL", "FloatingPointError: the loss is nan")
    monkeypatch.setattr(Search, "_score", lambda self, trial: 1 / 0)
    assert tune(tmp_path / "none", trials=2) == 1
    assert "error: no trial was completed; the last failure: ZeroDivisionError" in capsys.readouterr().err


def test_bad_trials_are_pruned(optuna: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([*range(10, 20), 1.0])  # two of each of five trials, then of a bad one
    monkeypatch.setattr(Search, "_evaluate", lambda self, config, episodes: float(next(scores)))
    assert tune(tmp_path, trials=6) == 0
    assert [trial.state.name for trial in study_in(tmp_path).trials] == ["COMPLETE"] * 5 + ["PRUNED"]


def test_a_minibatch_is_at_most_the_batch() -> None:
    config = config_from(["--batch-size", "4096", "--mini-batch-size", "4096"])
    values = {"batch_size": 512, "mini_batch_size": 4096}
    assert Search(config, None, {})._config(values).settings.mini_batch_size == 512  # type: ignore[arg-type]


def test_of_equal_trials_the_one_that_was_better_before_is_the_best(optuna: Any) -> None:
    from optuna.trial import create_trial

    def trial(value: float, before: float) -> Any:
        return create_trial(value=value, intermediate_values={1: before, 5: value})

    trials = [
        trial(500.0, 80.0),
        trial(500.0, 100.0),
        trial(499.0, 499.0),
        create_trial(state=optuna.trial.TrialState.FAIL),
    ]
    assert best_trial(trials) is trials[1]


def test_the_report_counts_trials_from_one_to_the_last(optuna: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from optuna.trial import TrialState, create_trial

    study = optuna.create_study(direction="maximize")
    for value in (3.0, 7.0, 5.0):
        study.add_trial(create_trial(value=value, intermediate_values={5: value}))
    study.add_trial(create_trial(state=TrialState.PRUNED, intermediate_values={1: 2.0}))
    study.add_trial(create_trial(state=TrialState.FAIL))
    study.enqueue_trial({})
    figures: list[Any] = []
    monkeypatch.setattr("parallel_rl.utils.plots.save_figure", lambda figure, path: figures.append(figure))
    plot_search(study, Path("search.png"), "a search")
    pruned, complete, best = (line.get_xydata().tolist() for line in figures[0].axes[0].lines)
    assert (pruned, complete) == ([[4, 2]], [[1, 3], [2, 7], [3, 5]])
    assert best == [[1, 3], [2, 7], [3, 7], [5, 7]], "to the last trial that has ended"
    assert [row.split()[0] for row in table(study.trials, []).splitlines()[1:4]] == ["2", "3", "1"]


def test_two_processes_share_a_study(optuna: Any, tmp_path: Path) -> None:
    arguments = [*QUICK, "--run-dir", "here", "--trials", "4"]
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "here").symlink_to(tmp_path)
    processes = [Forked(*arguments, cwd=tmp_path / name) for name in ("one", "other")]
    for process in processes:
        code, _, err = process.finish()
        assert code == 0, err
    trials = study_in(tmp_path).trials
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "PRUNED"}
    assert 4 <= len(trials) <= 5, "each looks for what is left before it begins a trial"
    assert len({trial.params["lr"] for trial in trials}) == len(trials), "they do not try the same"


def test_ctrl_c_leaves_a_study_that_goes_on_and_no_process(optuna: Any, tmp_path: Path) -> None:
    long = ["--steps", "100000000", "--backend", "process", "--num-workers", "2", "--run-dir", "here"]
    process = Forked(*QUICK, *long, cwd=tmp_path)
    process.wait_for(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text)  # a trial has begun
    process.send(signal.SIGINT)
    code, out, err = process.finish()  # waits for the workers, too
    assert code == main.INTERRUPTED, err
    assert "the same command continues the search" in out
    assert "SIGINT: ending this trial (once more: leaving at once)" in err
    assert "nan" not in err
    assert "Traceback" not in err
    first, again = study_in(tmp_path / "here").trials
    assert (first.state.name, again.state.name) == ("FAIL", "WAITING")
    assert again.system_attrs["fixed_params"] == first.params, "it is to be tried again"


def test_a_signal_during_an_evaluation_ends_the_trial_without_a_score(
    optuna: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = Search._evaluate

    def interrupted(self: Search, config: Any, episodes: int) -> float:
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(self, config, episodes)

    monkeypatch.setattr(Search, "_evaluate", interrupted)
    assert tune(tmp_path) == 128 + signal.SIGTERM
    first, again = study_in(tmp_path).trials
    assert (first.state.name, again.state.name) == ("FAIL", "WAITING")
    assert [*first.intermediate_values] == [2], "it was stopped after half of its steps"
    assert not (tmp_path / "preset.json").exists()


def test_a_damaged_study_is_one_error(optuna: Any, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "study.db").write_bytes(b"this is no database" * 100)
    assert tune(tmp_path) == 1
    assert f"error: {tmp_path / 'study.db'} cannot be read or written" in capsys.readouterr().err
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("create table studies (x int)")
    os.replace(tmp_path / "other.db", tmp_path / "study.db")
    assert tune(tmp_path) == 1
    assert f"error: {tmp_path / 'study.db'} cannot be read or written" in capsys.readouterr().err


def test_without_optuna_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert tune(tmp_path / "none") == 1
    err = capsys.readouterr().err
    assert "optuna" in err
    assert "(pip install 'parallel-rl[tune]', or -r requirements-tune.txt in a checkout)" in err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (["--trials", "0"], 1, "trials must be at least 1, not 0"),
        (["--copies", "2"], 1, "tune trains single agents: without --copies"),
        (["--track", "mlflow"], 1, "tune reports no trials: without --track"),
        (["--callback", "tests.test_tune:Nothing"], 1, "no callback 'tests.test_tune:Nothing'"),
        (["--env-id", "Nothing-v0"], 1, "Nothing"),
        (["--agent", "sac", "--companions", "rnd"], 2, "--companions is a flag of the agent ppo, not of sac"),
    ],
)
def test_bad_flags_are_an_error_before_the_first_trial(
    flags: list[str], status: int, message: str, optuna: Any, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main.main(["tune", "--run-dir", str(tmp_path / "run"), *flags]) == status
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"gama": 0.9}, "a preset of ppo has no setting 'gama': did you mean 'gamma'?"),
        ({"env_id": "my.module:Env"}, "a preset of ppo has no setting 'env_id'"),
        ({"tau": 0.1}, "a preset of ppo has no setting 'tau'"),
        ({"lr": "fast"}, "lr must be a number, not 'fast'"),
        ({"lr": -1.0}, "lr must be positive and finite, not -1.0"),
        ({"agent": "sac"}, "is of the agent 'sac', not 'ppo'"),
        ([1], "preset.json"),
    ],
)
def test_a_bad_preset_is_one_error_that_names_the_culprit(
    content: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "preset.json").write_text(json.dumps(content))
    flags = ["--agent", "ppo", "--preset", str(tmp_path / "preset.json"), "--run-dir", str(tmp_path / "run")]
    assert main.main(flags) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
    assert not (tmp_path / "run").exists()


def test_a_preset_replaces_that_of_the_environment_and_flags_replace_its_values(tmp_path: Path) -> None:
    (tmp_path / "preset.json").write_text('{"agent": "sac", "lr": 0.01, "gamma": 0.5}')
    config = config_from(["--env-id", "Pendulum-v1", "--preset", str(tmp_path / "preset.json"), "--gamma", "0.6"])
    assert (config.agent, config.settings.lr, config.settings.gamma) == ("sac", 0.01, 0.6)
    assert config.settings.hidden_sizes == (256, 256), "the default, not the environment's preset"


@pytest.mark.parametrize("agent", SEARCH)
def test_what_is_tried_is_valid_and_has_the_start(agent: str) -> None:
    config = config_from(["--agent", agent, "--env-id", "CartPole-v1", "--lr", "0.5", "--gamma", "0.123"])
    space = search_space(agent, config.flat(), spaces.Box(-1, 1))
    assert space["lr"] == LogRange(1e-5, 0.5)
    assert 0.123 in space["gamma"]
    for name, values in space.items():
        for value in values:
            config.changed({name: value, "batch_size": 4096} if name == "mini_batch_size" else {name: value})


@pytest.mark.parametrize(
    ("actions", "searched"),
    [
        (spaces.Discrete(2), False),
        (spaces.Box(-1, 1), True),
        (spaces.Dict({"gear": spaces.Discrete(2), "wheel": spaces.Box(-1, 1)}), True),
    ],
)
def test_the_deviation_of_actions_is_searched_if_some_are_continuous(actions: spaces.Space, searched: bool) -> None:
    space = search_space("ppo", config_from([]).flat(), actions)
    assert ("log_std" in space) is searched
    assert "lr" in space


class Fixed:
    """A trial with given settings, like `optuna.trial.FixedTrial`, which is never pruned."""

    number = 0

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params

    def suggest_float(self, name: str, *_: Any, **__: Any) -> Any:
        return self.params[name]

    suggest_categorical = suggest_float

    def report(self, value: float, step: int) -> None:
        pass

    def should_prune(self) -> bool:
        return False
