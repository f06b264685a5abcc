"""`train --copies`: a population on the command line."""

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from AsyncPPO.callbacks import CSVLog, StopAtReturn, read_table
from AsyncPPO.episodes import Episode, Evaluation
from parallel_rl import main
from parallel_rl.commands.copies import PopulationRun, make_population
from parallel_rl.commands.program import PROGRAM
from Population import Trainer
from Population.schedule import Count
from tests.AsyncPPO.test_callbacks import scalars
from tests.covering import rest_slow
from tests.envs import Hanging
from tests.processes import runs
from tests.program import Forked, config_from

QUICK = [
    "--copies", "2", "--combine-every", "64", "--num-envs", "4", "--batch-size", "64", "--mini-batch-size", "32",
    "--hidden-sizes", "8", "--k-epochs", "1", "--eval-episodes", "2",
]  # fmt: skip


def train(directory: Path, *flags: str) -> int:
    return main.main([*QUICK, "--run-dir", str(directory), *flags])


def weights(directory: Path) -> dict[str, torch.Tensor]:
    from PPO import PPO

    return PPO.load(directory).policy.state_dict()


def test_a_population_is_logged_evaluated_and_plotted_like_a_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = tmp_path / "run"
    assert train(run, "--steps", "192", "--eval-every", "64", "--combine", "best") == 0
    rows = read_table(run / "metrics.csv")
    assert [row["steps"] for row in rows] == [64, 128, 192], "of one copy"
    assert all(row["mean_return"] == max(row["copy_0_return"], row["copy_1_return"]) for row in rows)
    evaluations = read_table(run / "evaluations.csv", ("steps", "mean"))
    assert evaluations[-1]["steps"] == 192
    summary = json.loads((run / "summary.json").read_text())
    assert summary["best"]["mean"] == max(row["mean"] for row in evaluations)
    assert summary["evaluation"]["steps"] == 192
    told = scalars(run)
    assert told["rollout/ep_rew_mean"] == [(row["steps"], pytest.approx(row["mean_return"])) for row in rows]
    assert [step for step, _ in told["eval/mean_reward"]] == [row["steps"] for row in evaluations]
    assert main.main(["plot", str(run), "--out", str(tmp_path / "curves.png")]) == 0
    assert main.main(["evaluate", str(run), "--best", "--episodes", "2"]) == 0
    flags = "--steps", "128", "--combine-every", "128", "--eval-every", "0", "--combine", "mean"
    assert train(tmp_path / "none", *flags) == 0
    assert not (tmp_path / "none" / "best").exists()
    (row,) = read_table(tmp_path / "none" / "metrics.csv")  # two updates of each copy, and one combination
    assert row["mean_return"] == pytest.approx((row["copy_0_return"] + row["copy_1_return"]) / 2)


def test_copies_learn_while_they_collect(tmp_path: Path) -> None:
    assert train(tmp_path / "run", "--steps", "192", "--eval-every", "0", "--lag", "1") == 0
    for copy in ("copy_0", "copy_1"):
        rows = read_table(tmp_path / "run" / copy / "metrics.csv")
        assert [row["policy_lag"] for row in rows] == [0, 1]


