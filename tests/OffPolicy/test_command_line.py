"""The command line trains, resumes and evaluates the off-policy agents."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from parallel_rl import main

ROOT = Path(__file__).parents[2]
TINY = ["--num-envs", "2", "--learning-starts", "100", "--buffer-size", "1000", "--hidden-sizes", "16", "--batch-size",
        "16", "--backend", "inline", "--eval-every", "0", "--eval-episodes", "1"]  # fmt: skip


@pytest.mark.parametrize(
    ("agent", "env_id"),
    [
        ("dqn", "CartPole-v1"),
        ("sac", "Pendulum-v1"),
        pytest.param("ddpg", "Pendulum-v1", marks=pytest.mark.slow),
        pytest.param("td3", "Pendulum-v1", marks=pytest.mark.slow),
    ],
)
def test_a_run_is_resumed_evaluated_and_exported(
    agent: str, env_id: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    where = ["--env-id", env_id, "--steps", "140", "--run-dir", str(tmp_path / "run")]
    where += ["--env-kwargs", "max_episode_steps=50"]
    assert main.main(["train", "--agent", agent, *where, *TINY]) == 0
    assert main.main(["resume", str(tmp_path / "run"), "--steps", "40"]) == 0
    capsys.readouterr()
    assert main.main(["evaluate", str(tmp_path / "run"), "--episodes", "2", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["returns"]) == 2
    if agent == "dqn":  # tests/networks/test_export.py has the others
        assert main.main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "policy.pt2")]) == 0
        assert (tmp_path / "policy.pt2").is_file()
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["agent"] == agent
    assert record["settings"]["hidden_sizes"] == [16]


@pytest.mark.parametrize("flag", ["--compile", "--no-compile"])
def test_a_run_says_that_its_first_update_compiles(flag: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    flags = [
        "--env-id",
        "Pendulum-v1",
        "--agent",
        "sac",
        "--steps",
        "20",
        "--learning-starts",
        "100",
        "--num-envs",
        "2",
    ]
    flags += ["--buffer-size", "1000", "--eval-episodes", "1", "--eval-every", "0", "--run-dir", str(tmp_path / "run")]
    assert main.main([*flags, flag]) == 0
    assert ("compile   at the first update" in capsys.readouterr().out) == (flag == "--compile")


@pytest.mark.parametrize(("size", "said"), [("3000000", "replay    0.1 GB of memory when it is full\n"), ("1000", "")])
def test_the_size_of_a_large_replay_buffer_is_printed_at_the_start(
    size: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    where = ["--agent", "dqn", "--env-id", "CartPole-v1", "--steps", "20", "--run-dir", str(tmp_path / "run"), *TINY]
    assert main.main(["train", *where, "--buffer-size", size]) == 0
    out = capsys.readouterr().out
    assert said in out[: out.index("saved ")]
    assert out.count("replay ") == bool(said)


def test_a_checkpoint_without_the_replay_buffer_is_small_and_is_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run_dir, sizes = tmp_path / "run", []
    where = ["--agent", "dqn", "--env-id", "CartPole-v1", "--steps", "200", "--run-dir", str(run_dir), *TINY]
    assert main.main(["train", *where, "--no-replay-in-checkpoint"]) == 0
    sizes += [file.stat().st_size for file in (run_dir / "checkpoints").iterdir()]
    (run_dir / "Policy_weights.pth").unlink()  # as after a kill: the checkpoint has the weights
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main.main(["evaluate", str(run_dir), "--episodes", "2"]) == 0
    with pytest.warns(RuntimeWarning, match="the replay buffer was not saved: 100 steps"):
        assert main.main(["resume", str(run_dir), "--steps", "200", "--override", "replay_in_checkpoint=True"]) == 0
    sizes += [max(run_dir.glob("checkpoints/*")).stat().st_size]
    assert sizes[0] + 5_000 < sizes[1]


def test_help_does_not_wait_for_torch() -> None:
    script = """
import sys
from parallel_rl import main
for arguments in [["--help"], ["--agent", "dqn", "--help"], ["her-sac-train", "--help"]]:
    try: main.main(arguments)
    except SystemExit as left: assert left.code == 0
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, cwd=ROOT)


def test_help_lists_the_settings_of_the_agent(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main.main(["train", "--agent", "sac", "--help"])
    text = capsys.readouterr().out
    assert "--target-entropy" in text
    assert "--policy-clip" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--agent", "sac", "--companions", "rnd", "icm"], "--companions is a flag of the agent ppo, not of sac"),
        (["--agent", "dqn", "--no-use-rnd"], "--no-use-rnd is a flag of the agent ppo, not of dqn"),
        (["--agent", "dqn", "--q-filter"], "--q-filter is a flag of the agents ddpg, td3, sac, not of dqn"),
        (["--policy-delay=3"], "--policy-delay is a flag of the agent td3, not of ppo"),
        (["td3-train", "Pendulum-v1", "--dueling"], "--dueling is a flag of the agent dqn, not of td3"),
    ],
)
def test_a_flag_of_another_agent_is_one_error(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    assert main.main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--env-id", "CartPole-v1"], ["--preset", "none"]])
def test_hindsight_without_goals_names_what_the_environment_lacks(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    flags = ["--agent", "dqn", "--hindsight", "future", "--run-dir", str(tmp_path / "run"), *flags]
    assert main.main(flags) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: hindsight needs the method compute_reward(achieved_goal, desired_goal, info) of <")
    assert "n_step" not in error


def test_discrete_actions_for_an_agent_of_continuous_ones_are_one_error(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main.main(["--agent", "sac", "--env-id", "CartPole-v1", "--run-dir", str(tmp_path / "run"), *TINY]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "Discrete(2)" in error
