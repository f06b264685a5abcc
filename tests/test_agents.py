"""The command line trains any registered agent, such as the toy agent."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from AsyncPPO.callbacks import read_table
from parallel_rl import main
from parallel_rl.agents import AGENTS, AgentKind
from parallel_rl.commands.build import agent_of
from parallel_rl.commands.run_directory import config_of
from parallel_rl.presets import PRESETS, Presets
from parallel_rl.utils import Config, setting
from tests.program import config_from
from tests.toy_agent import ToyAgent


@dataclass(frozen=True)
class ToySettings(Config):
    lr: float = setting(0.5, "Step size of the toy.", above=0, most=1)
    gamma: float = setting(0.9, "Discount of the reward.", least=0, most=1)
    epsilon: float = setting(0.5, "Share of random actions.", least=0, most=1)
    learning_starts: int = setting(200, "Transitions before the first update.", least=1)


class Toy(ToyAgent):
    @classmethod
    def for_env(cls, env: Any, **settings: Any) -> "Toy":
        return cls(states=int(env.observation_space.n), actions=int(env.action_space.n), **settings)


LAKE = ["--agent", "toy", "--env-id", "FrozenLake-v1", "--env-kwargs", "is_slippery=false", "--backend", "inline"]
QUICK = ["--num-envs", "4", "--eval-episodes", "2", "--eval-every", "0"]


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = AgentKind(ToySettings, Toy, weights="q.json", defaults={"gamma": 0.95})
    monkeypatch.setitem(AGENTS, "toy", kind)
    monkeypatch.setitem(PRESETS, "toy", Presets({"Taxi-v4": {"epsilon": 0.125, "steps": 7}}))


def tables(run_dir: Path) -> Iterator[dict[str, float]]:
    for row in read_table(run_dir / "metrics.csv"):
        yield {name: value for name, value in row.items() if name != "seconds" and not np.isnan(value)}


def test_an_agent_is_trained_resumed_and_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert main.main([*LAKE, *QUICK, "--steps", "4000", "--run-dir", str(whole)]) == 0
    assert main.main([*LAKE, *QUICK, "--steps", "2000", "--run-dir", str(halves)]) == 0
    assert main.main(["resume", str(halves), "--steps", "2000"]) == 0
    assert [row["steps"] for row in tables(halves)][-1] == 4_000
    capsys.readouterr()
    assert main.main(["evaluate", str(whole), "--episodes", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["returns"] == [1.0] * 3
    record = json.loads((whole / "config.json").read_text())
    assert record["agent"] == "toy"
    assert record["settings"] == {"lr": 0.5, "gamma": 0.95, "epsilon": 0.5, "learning_starts": 200}
    assert record["run"]["env_id"] == "FrozenLake-v1"
    assert main.main(["export", str(whole)]) == 1
    assert "error: the agent 'toy' cannot be exported" in capsys.readouterr().err


def test_a_killed_run_is_evaluated_from_its_newest_checkpoint(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert main.main([*LAKE, *QUICK, "--steps", "1000", "--run-dir", str(run_dir)]) == 0
    expected = agent_of(run_dir)[1].q
    (run_dir / "q.json").unlink()
    np.testing.assert_array_equal(agent_of(run_dir)[1].q, expected)
    assert expected.any()


def test_weights_of_a_run_are_loaded_with_its_agent_and_settings(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert main.main([*LAKE, *QUICK, "--steps", "1000", "--epsilon", "0.25", "--run-dir", str(first)]) == 0
    assert main.main(["--load-weights", str(first), "--run-dir", str(second)]) == 0
    assert (config_of(second).agent, config_of(second).settings) == ("toy", config_of(first).settings)
    capsys.readouterr()
    assert main.main(["--agent", "ppo", "--load-weights", str(first)]) == 1
    assert f"the weights in {first} are of the agent 'toy', not 'ppo'" in capsys.readouterr().err


def test_flags_defaults_presets_and_help_are_those_of_the_agent(capsys: pytest.CaptureFixture) -> None:
    config = config_from(["--agent", "toy", "--env-id", "Taxi-v4", "--lr", "0.25"])
    assert vars(config.settings) == {"lr": 0.25, "gamma": 0.95, "epsilon": 0.125, "learning_starts": 200}
    assert config.run.steps == 7
    with pytest.raises(SystemExit):
        main.main(["--agent", "toy", "--help"])
    told = capsys.readouterr().out
    assert "Step size of the toy." in told
    assert "--gae-lambda" not in told
    assert main.main(["--agent", "toy", "--gae-lambda", "0.5"]) == 2
    assert "error: --gae-lambda is a flag of the agent ppo, not of toy" in capsys.readouterr().err
    assert main.main(["--agent", "toy", "--epsilon", "2"]) == 1
    assert "error: epsilon must be in [0, 1], not 2" in capsys.readouterr().err


def test_a_setting_is_overridden_from_a_checkpoint_on(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run_dir = tmp_path / "run"
    assert main.main([*LAKE, *QUICK, "--steps", "1000", "--run-dir", str(run_dir)]) == 0
    shutil.copytree(run_dir, tmp_path / "edited")
    edited = tmp_path / "edited" / "config.json"
    edited.write_text(edited.read_text().replace('"epsilon": 0.5', '"epsilon": 0.0'))
    more = ["--steps", "500"]
    assert main.main(["resume", str(tmp_path / "edited"), *more]) == 1
    assert "epsilon is 0.5 there and 0.0 here" in capsys.readouterr().err, "an edit is not meant"
    assert main.main(["resume", str(run_dir), *more, "--override", "epsilon=0", "lr=0.25"]) == 0
    assert main.main(["resume", str(run_dir), *more]) == 0
    resumed = json.loads((run_dir / "config.json").read_text())["resumed"]
    assert [start.get("changed") for start in resumed] == [{"epsilon": 0, "lr": 0.25, "steps": 1500}, {"steps": 2000}]
    assert (config_of(run_dir).settings.epsilon, config_of(run_dir).settings.lr) == (0, 0.25)
    assert agent_of(run_dir)[1].config.lr == 0.25
    assert main.main(["resume", str(run_dir), *more, "--override", "epsilon=0", "lr=0.125"]) == 0
    resumed = json.loads((run_dir / "config.json").read_text())["resumed"]
    assert resumed[-1]["changed"] == {"lr": 0.125, "steps": 2500}, "the other setting has that value already"


def test_a_limit_of_time_or_return_counts_from_a_resume_on(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"

    def summary(*flags: str) -> dict[str, Any]:
        assert main.main([*flags]) == 0
        return json.loads((run_dir / "summary.json").read_text())

    resume = ["resume", str(run_dir), "--steps", "2000"]
    summary(*LAKE, *QUICK, "--steps", "1000", "--run-dir", str(run_dir))
    assert summary(*resume, "--max-seconds", "1e-6")["stopped"] == "after 1e-06 seconds"
    assert summary(*resume)["stopped"] == "after 1e-06 seconds", "the limit is as before"
    limits = "--max-seconds", "1e6", "--target-return", "0.9", "--override", "epsilon=0"
    assert summary(*resume, *limits)["stopped"] == "at a mean return of 1.0"
    resumed = json.loads((run_dir / "config.json").read_text())["resumed"]
    assert resumed[-1]["changed"] == {"max_seconds": 1e6, "target_return": 0.9, "epsilon": 0, "steps": 5000}


def test_overrides_that_cannot_be_are_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from tests.test_main import untrained_run

    untrained_run(tmp_path)
    for override, message in [
        ("lrr=1", "ppo has no setting 'lrr' to override: did you mean 'lr'?"),
        ("learning_rate=1", "ppo has no setting 'learning_rate' to override: did you mean 'lr'?"),
        ("num_envs=1", "ppo has no setting 'num_envs' to override"),
        ("activation=relu", "activation cannot be overridden: the weights depend on it"),
        ("log_std=-1", "log_std cannot be overridden: it counts only at the start of a run"),
        ("lr=fast", "lr must be a number, not 'fast'"),
        ("lr=none", "lr must be a number, not 'none'"),
        ("gamma=2", "gamma must be in [0, 1], not 2"),
        ("gamma", "overrides are NAME=VALUE, not 'gamma'"),
        ("batch_size=1000.5", "batch_size must be a whole number, not 1000.5"),
        ("batch_size=1e3", f"{tmp_path} has no checkpoint to resume from"),  # the value is valid
    ]:
        assert main.main(["resume", str(tmp_path), "--override", override]) == 1
        assert f"error: {message}" in capsys.readouterr().err


def test_a_setting_is_overridden_by_none_or_by_a_choice_of_that_name(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    flags = ["--num-envs", "2", "--batch-size", "64", "--mini-batch-size", "32", "--value-clip", "0.2", *QUICK]
    assert main.main(["--env-id", "CartPole-v1", "--steps", "128", "--run-dir", str(run_dir), *flags]) == 0
    overrides = ["normalize_advantage=none", "value_clip=none"]
    assert main.main(["resume", str(run_dir), "--steps", "64", "--override", *overrides]) == 0
    settings = config_of(run_dir).settings
    assert (settings.normalize_advantage, settings.value_clip) == ("none", None)


@pytest.mark.parametrize(
    ("flags", "override"),
    [
        (["--lr", "1e-4"], "resume has no flag --lr: pass --override lr=1e-4\n"),
        (["--gae-lambda=0.9"], "resume has no flag --gae-lambda: pass --override GAE_lambda=0.9\n"),
        (["--steps", "9", "--learning-rate", "1"], "resume has no flag --learning-rate: pass --override lr=1\n"),
        (["--epsilon-end"], "resume has no flag --epsilon-end: pass --override epsilon_end=VALUE\n"),
    ],
)
def test_a_setting_as_a_flag_of_resume_is_an_error_that_says_how(
    flags: list[str], override: str, capsys: pytest.CaptureFixture
) -> None:
    assert main.main(["resume", "somewhere", *flags]) == 2
    assert capsys.readouterr().err == f"error: {override}"


def test_resume_without_a_directory_asks_for_it(capsys: pytest.CaptureFixture) -> None:
    assert main.main(["resume"]) == 2
    assert "PATH" in capsys.readouterr().err


def test_one_line_adds_a_setting_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """A new setting needs a line in the config and its use: flag, help, check, record and checkpoint follow."""

    @dataclass(frozen=True)
    class More(ToySettings):
        optimism: float = setting(0.0, "Initial value of every action.", least=0)  # edit 1: the setting

    class Optimistic(Toy):
        def __init__(self, optimism: float, **settings: Any) -> None:
            super().__init__(**settings)
            self.optimism = optimism
            self.q += optimism  # edit 2: its use; edit 3 is a test of that

        def signature(self) -> dict[str, Any]:
            return super().signature() | {"optimism": self.optimism}

    monkeypatch.setitem(AGENTS, "toy", AgentKind(More, Optimistic, weights="q.json"))
    run_dir = tmp_path / "run"
    flags = [*LAKE, *QUICK, "--steps", "400", "--run-dir", str(run_dir)]
    assert main.main([*flags, "--optimism", "-1"]) == 1
    assert "optimism must be finite and not negative, not -1.0" in capsys.readouterr().err
    assert main.main([*flags, "--optimism", "2"]) == 0
    assert json.loads((run_dir / "config.json").read_text())["settings"]["optimism"] == 2
    with pytest.raises(SystemExit):
        main.main(["--agent", "toy", "--help"])
    assert "Initial value of every action." in capsys.readouterr().out
    file = run_dir / "config.json"
    file.write_text(file.read_text().replace('"optimism": 2.0', '"optimism": 1.0'))
    assert main.main(["resume", str(run_dir), "--steps", "100"]) == 1
    assert "optimism is 2.0 there and 1.0 here" in capsys.readouterr().err