@pytest.mark.parametrize(
    ("agent", "env_id", "combine"),
    [
        pytest.param("dqn", "CartPole-v1", "mean", marks=pytest.mark.slow),
        ("dqn", "CartPole-v1", "explore"),
        ("sac", "Pendulum-v1", "best"),
    ],
)
def test_off_policy_agents_are_copied_too(agent: str, env_id: str, combine: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    flags = [
        "--agent", agent, "--env-id", env_id, "--combine", combine, "--copies", "2", "--combine-every", "1000",
        "--steps", "1200", "--num-envs", "4", "--hidden-sizes", "8", "--batch-size", "8", "--utd", "0.02",
        "--eval-episodes", "2", "--eval-every", "0", "--run-dir", str(run),
    ]  # fmt: skip
    assert main.main(flags) == 0
    assert len(read_table(run / "metrics.csv")) == 2, "a row after at least 1000 steps, and one at the end"
    assert main.main(["evaluate", str(run), "--episodes", "2"]) == 0


@pytest.mark.pictures
@pytest.mark.parametrize("combine", rest_slow("explore", "mean", "best"))
def test_copies_are_combined_evaluated_and_have_a_curve_each(
    combine: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert train(tmp_path / "run", "--combine", combine, "--steps", "192") == 0
    out = capsys.readouterr().out
    assert "2 copies with 4 environments each" in out
    assert "over 2 deterministic episodes" in out
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["steps"], summary["evaluation"]["episodes"]) == (192, 2)
    assert (tmp_path / "run" / "learning_curve.png").stat().st_size > 10_000
    for number in (0, 1):
        rows = read_table(tmp_path / "run" / f"copy_{number}" / "metrics.csv")
        assert [row["steps"] for row in rows] == [64, 128, 192]
    assert out.splitlines()[-1].endswith(f"main.py --load-weights {tmp_path / 'run'} --steps 192")
    assert main.main(["evaluate", str(tmp_path / "run"), "--episodes", "2"]) == 0
    assert train(tmp_path / "run", "--steps", "192") == 1
    assert "holds a run already" in capsys.readouterr().err


def test_a_stopped_population_resumes_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    flags = ("--steps", "128", "--combine", "mean", "--eval-every", "0")
    assert train(tmp_path / "whole", *flags) == 0
    report = PopulationRun.__call__

    def interrupt(self: PopulationRun, trainer: object) -> None:
        if trainer.count.steps == 128:  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGTERM)
        report(self, trainer)  # type: ignore[arg-type]

    monkeypatch.setattr(PopulationRun, "__call__", interrupt)
    assert train(tmp_path / "half", *flags) == 128 + signal.SIGTERM
    assert f"main.py resume {tmp_path / 'half'}" in capsys.readouterr().out
    monkeypatch.undo()
    assert main.main(["resume", str(tmp_path / "half"), "--cluster", "local", "--nodes", "2"]) == 1
    assert "a run with copies trains on one rank: without --cluster" in capsys.readouterr().err
    assert main.main(["resume", str(tmp_path / "half")]) == 0
    whole, halves = weights(tmp_path / "whole"), weights(tmp_path / "half")
    for name, tensor in whole.items():
        torch.testing.assert_close(halves[name], tensor, rtol=0, atol=0)
    one, other = (read_table(tmp_path / name / "copy_1" / "metrics.csv") for name in ("whole", "half"))
    assert [row["policy_loss"] for row in one] == [row["policy_loss"] for row in other]
    one, other = (read_table(tmp_path / name / "metrics.csv") for name in ("whole", "half"))
    assert [(row["steps"], row["mean_return"]) for row in one] == [(row["steps"], row["mean_return"]) for row in other]
    assert main.main(["resume", str(tmp_path / "half"), "--steps", "100"]) == 1
    as_it_was = "a run with copies resumes as it was, without --steps; .* its weights: --load-weights .*half"
    assert re.search(as_it_was, capsys.readouterr().err)
    assert main.main(["resume", str(tmp_path / "whole")]) == 1
    assert "has no saved state: the run is complete" in capsys.readouterr().err


