"""Trackers and custom callbacks on the command line; stand-ins replace the trackers' libraries."""

import json
import math
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest

from AsyncPPO.callbacks import (
    Callback,
    Checkpoints,
    Evaluation,
    MLflow,
    WeightsAndBiases,
    checkpoints_in,
    steps_of,
)
from parallel_rl import main

QUICK = ["--steps", "600", "--num-envs", "2", "--batch-size", "256", "--k-epochs", "1", "--eval-episodes", "2"]
QUICK += ["--backend", "inline", "--eval-every", "0"]


class Recorder(list):
    """Records calls: `recorder.name(...)` appends `(name, arguments, keywords)`."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any, **kwargs: Any) -> "Recorder":
            self.append((name, args, kwargs))
            return self

        return call


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    for name in ("wandb", "mlflow"):
        module: Any = ModuleType(name)
        module.__getattr__ = recorder.__getattr__
        monkeypatch.setitem(sys.modules, name, module)
    return recorder


class Mine(Callback):
    """Counts the calls of its methods."""

    told: list[str] = []  # noqa: RUF012  # shared by all on purpose

    def on_start(self, trainer: Any) -> None:
        self.told.append("start")

    def on_evaluation(self, trainer: Any, evaluation: Evaluation) -> None:
        self.told.append("evaluation")

    def on_end(self, trainer: Any) -> None:
        self.told.append("end")


@pytest.mark.parametrize(
    ("tracker", "names", "settings"),
    [
        ("wandb", ["init", "log", "log", "finish"], lambda calls: calls[0][2]["config"]),
        ("mlflow", ["start_run", "log_params", "log_metrics", "log_metrics", "end_run"], lambda calls: calls[1][1][0]),
    ],
)
def test_a_run_of_the_command_line_is_reported(
    tracker: str, names: list[str], settings: Any, calls: Recorder, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert main.main([*QUICK, "--lr", "0.25", "--track", tracker, "--run-dir", str(run)]) == 0
    assert [name for name, _, _ in calls] == names
    known = settings(calls)
    assert (known["agent"], known["env_id"], known["lr"]) == ("ppo", "CartPole-v1", 0.25)
    assert str(run) in calls[0][2].values()
    _, (metrics,), keywords = calls[-2]
    assert keywords == {"step": metrics["steps"]}
    assert {"mean_return", "lr", "policy_loss"} <= metrics.keys()
    assert calls[-1][2] in ({"exit_code": 0}, {"status": "FINISHED"})
    assert main.main(["resume", str(run), "--steps", "300"]) == 0
    assert calls[len(names)][0] == names[0], "a further run"


@pytest.mark.parametrize("tracker", ["wandb", "mlflow"])
def test_the_last_evaluation_is_reported_before_the_tracker_and_ones_own_callbacks_end(
    tracker: str, calls: Recorder, tmp_path: Path
) -> None:
    Mine.told.clear()
    flags = ["--eval-every", "1000000", "--callback", f"{__name__}:Mine", "--run-dir", str(tmp_path / "run")]
    assert main.main([*QUICK, "--track", tracker, *flags]) == 0
    (_, (reported,), _), (end, _, _) = calls[-2:]
    assert reported["eval/steps"] == json.loads((tmp_path / "run" / "summary.json").read_text())["steps"]
    assert end in {"finish", "end_run"}
    assert Mine.told == ["start", "evaluation", "end"]


def test_evaluations_and_faults_are_reported_and_numbers_that_are_none_are_not(calls: Recorder) -> None:
    for kind, name, step in ((WeightsAndBiases, "log", 40), (MLflow, "log_metrics", 20)):
        callback = kind({"lr": 1})
        trainer: Any = SimpleNamespace(steps_done=40, error=ValueError())
        callback.on_start(trainer)
        callback.on_update(trainer, {"steps": 30, "mean_return": math.nan, "lr": 0.5})
        assert calls[-1] == (name, ({"steps": 30, "lr": 0.5},), {"step": 30})
        callback.on_evaluation(trainer, Evaluation(20, 5, 1.0, 0.0, 1.0, 1.0))
        assert calls[-1][0] == name
        assert calls[-1][1][0]["eval/mean"] == 1.0
        assert calls[-1][2] == {"step": step}
        callback.on_end(trainer)
        assert calls[-1][2] in ({"exit_code": 1}, {"status": "FAILED"})


def test_a_tracker_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert main.main([*QUICK, "--track", "wandb", "--run-dir", str(tmp_path / "run")]) == 1
    assert "error: wandb is not installed: pip install wandb" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main.main([*QUICK, "--track", "mlflow", "--copies", "2", "--run-dir", str(tmp_path / "run")]) == 1
    assert "error: --copies works only without --track" in capsys.readouterr().err


def test_callbacks_of_ones_own_join_a_run_and_need_trust_afterwards(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    Mine.told.clear()
    run = str(tmp_path / "run")
    assert main.main([*QUICK, "--callback", f"{__name__}:Mine", "--run-dir", run]) == 0
    assert Mine.told == ["start", "end"]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["run"]["callback"] == [f"{__name__}:Mine"]
    assert "--trust-env-module" in capsys.readouterr().out
    assert main.main(["resume", run, "--steps", "300"]) == 1
    assert f"names the module {__name__}, which would be imported" in capsys.readouterr().err
    assert main.main(["resume", run, "--steps", "300", "--trust-env-module"]) == 0
    assert Mine.told == ["start", "end"] * 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Mine", "a callback is MODULE:CLASS, not 'Mine'"),
        (
            "nowhere:Mine",
            "no callback 'nowhere:Mine': no module 'nowhere': it is neither installed nor in the current directory",
        ),
        (
            "broken_callbacks:Mine",
            "no callback 'broken_callbacks:Mine': the module 'broken_callbacks' cannot be imported: ZeroDivisionError",
        ),
        (
            "json:dumps",
            "the callback 'json:dumps' cannot be made without arguments (missing a required argument: 'obj'): name a f",
        ),
        ("collections:OrderedDict", "made OrderedDict(), which is not an AsyncPPO.callbacks.Callback"),
    ],
)
def test_a_callback_that_cannot_be_is_named(
    name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_callbacks.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    assert main.main([*QUICK, "--callback", name, "--run-dir", str(tmp_path / "run")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


class Fails(Callback):
    def on_update(self, trainer: Any, metrics: dict[str, float]) -> None:
        self.fail(metrics)

    def fail(self, metrics: Any) -> None:
        metrics["no_such"] += 1


class Disagrees(Callback):
    def on_rollout(self, trainer: Any, steps: int) -> None:  # type: ignore[override]
        """Be called with too many arguments."""


class Doubts(Callback):
    def on_end(self, trainer: Any) -> None:
        assert trainer.steps_done < 0, "first line\nsecond line"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Fails", r"failed in on_update: KeyError: 'no_such' \(test_tracking\.py, line \d+\)\n"),
        ("Disagrees", r"failed in on_rollout: TypeError: .*takes 3 positional arguments but 4 were given\n"),
        ("Doubts", r"failed in on_end: AssertionError: first line \(test_tracking\.py, line \d+\)\n"),
    ],
)
def test_an_error_in_a_callback_is_one_line_that_names_its_place(
    name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main.main([*QUICK, "--callback", f"{__name__}:{name}", "--run-dir", str(tmp_path / "run")]) == 1
    assert re.search(rf"^error: the callback {__name__}:{name} {message}\Z", capsys.readouterr().err, re.MULTILINE)


class Returns(Callback):
    def on_update(self, trainer: Any, metrics: dict[str, float]) -> Any:
        return False


def test_a_callback_of_the_command_line_that_returns_false_is_an_error_as_in_a_script(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main.main([*QUICK, "--callback", f"{__name__}:Returns", "--run-dir", str(tmp_path / "run")]) == 1
    assert "error: Returns.on_update returned False, which has no effect" in capsys.readouterr().err


class Witness(Callback):
    """Remembers which checkpoint was the newest at each evaluation."""

    newest: ClassVar[list[int]] = []

    def on_evaluation(self, trainer: Any, evaluation: Evaluation) -> None:
        (directory,) = [each.directory for each in trainer.callbacks if isinstance(each, Checkpoints)]
        self.newest.extend(map(steps_of, checkpoints_in(directory)[-1:]))


def test_a_run_is_saved_before_its_last_evaluation(tmp_path: Path) -> None:
    Witness.newest.clear()
    flags = ["--eval-every", "1000000", "--callback", f"{__name__}:Witness", "--run-dir", str(tmp_path / "run")]
    assert main.main([*QUICK, *flags]) == 0
    assert Witness.newest == [json.loads((tmp_path / "run" / "summary.json").read_text())["steps"]]
