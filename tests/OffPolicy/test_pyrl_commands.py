"""The command line of pyrl: `ddpg-train ENV`, `her-sac-test ENV PATH`, `list-envs`."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from parallel_rl import main
from parallel_rl.commands import pyrl
from parallel_rl.config import TrainConfig
from tests.OffPolicy.probes import Reach
from tests.program import config_from

TINY = ["--num-envs", "2", "--hidden-sizes", "8", "--batch-size", "8", "--backend", "inline", "--random-steps", "40",
        "--replay-buffer", "500", "--num-evals", "2"]  # fmt: skip


@pytest.fixture(autouse=True)
def goal_env() -> Any:
    gym.register("Reach-v0", Reach, max_episode_steps=20)
    yield
    del gym.registry["Reach-v0"]


def configured(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> TrainConfig:
    """Return the config of the run that a command line starts."""
    configs: list[TrainConfig] = []
    monkeypatch.setattr(pyrl, "train", lambda flags: configs.append(config_from(flags)) or 0)
    assert main.main(arguments) == 0
    return configs[0]


@pytest.mark.parametrize("name", ["ddpg", pytest.param("td3", marks=pytest.mark.slow), "her-sac"])
def test_training_saves_into_a_subdirectory_and_a_test_prints_each_return(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    schedule = ["--num-epochs", "2", "--num-episodes", "3", "--seed", "5"]
    schedule += ["--num-cycles", "1"] if name.startswith("her-") else []
    assert main.main([f"{name}-train", "Reach-v0", *schedule, *TINY]) == 0
    assert "step/s" in capsys.readouterr().err
    record = json.loads((tmp_path / name / "config.json").read_text())
    assert record["agent"] == name.removeprefix("her-")
    with (tmp_path / name / "evaluations.csv").open() as file:
        evaluations = [*csv.DictReader(file)]
    assert evaluations[-1]["steps"] == "120"
    with (tmp_path / name / "metrics.csv").open() as file:
        metrics = [*csv.DictReader(file)]
    for row in (evaluations[-1], metrics[-1]):
        assert 0 <= float(row["success_rate"]) <= 1
    assert main.main([f"{name}-test", "Reach-v0", name, "--num-episodes", "3"]) == 0
    output = capsys.readouterr().out
    assert re.findall(r"episode (\d+): return -[\d.]+, (?:no )?success\n", output) == ["1", "2", "3"]


def test_a_module_that_is_typed_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    env_id = "gymnasium:Pendulum-v1"
    assert main.main(["ddpg-train", env_id, "--num-epochs", "1", "--num-episodes", "1", *TINY]) == 0
    assert main.main(["ddpg-test", env_id, "ddpg", "--num-episodes", "1"]) == 0
    assert "episode 1: return " in capsys.readouterr().out
    assert main.main(["ddpg-test", "Pendulum-v1", "ddpg"]) != 0
    assert "names the module gymnasium" in capsys.readouterr().err


@pytest.mark.parametrize("name", pyrl.AGENTS)
def test_command_name_selects_the_agent_and_hindsight(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured(monkeypatch, f"{name}-train", "Reach-v0")
    assert (config.agent, config.run.run_dir) == (name.removeprefix("her-"), name)
    assert config.settings.hindsight == ("future" if name.startswith("her-") else "none")


def test_epochs_are_counted_in_episodes_of_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured(monkeypatch, "ddpg-train", "Pendulum-v1", "--num-epochs", "3", "--num-episodes", "4")
    assert (config.run.steps, config.run.eval_every) == (3 * 4 * 200, 4 * 200)
    config = configured(monkeypatch, "her-ddpg-train", "Reach-v0", "--num-epochs", "3", "--num-episodes", "4")
    assert config.run.steps == 3 * 50 * 4 * 20
    config = configured(monkeypatch, "her-ddpg-train", "Reach-v0", "--steps", "70")
    assert config.run.steps == 70


def test_hindsight_command_sets_gamma_by_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured(monkeypatch, "her-td3-train", "Reach-v0", "--replay-k", "8", "--no-clip-return")
    settings = config.settings
    assert settings.gamma == pytest.approx(1 - 1 / 20)
    assert (settings.hindsight, settings.replay_k, settings.clip_return) == ("future", 8, False)
    assert (settings.eps_greedy, settings.normalize_obs) == (0.2, True)
    assert configured(monkeypatch, "her-td3-train", "Reach-v0", "--gamma", "0.5").settings.gamma == 0.5


def test_a_time_limit_among_the_arguments_of_the_environment_replaces_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["her-td3-train", "Reach-v0", "--env-kwargs", "max_episode_steps=5", "--num-epochs", "3"]
    config = configured(monkeypatch, *command)
    assert config.run.env_kwargs == ("max_episode_steps=5",)
    assert config.settings.gamma == pytest.approx(1 - 1 / 5)
    assert config.run.steps == 3 * 50 * 20 * 5
    gym.registry["Reach-v0"].max_episode_steps = None
    assert configured(monkeypatch, *command).run.steps == config.run.steps


def test_flags_of_pyrl_stand_for_those_of_train(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = "--tau .01 --batch-size 7 --replay-buffer 123 --reward-scale 2 --random-steps 9 --obs-clip 3 --num-evals 4"
    typed += " --obs-normalizer standard --policy-delay 3 --action-noise ou_0.3 --num-envs 3 --seed 8 --save there"
    config = configured(monkeypatch, "td3-train", "Reach-v0", *typed.split())
    names = "tau batch_size buffer_size reward_scale learning_starts obs_clip normalize_obs policy_delay action_noise"
    found = [getattr(config.settings, name) for name in names.split()]
    assert found == [0.01, 7, 123, 2, 9, 3, True, 3, "ou_0.3"]
    run = config.run
    assert (run.eval_episodes, run.num_envs, run.seed, run.run_dir) == (4, 3, 8, "there")
    assert not configured(monkeypatch, "her-sac-train", "Reach-v0", "--obs-normalizer", "none").settings.normalize_obs


@pytest.mark.parametrize("name", pyrl.COMMANDS)
def test_help_lists_the_flags(name: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        main.main([name, "--help"])
    assert not caught.value.code
    text = capsys.readouterr().out
    flags = ["--num-episodes", "--seed"]
    if name.endswith("train"):
        own = {"ddpg": "--parameter-noise", "td3": "--policy-delay", "sac": "--target-entropy"}
        flags += ["--config", "--preset", "--cluster", "--nodes", "--min-nodes", "--preempt"]
        flags += ["--num-epochs", "--replay-buffer", "--tau", own[name.removeprefix("her-").partition("-")[0]]]
    assert [flag for flag in flags if flag not in text] == []


def test_environments_are_listed(capsys: pytest.CaptureFixture) -> None:
    assert main.main(["list-envs", "reach-v"]) == 0
    assert "Reach-v0" in capsys.readouterr().out


class Endless(Reach):
    """Has no time limit."""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ddpg-train", "Endless-v0"], "Endless-v0 has no time limit"),
        (["ddpg-train", "Nowhere-v0"], "no environment 'Nowhere-v0'"),
        (["ddpg-test", "Pendulum-v1", "nowhere"], "nowhere is not a run"),
        (["ddp-train", "Pendulum-v1"], "did you mean 'ddpg-train'?"),
        (["ddpg-train", "Pendulum-v1", "--num-epochs", "0"], "--num-epochs must be at least 1, not 0"),
        (["ddpg-train", "Pendulum-v1", "--num-episodes", "-1"], "--num-episodes must be at least 1, not -1"),
    ],
)
def test_a_mistake_is_one_clear_error(arguments: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    gym.register("Endless-v0", Endless)
    try:
        assert main.main(arguments) == 1
    finally:
        del gym.registry["Endless-v0"]
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--num-epoch", "no flag --num-epoch: did you mean --num-epochs?"),
        ("--random-step", "did you mean --random-steps?"),
        ("--no-normalise-obs", "did you mean --no-normalize-obs?"),
        ("--policy-delay", "--policy-delay is a flag of the agent td3, not of ddpg"),
        ("--frobnicate", "no flag --frobnicate; main.py ddpg-train --help lists them"),
    ],
)
def test_an_unknown_flag_is_one_line_that_suggests_one(flag: str, message: str, capsys: pytest.CaptureFixture) -> None:
    assert main.main(["ddpg-train", "Pendulum-v1", flag, "3"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.parametrize("name", ["ddpg-train", "ddpg-test"])
def test_a_command_without_an_environment_is_an_error(name: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        main.main([name])
    assert caught.value.code == 2
    assert "error: the following arguments are required: ENV" in capsys.readouterr().err


def test_a_run_of_another_agent_or_environment_is_not_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.main(["sac-train", "Reach-v0", "--steps", "10", *TINY]) == 0
    assert main.main(["td3-test", "Reach-v0", "sac"]) == 1
    assert "is of sac, not of td3" in capsys.readouterr().err
    assert main.main(["sac-test", "Pendulum-v1", "sac"]) == 1
    assert "is of Reach-v0, not of Pendulum-v1" in capsys.readouterr().err


def test_the_reach_environment_can_be_solved() -> None:
    env = Reach()
    obs, _ = env.reset(seed=0)
    for _ in range(20):
        obs, reward, _, _, info = env.step(np.clip((obs["desired_goal"] - obs["achieved_goal"]) * 5, -1, 1))
    assert (reward, info["is_success"]) == (0, True)
