"""Arguments of the command line: forms of numbers, files of settings, the version."""

import json
import re
from pathlib import Path

import pytest

from parallel_rl import main
from parallel_rl.commands.flags import GROUPS
from parallel_rl.commands.run_directory import write_json
from parallel_rl.config import train_config
from tests.program import config_from


def test_whole_numbers_may_be_written_as_people_do() -> None:
    config = config_from(
        ["--steps", "1e6", "--eval-every", "2_000", "--num-workers", "2", "--batch-size=4.096e3", "--num-envs", "8"]
    )
    assert (config.run.steps, config.run.eval_every, config.run.num_workers) == (1_000_000, 2_000, 2)
    assert (config.settings.batch_size, config.run.num_envs) == (4096, 8)
    for sizes in ("64,32", "64 32", "64, 32", "6.4e1 32"):
        assert config_from(["--hidden-sizes", *sizes.split()]).settings.hidden_sizes == (64, 32)
    assert config_from(["--hidden-sizes"]).settings.hidden_sizes == ()
    assert config_from(["--num-workers", "None", "--max-seconds", "None"]).run.num_workers is None


def test_whole_numbers_in_a_preset_may_be_written_like_those_of_flags(tmp_path: Path) -> None:
    (tmp_path / "preset.json").write_text(
        '{"steps": 1e6, "batch_size": 4.096e3, "hidden_sizes": [64.0, 3.2e1], "lr": 1}'
    )
    config = config_from(["--preset", str(tmp_path / "preset.json")])
    found = config.run.steps, config.settings.batch_size, *config.settings.hidden_sizes
    assert found == (1_000_000, 4096, 64, 32)
    assert {type(number) for number in found} == {int}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--steps 1.5", "'1.5' is not a whole number"),
        ("--steps many", "'many' is not a whole number"),
        ("--hidden-sizes 64,3.5", "'3.5' is not a whole number"),
    ],
)
def test_what_is_no_whole_number_is_refused(flags: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_from(flags.split())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    config = train_config("ppo", {"env_id": "Pendulum-v1", "lr": 0.25, "seed": 7, "num_envs": 3, "run_dir": "there"})
    write_json(tmp_path / "config.json", config.record())
    return tmp_path / "config.json"


def test_a_file_of_settings_takes_the_place_of_defaults_and_presets(file: Path) -> None:
    config = config_from(["--config", str(file), "--lr", "1e-4"])
    assert (config.run.env_id, config.run.seed, config.run.num_envs, config.run.run_dir) == ("Pendulum-v1", 7, 3, None)
    assert (config.settings.lr, config.settings.gamma) == (1e-4, 0.99), "the preset of Pendulum-v1 has gamma=0.95"
    write_json(file, train_config("dqn", {"lr": 0.5}).record())
    assert (config_from([f"--config={file}"]).agent, config_from(["--config", str(file)]).settings.lr) == ("dqn", 0.5)
    weights = file.parent / "weights"
    assert config_from(["--config", str(file), "--load-weights", str(weights)]).run.load_weights == str(weights)


def test_a_file_of_settings_is_held_to_the_rules_of_a_run(file: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(ValueError, match=r"config\.json is of the agent 'ppo', not 'dqn'"):
        config_from(["--config", str(file), "--agent", "dqn"])
    content = json.loads(file.read_text())
    content["run"]["env_id"] = "stranger.evil:Pendulum-v1"
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"config\.json names the module stranger\.evil"):
        config_from(["--config", str(file)])
    assert config_from(["--config", str(file), "--trust-env-module"]).run.env_id == "stranger.evil:Pendulum-v1"
    content["settings"]["learning_rate"] = 1
    file.write_text(json.dumps(content))
    assert main.main(["--config", str(file)]) == 1
    assert "does not know the settings learning_rate" in capsys.readouterr().err
    assert main.main(["--config", "nowhere.json"]) == 1
    assert "nowhere.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--agent sac --replay-k 8", "--replay-k has no effect with hindsight='none'"),
        ("--agent sac --q-filter", "--q-filter has no effect with demo_path=None"),
        ("--agent dqn --priority-alpha=0.5", "--priority-alpha has no effect with prioritized=False"),
        ("--core-size 32", "--core-size has no effect with core='none'"),
        ("--beta 0.1", "--beta has no effect with use_RND=False and companions=()"),
    ],
)
def test_a_flag_without_an_effect_is_an_error(flags: str, message: str, capsys: pytest.CaptureFixture) -> None:
    assert main.main(flags.split()) != 0
    assert capsys.readouterr().err == f"error: {message}\n"


def test_a_flag_has_an_effect_if_any_setting_that_it_needs_is_set() -> None:
    for needed in ("--use-rnd", "--companions rnd"):
        assert config_from(["--beta", "0.1", *needed.split()]).settings.beta == 0.1
    assert config_from(["--beta", "0.001"]).settings.beta == 0.001, "the default may be said"


def test_the_version_is_told(capsys: pytest.CaptureFixture) -> None:
    assert main.main(["--version"]) == 0
    assert re.fullmatch(r"parallel-rl \d+\.\d+\.\d+( \([0-9a-f]{40}\+?\))?\n", capsys.readouterr().out)


def test_the_help_has_its_flags_in_groups(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main.main(["--agent", "dqn", "--help"])
    said = capsys.readouterr().out
    places = [said.index(text) for name, help in GROUPS.items() for text in (f" {name} options ", help)]
    assert places == sorted(places)
    flags = [
        said.index(flag) for flag in ("--steps ", "--env-id ", "--num-envs ", "--track ", "--copies ", "--n-step ")
    ]
    assert flags == sorted(flags)
    assert all(place < flag for place, flag in zip(places[1::2], flags, strict=True)), "each below its sentence"


@pytest.mark.parametrize(
    ("command", "other"), [("train", "0.95"), ("resume", "1"), ("record", "1"), ("plot", "steps"), ("envs", "")]
)
def test_the_help_shows_no_default_where_there_is_none(command: str, other: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main.main([command, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert not other or f"(default: {other})" in said
    for none in ("None", "", "''"):
        assert f"(default: {none})" not in said


def test_the_help_of_tune_leaves_out_flags_without_an_effect(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main.main(["tune", "--eval-every", "0", "--help"])
    said = capsys.readouterr().out
    assert all(flag in said for flag in ("--trials ", "--eval-episodes ", "--max-seconds ", "--lr "))
    assert not [flag for flag in ("--copies ", "--eval-every ", "--track ") if flag in said]
