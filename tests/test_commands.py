"""The commands besides train: resume a run, and inspect it."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from AsyncPPO import AsyncTrainer
from AsyncPPO.callbacks import Callback, read_table
from parallel_rl import main
from parallel_rl.commands.build import fresh_agent, load_latest
from parallel_rl.commands.play import SCREENS, has_screen
from parallel_rl.commands.program import PROGRAM
from parallel_rl.commands.run_directory import config_of
from parallel_rl.utils import load_state, save_state
from tests.covering import rest_slow
from tests.program import ROOT, Forked, heed_signals
from tests.test_main import ENDLESS, QUICK, untrained_run

FLAGS = [
    "--env-id", "Pendulum-v1", "--no-anneal-lr", "--steps", "1024", "--num-envs", "4", "--batch-size", "256",
    "--k-epochs", "2", "--hidden-sizes", "8", "--backend", "inline", "--eval-every", "512",
]  # fmt: skip
EXACT = [*FLAGS, "--eval-episodes", "2", "--eval-every", "0", "--normalize-obs", "--use-rnd"]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("run") / "a run"
    assert main.main([*FLAGS, "--eval-episodes", "2", "--run-dir", str(directory)]) == 0
    return directory


def curve(directory: Path) -> list[dict[str, float]]:
    rows = read_table(directory / "metrics.csv")
    return [{name: value for name, value in row.items() if name != "seconds" and not np.isnan(value)} for row in rows]


def weights(directory: Path) -> dict[str, bytes]:
    (newest,) = sorted((directory / "checkpoints").iterdir())[-1:]
    networks = load_state(newest)["agent"]["networks"]
    return {name: array.tobytes() for tensors in networks.values() for name, array in tensors.items()}


def test_a_run_in_two_halves_equals_one_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert main.main([*EXACT, "--steps", "512", "--run-dir", str(whole)]) == 0
    assert main.main([*EXACT, "--steps", "256", "--run-dir", str(halves)]) == 0
    assert main.main(["resume", str(halves), "--steps", "256"]) == 0
    assert f"resumed   {halves} after 256 steps\n" in capsys.readouterr().out
    assert curve(halves) == curve(whole)
    assert weights(halves) == weights(whole)
    assert (halves / "Policy_weights.pth").exists()
    assert json.loads((halves / "summary.json").read_text())["steps"] == 512
    capsys.readouterr()
    assert main.main(["resume", str(halves)]) == 1
    assert "finished after 512 steps: pass the number of further steps with --steps" in capsys.readouterr().err


def test_a_run_goes_on_with_another_number_of_environments(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "run"
    assert main.main([*EXACT, "--steps", "512", "--run-dir", str(run_dir)]) == 0
    more = ["--steps", "256"]
    with monkeypatch.context() as broken:
        broken.setattr(
            "parallel_rl.commands.single_run.Checkpoints._save", lambda *_: None
        )  # as if it were killed before the first
        assert main.main(["resume", str(run_dir), *more, "--num-envs", "6"]) == 0
    for arguments in ([], ["--num-envs", "6"], ["--num-envs", "3"]):
        capsys.readouterr()
        assert main.main(["resume", str(run_dir), *more, *arguments]) == 0
        out = capsys.readouterr().out
        assert (", in new episodes\n" in out) == (arguments != ["--num-envs", "6"])
        assert re.search(r"^continue .* --steps 256$", out, re.MULTILINE)
    resumed = json.loads((run_dir / "config.json").read_text())["resumed"]
    changed = [{"num_envs": 6, "steps": 768}, {"steps": 768}, {"steps": 1026}, {"num_envs": 3, "steps": 1284}]
    assert [start.get("changed") for start in resumed] == changed, "the steps of the whole run"
    assert json.loads((run_dir / "config.json").read_text())["run"]["num_envs"] == 4
    assert config_of(run_dir).run.num_envs == 3
    assert [row["steps"] for row in curve(run_dir)][:2] == [256, 512]
    assert main.main(["evaluate", str(run_dir), "--episodes", "2"]) == 0
    capsys.readouterr()
    assert main.main(["resume", str(run_dir), *more, "--num-envs", "0"]) == 1
    assert "num_envs must be at least 1, not 0" in capsys.readouterr().err


def test_infos_are_printed_and_older_runs_without_infos_load(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run_dir = tmp_path / "run"
    flags = [*FLAGS[2:], "--eval-episodes", "2", "--env-id", "tests.goal:Goal-v0", "--info-keys", "distance"]
    assert main.main([*flags, "--run-dir", str(run_dir)]) == 0
    assert re.search(
        r"over 2 deterministic episodes, success_rate [01]\.\d\d, info_distance \d", capsys.readouterr().out
    )
    assert {"success_rate", "info_distance"} <= read_table(run_dir / "metrics.csv")[-1].keys()
    assert "success_rate" in json.loads((run_dir / "summary.json").read_text())["evaluation"]
    assert main.main(["evaluate", str(run_dir), "--episodes", "2", "--json", "--trust-env-module"]) == 0
    assert {"success_rate", "info_distance"} <= json.loads(capsys.readouterr().out).keys()
    content = json.loads((run_dir / "config.json").read_text())
    del content["run"]["info_keys"]
    (run_dir / "config.json").write_text(json.dumps(content))
    assert main.main(["resume", str(run_dir), "--steps", "256", "--trust-env-module"]) == 0


def test_a_mask_run_that_ended_within_episodes_resumes(tmp_path: Path) -> None:
    flags = ["--mode", "mask", *QUICK, "--steps", "1000", "--backend", "inline", "--eval-every", "0"]
    assert main.main([*flags, "--run-dir", str(tmp_path / "run")]) == 0
    assert main.main(["resume", str(tmp_path / "run"), "--steps", "1000"]) == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] >= 2000


def test_a_killed_run_resumes_exactly(tmp_path: Path) -> None:
    """Checkpoints after every update; SIGKILL when the third is there, wherever the run is then."""
    arguments = [*EXACT, "--steps", "1536", "--checkpoint-seconds", "1e-9", "--keep-checkpoints", "4"]
    assert main.main([*arguments, "--run-dir", str(tmp_path / "whole")]) == 0
    assert len([*(tmp_path / "whole/checkpoints").iterdir()]) == 4
    program = Forked("train", *arguments, "--run-dir", "killed", cwd=tmp_path)
    program.wait_for((tmp_path / "killed/checkpoints/000000000768.state").exists)
    program.kill()
    program.finish()
    assert main.main(["evaluate", str(tmp_path / "killed"), "--episodes", "2"]) == 0, "the newest checkpoint counts"
    assert main.main(["resume", str(tmp_path / "killed")]) == 0
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")


@pytest.mark.parametrize("name", rest_slow("SIGTERM", "SIGHUP"))
def test_a_signal_ends_a_run_that_can_be_resumed(tmp_path: Path, name: str) -> None:
    number = getattr(signal, name)
    program = Forked("--run-dir", "here", *ENDLESS, cwd=tmp_path)
    program.wait_for("mean return")
    program.send(number, to_group=True)  # to the workers too: they leave it to their parent
    code, out, err = program.finish()
    assert code == 128 + number
    assert "Traceback" not in err
    assert f"{name}: finishing this update and saving" in err
    assert f"stopped   by {name}" in out
    steps = json.loads((tmp_path / "here/summary.json").read_text())["steps"]
    assert main.main(["resume", str(tmp_path / "here"), "--steps", "256"]) == 0
    assert read_table(tmp_path / "here/metrics.csv")[-1]["steps"] > steps


class Late(Callback):
    """Sends a signal when the training is over."""

    def on_end(self, trainer: AsyncTrainer) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_after_the_training_says_how_to_evaluate(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    flags = [*FLAGS, "--eval-episodes", "2", "--callback", f"{__name__}:Late", "--run-dir", str(tmp_path)]
    assert main.main(flags) == 128 + signal.SIGTERM
    out = capsys.readouterr().out
    assert f"stopped   after the training, without an evaluation; to evaluate: {PROGRAM} evaluate {tmp_path}" in out
    assert "to continue" not in out
    assert main.main(["evaluate", str(tmp_path), "--episodes", "1", "--trust-env-module"]) == 0


def test_a_second_signal_ends_a_run_at_once(tmp_path: Path) -> None:
    endless = ["--steps", "1000000000", "--batch-size", "5000000", "--backend", "inline"]
    program = Forked("--run-dir", "here", *endless, cwd=tmp_path)
    for number, awaited in [(signal.SIGTERM, "step/s"), (signal.SIGINT, "SIGTERM: finishing this update and saving")]:
        program.wait_for(awaited)
        program.send(number)
    code, _, err = program.finish()
    assert code == 128 + signal.SIGINT
    assert "Traceback" not in err
    assert json.loads((tmp_path / "here/summary.json").read_text())["stopped"] == "by SIGTERM"


def test_a_closed_terminal_ends_a_run_as_sighup(tmp_path: Path) -> None:
    import fcntl
    import pty
    import termios

    def in_terminal() -> None:
        os.close(ours)
        for number in range(3):
            os.dup2(theirs, number)
        os.close(theirs)
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        heed_signals()

    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (24, 120))
    program = Forked("--run-dir", "here", *ENDLESS, cwd=tmp_path, prepare=in_terminal)
    try:
        os.close(theirs)
        shown = b""
        while b"mean return" not in shown:
            shown += os.read(ours, 1024)
        os.close(ours)
        assert program.finish()[0] == 128 + signal.SIGHUP
    finally:
        program.kill()
    assert json.loads((tmp_path / "here/summary.json").read_text())["stopped"] == "by SIGHUP"
    assert list((tmp_path / "here/checkpoints").iterdir())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-100], "is damaged: its checksum is not that"),
        (lambda data: data[:500] + bytes([data[500] ^ 4]) + data[501:], "is damaged: its checksum is not that"),
        (lambda data: b"PK\x03\x04" + data, "something else wrote it"),
        (lambda data: data.replace(b"state-1", b"state-9", 1), "another version of this program wrote it"),
    ],
)
def test_a_damaged_checkpoint_is_an_error_that_says_how(
    run_dir: Path, tmp_path: Path, damage: object, message: str, capsys: pytest.CaptureFixture
) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", run_dir, copy], check=True)
    newest = copy / "checkpoints" / "000000001024.state"
    newest.write_bytes(damage(newest.read_bytes()))  # type: ignore[operator]
    assert main.main(["resume", str(copy), "--steps", "10"]) == 1
    assert message in capsys.readouterr().err


def test_a_damaged_checkpoint_error_names_the_previous_one(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", run_dir, copy], check=True)
    newest = copy / "checkpoints" / "000000001024.state"
    newest.write_bytes(newest.read_bytes()[:-100])
    newest.with_name("000000000512.state").touch()
    assert main.main(["resume", str(copy), "--steps", "10"]) == 1
    way_out = f"delete it, and {newest.with_name('000000000512.state')} is taken"
    assert way_out in capsys.readouterr().err
    (copy / "Policy_weights.pth").unlink()
    assert main.main(["evaluate", str(copy)]) == 1
    assert way_out in capsys.readouterr().err


def test_a_saved_state_of_something_else_is_refused(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", run_dir, copy], check=True)
    save_state(copy / "checkpoints" / "000000009999.state", {"x": 1})
    assert main.main(["resume", str(copy), "--steps", "10"]) == 1
    err = capsys.readouterr().err
    assert "000000009999.state is not the checkpoint of a run: it holds x" in err
    assert "delete it" not in err


def test_a_checkpoint_of_another_architecture_is_refused(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", run_dir, copy], check=True)
    content = json.loads((copy / "config.json").read_text())
    content["settings"]["hidden_sizes"] = [16]
    (copy / "config.json").write_text(json.dumps(content))
    assert main.main(["resume", str(copy), "--steps", "10"]) == 1
    assert "hidden_sizes is [8] there and [16] here" in capsys.readouterr().err
    content["settings"]["hidden_layers"] = 3
    (copy / "config.json").write_text(json.dumps(content))
    assert main.main(["resume", str(copy)]) == 1
    assert "config.json: this version does not know the settings hidden_layers" in capsys.readouterr().err
    del content["settings"]["hidden_layers"]

    def changed(part: str, **settings: Any) -> str:
        return json.dumps(content | {part: content[part] | settings})

    for nonsense, message in [
        ("[]", "config.json does not hold an object of JSON"),
        ('{"config": {}}', "is not the configuration of a run"),
        (json.dumps(content | {"run": 5}), "is not the configuration of a run"),
        (json.dumps(content | {"agent": "pqo"}), "config.json: no agent 'pqo'; did you mean 'ppo'?"),
        (changed("settings", lr="fast"), "config.json: lr must be a number, not 'fast'"),
        (changed("run", mode="mesk"), "config.json: mode must be one of streaming, mask, not 'mesk'"),
        (changed("run", seed=-1), "config.json: seed must be finite and not negative, not -1"),
        (changed("settings", hidden_sizes=[10**9]), "config.json: each of hidden_sizes must be in [1, 65536]"),
        (
            changed("settings", mini_batch_size=999),
            "config.json: mini_batch_size (999) is larger than batch_size (256)",
        ),
    ]:
        (copy / "config.json").write_text(nonsense)
        assert main.main(["resume", str(copy)]) == 1
        assert message in capsys.readouterr().err


def test_a_directory_is_trained_in_by_one_process_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    program = Forked("--run-dir", "here", *ENDLESS, "--checkpoint-seconds", "1e-9", cwd=tmp_path)
    program.wait_for(lambda: list(tmp_path.glob("here/checkpoints/0*")))
    assert main.main(["resume", str(tmp_path / "here")]) == 1
    assert f"error: another process is training in {tmp_path / 'here'}" in capsys.readouterr().err
    program.kill()
    program.finish()


def test_load_weights_of_a_killed_run_takes_its_newest_checkpoint(run_dir: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    subprocess.run(["cp", "-r", run_dir, killed], check=True)
    ppo = fresh_agent(config_of(run_dir))
    ppo.save_weights(killed)  # of long ago, although the file is new: as many steps as the summary says
    (killed / "summary.json").write_text('{"steps": 512}')
    assert main.main(["--load-weights", str(killed), "--steps", "256", "--run-dir", str(tmp_path / "next")]) == 0
    ours, saved = (fresh_agent(config_of(run_dir)) for _ in range(2))
    load_latest(ours, "ppo", killed)
    saved.load_weights(run_dir)
    state = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    assert ours.get_action(state, deterministic=True).tolist() == saved.get_action(state, deterministic=True).tolist()
    assert ours.updates == 0, "the networks alone: what comes is not to be what was"


def test_config_json_records_each_resume(run_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", run_dir, copy], check=True)
    before = json.loads((copy / "config.json").read_text())
    for times in (1, 2):
        assert main.main(["resume", str(copy), "--steps", "256"]) == 0
        after = json.loads((copy / "config.json").read_text())
        changed = [start.pop("changed", None) for start in after["resumed"]]
        total = before["run"]["steps"] + 256
        assert changed == [{"steps": total}, {"steps": total + 256}][:times], "the steps of the whole run"
        assert [start.keys() for start in after["resumed"]] == [before.keys() - {"agent", "run", "settings"}] * times
    assert {name: after[name] for name in before} == before


def test_a_run_on_a_gpu_is_evaluated_where_there_is_none(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", run_dir, copy], check=True)
    record = json.loads((copy / "config.json").read_text())
    record["settings"]["device"] = "cuda"
    (copy / "config.json").write_text(json.dumps(record))
    assert main.main(["evaluate", str(copy), "--episodes", "1"]) == 0


def test_no_display_is_no_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SCREENS:
        monkeypatch.delenv(name, raising=False)
    assert not has_screen()
    for name, there in (("DISPLAY", ""), ("SDL_VIDEODRIVER", "dummy"), ("DISPLAY", ":0")):
        monkeypatch.setenv(name, there)
    assert has_screen()
    monkeypatch.setenv("DISPLAY", "")
    assert not has_screen()


def test_evaluate_prints_figures_for_people_and_for_programs(run_dir: Path, capsys: pytest.CaptureFixture) -> None:
    assert main.main(["evaluate", str(run_dir), "--episodes", "3", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures.keys() == {"env_id", "episodes", "mean", "std", "min", "max", "returns"}
    assert figures["mean"] == pytest.approx(np.mean(figures["returns"]))
    assert main.main(["evaluate", str(run_dir), "--episodes", "3", "--stochastic", "--best"]) == 0
    assert re.match(r"Pendulum-v1: mean -\d+\.\d\d \+- .* over 3 stochastic episodes", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("suffix", "magic"), [(".mp4", b"ftyp"), pytest.param(".gif", b"GIF89a", marks=pytest.mark.slow)]
)
def test_record_makes_a_video(tmp_path: Path, suffix: str, magic: bytes) -> None:
    run_dir, out_dir = tmp_path / "run", tmp_path / "out"
    out_dir.mkdir()
    untrained_run(run_dir)
    out = out_dir / f"play{suffix}"
    assert main.main(["record", str(run_dir), "--out", str(out)]) == 0
    assert magic in out.read_bytes()[:16]
    assert [path.name for path in out_dir.iterdir()] == [out.name]


@pytest.mark.pictures
def test_plot_of_several_runs(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    others = [tmp_path / name for name in ("seed", "lr")]
    short = ["--steps", "256", "--eval-episodes", "1", "--eval-every", "0"]
    for other, flags in zip(others, (["--seed", "1"], ["--lr", "0.01"]), strict=True):
        assert main.main([*FLAGS, *short, *flags, "--run-dir", str(other)]) == 0
    out = tmp_path / "curves.png"
    assert main.main(["plot", str(run_dir), *map(str, others), "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    (tmp_path / "empty").mkdir()
    assert main.main(["plot", str(tmp_path / "empty")]) == 1
    assert "is not a run" in capsys.readouterr().err
    assert main.main(["plot", str(run_dir), "--out", str(tmp_path / "new" / "curves.png")]) == 0
    assert main.main(["plot", str(run_dir), "--out", str(tmp_path / "curves.jpg")]) == 1
    assert "out must end in .png, .svg, .pdf, not 'curves.jpg'" in capsys.readouterr().err


def test_envs_marks_presets(capsys: pytest.CaptureFixture) -> None:
    assert main.main(["envs", "lunar"]) == 0
    assert capsys.readouterr().out == "* LunarLander-v3\n* LunarLanderContinuous-v3\n"
    assert main.main(["envs"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert "* CartPole-v1" in listed
    assert "  Blackjack-v1" in listed
    assert not any("CartPole-v0" in line for line in listed)


@pytest.mark.parametrize("name", ["resume", "evaluate", "record", "watch", "plot", "export", "envs"])
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as left:
        main.main([name, "--help"])
    assert left.value.code == 0
    assert f"main.py {name}" in capsys.readouterr().out


def test_completion_knows_commands_and_their_flags(capsys: pytest.CaptureFixture) -> None:
    assert main.main(["--tyro-print-completion", "bash"]) == 0
    script = capsys.readouterr().out
    for known in ("evaluate", "--stochastic", "resume", "--num-envs"):
        assert known in script


def test_bash_completes_what_is_typed() -> None:
    completed = {
        "--env-i": "--env-id",
        "--mode st": "streaming",
        "train --env-i": "--env-id",
        "evaluate --stoch": "--stochastic",
        "eval": "evaluate",
    }
    script = f"""
        source <({sys.executable} {ROOT / "main.py"} --tyro-print-completion bash)
        for typed in "$@"; do
            COMP_WORDS=(./main.py $typed); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=()
            $(complete -p main.py | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
            echo "${{COMPREPLY[@]}}"
        done
    """
    bash = ["bash", "-c", script, "-", *completed]
    done = subprocess.run(bash, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == [*completed.values()], done.stderr


def test_runs_stop_at_a_return_or_a_time(tmp_path: Path) -> None:
    flags = [*QUICK, "--steps", "50000", "--backend", "inline"]
    assert main.main([*flags, "--target-return", "20", "--run-dir", str(tmp_path / "a")]) == 0
    assert main.main([*flags, "--max-seconds", "1e-6", "--run-dir", str(tmp_path / "b")]) == 0
    summaries = [json.loads((tmp_path / name / "summary.json").read_text()) for name in "ab"]
    assert "mean return" in summaries[0]["stopped"]
    assert summaries[1]["stopped"] == "after 1e-06 seconds"
    assert summaries[1]["steps"] == 256
    assert all(summary["evaluation"] is not None for summary in summaries)


@pytest.mark.parametrize(("limit", "saved"), [(60_000, True), pytest.param(20_000, False, marks=pytest.mark.slow)])
def test_a_full_disk_ends_the_run_and_keeps_saved_files(tmp_path: Path, limit: int, saved: bool) -> None:
    """A limit on the size of files, below that of a checkpoint or also of the weights, stands for the disk."""
    import resource

    limits = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit))
    flags = ["--run-dir", "here", "--backend", "inline", *QUICK]
    code, out, err = Forked(*flags, cwd=tmp_path, prepare=limits).finish()
    assert code == 1
    assert re.search(r"error: \[Errno 27\] File too large: 'here/(checkpoints/000000001024.state|best/.*)'", err)
    assert "Traceback" not in err
    assert not list((tmp_path / "here/checkpoints").iterdir())
    assert (tmp_path / "here/Policy_weights.pth").exists() == saved
    assert ("not saved [Errno 27] File too large: 'here/Policy_weights.pth'" in out) != saved


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    import multiprocessing

    yield
    assert not multiprocessing.active_children()


def test_config_json_has_the_configuration(run_dir: Path) -> None:
    config = config_of(run_dir)
    assert config.run.env_id == "Pendulum-v1"
    assert config.settings.hidden_sizes == (8,)


@pytest.mark.parametrize("command", ["record", "evaluate"])
@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [("--episodes", "0", "episodes must be at least 1, not 0"), ("--seed", "-5", "seed must not be negative, not -5")],
)
def test_wrong_episodes_or_seed_of_a_command_are_refused(
    run_dir: Path, command: str, flag: str, value: str, message: str, capsys: pytest.CaptureFixture
) -> None:
    assert main.main([command, str(run_dir), flag, value]) == 1
    assert f"error: {message}" in capsys.readouterr().err


def test_watch_without_a_screen_is_refused(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for name in SCREENS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")  # as `record` leaves it
    assert main.main(["watch", str(run_dir)]) == 1
    assert "error: there is no screen to watch on: record makes a video" in capsys.readouterr().err


def test_a_command_with_closed_stdout_prints_no_error() -> None:
    listing = ["bash", "-c", 'exec "$@" >&-', "-", sys.executable, ROOT / "main.py", "--version"]
    done = subprocess.run(listing, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_envs_into_a_closed_pipe_prints_no_error(tmp_path: Path) -> None:
    theirs, ours = os.pipe()
    os.close(theirs)
    code, _, err = Forked("envs", cwd=tmp_path, prepare=lambda: os.dup2(ours, 1)).finish()
    os.close(ours)
    assert (code, err) == (main.UNHEARD, "")


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (
            "best/evaluation.json",
            lambda text: "{}",
            "evaluation.json has no valid mean return of the best weights; delete it",
        ),
        ("metrics.csv", lambda text: text.replace("mean_return", "meen"), "metrics.csv is not a table .* mean_return"),
        ("metrics.csv", lambda text: text.replace("\n", "\n;", 1), "metrics.csv is not a table that a run has written"),
        ("metrics.csv", lambda text: text.replace("\n", "\n1,2\n", 1), "metrics.csv is not a table"),
        ("metrics.csv", lambda text: text + "1," * 99 + "1\n", "metrics.csv is not a table"),
        ("evaluations.csv", lambda text: text.replace("mean", "meen"), "evaluations.csv is not a table .* mean"),
    ],
)
def test_a_resume_with_a_damaged_file_changes_nothing(
    run_dir: Path, tmp_path: Path, name: str, damage: Any, message: str, capsys: pytest.CaptureFixture
) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", run_dir, copy], check=True)
    (copy / name).write_text(damage((copy / name).read_text()))
    before = contents(copy)
    assert main.main(["resume", str(copy), "--steps", "512"]) == 1
    assert re.search(message, capsys.readouterr().err)
    assert contents(copy) == before


def test_a_run_with_closed_output_pipes_continues(tmp_path: Path) -> None:
    run = [sys.executable, ROOT / "main.py", *QUICK, "--eval-every", "0", "--run-dir", "here"]
    shell = ["bash", "-c", 'exec "$@" 1> >(true) 2> >(true)', "-", *run]
    subprocess.run(shell, cwd=tmp_path, check=False, capture_output=True, timeout=120)
    assert json.loads((tmp_path / "here/summary.json").read_text())["evaluation"] is not None


def test_a_run_that_ended_before_its_first_update_may_start_again(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "config.json").write_text("{}")
    flags = [*FLAGS, "--steps", "256", "--eval-episodes", "1", "--eval-every", "0"]
    assert main.main([*flags, "--run-dir", str(tmp_path / "here")]) == 0
    assert config_of(tmp_path / "here").run.steps == 256
    assert main.main([*flags, "--run-dir", str(tmp_path / "here")]) == 1