@pytest.mark.parametrize("signaled", [False, True])
def test_a_complete_population_cannot_be_resumed(
    signaled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    report = PopulationRun.__call__

    def report_and_interrupt(self: PopulationRun, trainer: object) -> None:
        report(self, trainer)  # type: ignore[arg-type]
        assert (tmp_path / "population.state").exists(), "it is saved at each report"
        if signaled and trainer.count.steps == 256:  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(PopulationRun, "__call__", report_and_interrupt)
    flags = ("--steps", "128", "--eval-every", "0", "--checkpoint-seconds", "1e-9")
    assert train(tmp_path, *flags) == (128 + signal.SIGTERM if signaled else 0)
    assert (f"to evaluate: {PROGRAM} evaluate {tmp_path}" in capsys.readouterr().out) is signaled
    assert main.main(["resume", str(tmp_path)]) == 1
    assert "has no saved state: the run is complete" in capsys.readouterr().err


@pytest.mark.parametrize(("combine", "full"), [("best", 1), ("mean", 2)])
def test_a_target_return_is_of_100_episodes_of_each_copy_that_counts(combine: str, full: int, tmp_path: Path) -> None:
    large = ["--batch-size", "512", "--combine-every", "512", "--num-envs", "8", "--k-epochs", "1"]
    flags = ["--steps", "1000000", "--target-return", "5", "--combine", combine, "--eval-every", "0"]
    assert train(tmp_path, *large, *flags) == 0
    rows = read_table(tmp_path / "metrics.csv")
    assert json.loads((tmp_path / "summary.json").read_text())["stopped"].startswith("at a mean return of ")
    copies = [read_table(tmp_path / f"copy_{number}" / "metrics.csv") for number in (0, 1)]
    assert sum(copy[-1]["episodes"] >= 100 for copy in copies) >= full
    assert min(copy[-2]["episodes"] for copy in copies) < 100, "it stops at once"
    assert rows[0]["mean_return"] > 5, "a few episodes would have reached it"


@pytest.mark.parametrize(
    ("saved", "stops"), [([], True), ([[9.0] * 50, [9.0] * 100], True), ([[9.0] * 100, [9.0] * 100], False)]
)
def test_a_resumed_population_stops_at_its_target_unless_it_had_reached_it(
    saved: list[list[float]], stops: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_from([*QUICK, "--run-dir", str(tmp_path), "--combine", "mean"])
    target, trainer = StopAtReturn(5.0), make_population(config)
    monkeypatch.setattr(Trainer, "returns", saved)
    population: Any = PopulationRun(config, trainer, [target], Count())
    population.history.append({"steps": 64, "mean_return": 9.0})
    target.on_start(population)
    assert trainer.stopped is None
    monkeypatch.setattr(Trainer, "returns", [[9.0] * 100, [9.0] * 100])
    target.on_update(population, {})
    assert bool(trainer.stopped) == stops


def test_an_evaluation_that_reaches_the_target_return_stops_the_copies(tmp_path: Path) -> None:
    config = config_from([*QUICK, "--run-dir", str(tmp_path)])
    target, trainer = StopAtReturn(9.0), make_population(config)
    population = PopulationRun(config, trainer, [target], Count())
    target.on_start(population)  # type: ignore[arg-type]
    for mean in (8.0, 9.5):
        assert trainer.stopped is None
        population.add_evaluation(Evaluation.of(64, [Episode(mean, 10)]))
    assert trainer.stopped == "at an evaluation's mean return of 9.5"


def test_a_time_limit_stops_copies_and_counts_from_each_resume(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert train(tmp_path, "--steps", "100000000", "--max-seconds", "0.1") == 0
    first = json.loads((tmp_path / "summary.json").read_text())
    assert first["stopped"] == "after 0.1 seconds"
    assert first["evaluation"] is not None
    assert f"to continue: {PROGRAM} resume {tmp_path}\n" in capsys.readouterr().out
    assert main.main(["resume", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "summary.json").read_text())["steps"] > first["steps"]


def test_copies_of_a_seed_that_lack_their_evaluation_are_evaluated(tmp_path: Path) -> None:
    flags = ("--steps", "64", "--seeds", "3", "--eval-every", "0")
    assert train(tmp_path, *flags) == 0
    file = tmp_path / "seed_3" / "summary.json"
    summary = json.loads(file.read_text())
    file.write_text(json.dumps(summary | {"evaluation": None}))
    assert train(tmp_path, *flags) == 0
    assert json.loads(file.read_text()) == summary


def test_an_environment_that_hangs_in_a_copy_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(gym.registry, "Hanging-v0", gym.envs.registration.EnvSpec("Hanging-v0", Hanging))
    flags = ["--env-id", "Hanging-v0", "--step-timeout", "0.3", "--close-timeout", "0.1", "--eval-every", "0"]
    assert train(tmp_path, *flags) == 1
    err = capsys.readouterr().err
    assert re.search(r"member \d failed", err)
    assert "hung: a step, reset or call has taken more than 0.3 seconds" in err


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--callback", "a:B"], "--callback"),
        (["--track", "wandb"], "--track"),
        (["--backend", "vector", "--callback", "a:B"], "--callback and --backend vector"),
    ],
)
def test_what_copies_cannot_do_is_an_error_that_names_the_flags(
    flags: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert train(tmp_path / "run", *flags) == 1
    assert capsys.readouterr().err.endswith(f"error: --copies works only without {named}\n")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("others", [[], ["--copies", "1"], ["--seeds", "0..1"]])
@pytest.mark.parametrize("flag", ["--combine=best", "--combine-every=100"])
def test_how_to_combine_a_single_agent_is_an_error(
    flag: str, others: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main.main([flag, *others, "--steps", "100", "--run-dir", str(tmp_path / "run")]) == 1
    name = flag.partition("=")[0]
    assert capsys.readouterr().err == f"error: {name} has no effect with copies=1\n"
    assert not (tmp_path / "run").exists()


def test_what_is_usual_may_be_said_of_a_single_agent() -> None:
    assert config_from(["--copies", "1", "--combine", "mean", "--combine-every", "1024"]).run.copies == 1


def test_a_full_disk_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("Population.trainer.save_state", full)
    assert train(tmp_path / "run", "--steps", "256", "--checkpoint-seconds", "0.001") == 1
    err = capsys.readouterr().err
    assert "error: [Errno 28] No space left on device" in err
    assert "Traceback" not in err


def test_ctrl_c_saves_and_leaves_no_process(tmp_path: Path) -> None:
    flags = ["--steps", "100000000", "--run-dir", "here", "--checkpoint-seconds", "0.1"]
    program = Forked(*QUICK, *flags, cwd=tmp_path)
    program.wait_for((tmp_path / "here" / "population.state").exists)
    children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
    program.send(signal.SIGINT, to_group=True)
    code, out, err = program.finish()
    assert code == main.INTERRUPTED, err
    assert "main.py resume here" in out
    assert "Traceback" not in err
    assert not any(runs(int(child)) for child in children)
    assert len(read_table(tmp_path / "here" / "copy_0" / "metrics.csv")) > 0
    assert np.isfinite(json.loads((tmp_path / "here" / "summary.json").read_text())["steps"])


@pytest.mark.parametrize("copies", ["2", "1"])
def test_ctrl_c_while_a_run_is_made_is_told_and_leaves_nothing(
    copies: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("PPO.PPO.for_env", interrupted)
    flags = ["--copies", copies, "--combine-every", "1024"]
    assert train(tmp_path / "run", *flags) == main.INTERRUPTED
    assert capsys.readouterr().out.endswith("stopped   before the first step\n")
    assert not (tmp_path / "run").exists()


def test_ctrl_c_before_the_first_step_of_copies_leaves_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def interrupted(self: CSVLog, trainer: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(CSVLog, "on_start", interrupted)
    assert train(tmp_path / "run", "--steps", "128") == main.INTERRUPTED
    assert f"stopped   by SIGINT; to continue: {PROGRAM} resume {tmp_path / 'run'}\n" in capsys.readouterr().out
    monkeypatch.undo()
    assert main.main(["resume", str(tmp_path / "run")]) == 0


@pytest.mark.parametrize("copies", rest_slow("2", "1"))
def test_ctrl_c_in_the_final_evaluation_says_how_to_evaluate(
    copies: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("AsyncPPO.evaluate_episodes", interrupted)
    assert train(tmp_path / "run", "--steps", "128", "--copies", copies, "--combine-every", "1024") == main.INTERRUPTED
    assert f"to evaluate: {PROGRAM} evaluate {tmp_path / 'run'}" in capsys.readouterr().out
    monkeypatch.undo()
    assert main.main(["evaluate", str(tmp_path / "run"), "--episodes", "1"]) == 0
