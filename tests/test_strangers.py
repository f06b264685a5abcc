"""A stranger's run directory: nothing in it is imported, nothing outside it is written, and all damage is named."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from AsyncPPO import AsyncPPO
from AsyncPPO.callbacks import read_table
from parallel_rl import main
from parallel_rl.commands.build import env_of, fresh_agent
from parallel_rl.commands.run_directory import config_of
from parallel_rl.commands.trust import untrusted_modules
from parallel_rl.config import RunConfig, setting_names
from parallel_rl.utils import load_state, save_state
from PPO import PPO
from tests.program import config_from

ROOT = Path(__file__).parent.parent
RUNS = ROOT / "tests" / "fixtures" / "runs"
"""Runs of 2,048 steps on Pendulum-v1. v1: before weights had settings, with a flat `config`; v2: today's form."""
BEFORE = Path("checkpoints") / "000000002048.state"


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    copied = Path(shutil.copytree(RUNS / "v1", tmp_path / "run"))
    change(copied, backend="inline", eval_episodes=1)
    return copied


def change(run_dir: Path, **settings: Any) -> None:
    content = json.loads((run_dir / "config.json").read_text())
    content["config"] |= settings
    (run_dir / "config.json").write_text(json.dumps(content))


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a module on the path that creates a file when it is imported; return the file."""
    package = tmp_path / "path" / "stranger"
    package.mkdir(parents=True)
    told = tmp_path / "imported"
    (package / "__init__.py").write_text("")
    (package / "evil.py").write_text(f"open({str(told)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path / "path")
    yield told
    for name in ("stranger", "stranger.evil"):
        sys.modules.pop(name, None)


COMMANDS = [
    ["evaluate", "{run}", "--episodes", "1"],
    ["resume", "{run}", "--steps", "4"],
    ["record", "{run}", "--out", "{run}/a.gif"],
    ["watch", "{run}"],
    ["export", "{run}", "--out", "{run}/a.pt2"],
    ["--load-weights", "{run}", "--steps", "512", "--run-dir", "{run}/next"],
]
NAMING = [
    {"env_id": "stranger.evil:Pendulum-v1"},
    {"env_kwargs": ["kind=stranger.evil.Thing"]},
    {"wrapper": ["stranger.evil:Thing"]},
    {"env_kwargs": ["config={'a': ['stranger.evil:Thing']}"]},
    {"env_id": "stranger.evil:Pendulum-v1", "backend": "vector", "mode": "mask"},
]


@pytest.mark.covering
@pytest.mark.parametrize("naming", NAMING, ids=str)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_module_that_a_file_names_is_not_imported(
    command: list[str], naming: dict[str, Any], run_dir: Path, module: Path, capsys: pytest.CaptureFixture
) -> None:
    change(run_dir, **naming)
    assert main.main([part.format(run=run_dir) for part in command]) == 1
    error = capsys.readouterr().err
    assert f"{run_dir / 'config.json'} names the module stranger.evil" in error
    assert "--trust-env-module" in error
    assert not module.exists()
    assert "stranger" not in sys.modules


def test_plot_imports_nothing(run_dir: Path, module: Path, tmp_path: Path) -> None:
    change(run_dir, env_id="stranger.evil:Pendulum-v1")
    assert main.main(["plot", str(run_dir), "--out", str(tmp_path / "a.png")]) == 0
    assert not module.exists()


def test_a_module_is_imported_where_it_is_trusted_and_that_is_not_recorded(
    run_dir: Path, module: Path, capsys: pytest.CaptureFixture
) -> None:
    change(run_dir, env_id="stranger.evil:Pendulum-v1")
    assert main.main(["evaluate", str(run_dir), "--episodes", "1", "--trust-env-module"]) == 0
    assert module.exists()
    capsys.readouterr()
    assert main.main(["resume", str(run_dir), "--steps", "512", "--trust-env-module"]) == 0
    assert f"main.py watch {run_dir} --trust-env-module" in capsys.readouterr().out
    assert "trust_env_module" not in json.loads((run_dir / "config.json").read_text())["config"]
    change(run_dir, trust_env_module=True)
    assert main.main(["evaluate", str(run_dir)]) == 1


def test_a_module_that_is_typed_is_trusted(run_dir: Path, module: Path) -> None:
    change(run_dir, env_id="stranger.evil:Pendulum-v1")
    weights = ["--load-weights", str(run_dir)]
    assert config_from([*weights, "--env-id", "stranger.evil:Pendulum-v1"]).run.env_id == "stranger.evil:Pendulum-v1"
    assert config_from([*weights, "--env-id", "Pendulum-v1"]).run.env_id == "Pendulum-v1"
    assert config_from([*weights, "--trust-env-module"]) == config_from(
        [*weights, "--env-id", "stranger.evil:Pendulum-v1"]
    )
    with pytest.raises(ValueError, match=r"stranger\.evil"):
        config_from(weights)


def test_ordinary_arguments_of_environments_name_no_module() -> None:
    ordinary = ("is_slippery=False", "map_name=8x8", "xml_file=./ant.xml", "g=9.81", "render_mode=rgb_array", "x=a.b")
    assert not untrusted_modules(RunConfig(env_id="ALE/Pong-v5", env_kwargs=ordinary))


def lead_away(file: Path, to: Path) -> bytes:
    """Replace a file by a link to a copy of it or to something else; return the content of the target."""
    if file.exists():
        file.rename(to)
    else:
        to.write_text("mine")
    file.symlink_to(to)
    return to.read_bytes()


def test_nothing_is_written_through_a_link(run_dir: Path, tmp_path: Path) -> None:
    (run_dir / "best" / "evaluation.json").write_text('{"mean": -1e9}')  # so that there is a better one
    names = [
        "metrics.csv", "evaluations.csv", "config.json", "summary.json", "Policy_weights.pth", "learning_curve.png",
        "best/evaluation.json", "best/Policy_weights.pth",
    ]  # fmt: skip
    before = {name: lead_away(run_dir / name, tmp_path / name.replace("/", " ")) for name in names}
    assert main.main(["resume", str(run_dir), "--steps", "512"]) == 0
    for name, content in before.items():
        assert (tmp_path / name.replace("/", " ")).read_bytes() == content, name
        assert not (run_dir / name).is_symlink(), name
        assert (run_dir / name).read_bytes() != content, name


def test_a_lock_that_is_a_link_is_refused(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    before = lead_away(run_dir / ".lock", tmp_path / "precious")
    assert main.main(["resume", str(run_dir), "--steps", "512"]) == 1
    assert f"{run_dir / '.lock'} is a link" in capsys.readouterr().err
    assert (tmp_path / "precious").read_bytes() == before


def test_export_does_not_write_through_a_link(run_dir: Path, tmp_path: Path) -> None:
    before = lead_away(run_dir / "policy.pt2", tmp_path / "precious")
    assert main.main(["export", str(run_dir), "--out", str(run_dir / "policy.pt2")]) == 0
    assert (tmp_path / "precious").read_bytes() == before
    assert not (run_dir / "policy.pt2").is_symlink()


def test_names_of_event_files_are_unpredictable(run_dir: Path) -> None:
    from AsyncPPO.callbacks import TensorBoard

    class Trainer:
        steps_done = 0

    logs = [TensorBoard(run_dir) for _ in range(3)]
    for log in logs:
        log.on_start(Trainer())  # type: ignore[arg-type]
    for log in logs:
        log.on_end(Trainer())  # type: ignore[arg-type]
    assert len([*run_dir.glob("events.out.tfevents.*")]) == 3


@pytest.mark.parametrize("name", ["checkpoints", "best"])
def test_a_directory_that_leads_elsewhere_is_refused(
    name: str, run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (run_dir / name).rename(elsewhere)
    (run_dir / name).symlink_to(elsewhere)
    before = {file.name: file.read_bytes() for file in elsewhere.iterdir()}
    assert main.main(["resume", str(run_dir), "--steps", "512"]) == 1
    assert f"{run_dir / name} is a link" in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in elsewhere.iterdir()} == before


def test_a_run_directory_may_be_a_link_itself(run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(run_dir)
    assert main.main(["resume", str(tmp_path / "link"), "--steps", "512"]) == 0


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_run_of_an_older_version_is_evaluated_resumed_and_loaded(
    version: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run_dir = Path(shutil.copytree(RUNS / version, tmp_path / "of before"))
    assert main.main(["evaluate", str(run_dir), "--episodes", "2", "--json"]) == 0
    returns = json.loads(capsys.readouterr().out)["returns"]
    config = config_of(run_dir)
    ppo = fresh_agent(config)
    run = config.run
    with AsyncPPO(env_of(run), ppo, run.num_envs, run.steps, progress=False, **run.trainer_arguments()) as trainer:
        trainer.load_checkpoint(run_dir / BEFORE)
    fresh = fresh_agent(config)
    fresh.load_weights(run_dir)
    for name, tensor in ppo.policy.state_dict().items():
        assert torch.equal(fresh.policy.state_dict()[name], tensor), name
    assert main.main(["resume", str(run_dir), "--steps", "512"]) == 0
    assert [row["steps"] for row in read_table(run_dir / "metrics.csv")] == [512, 1024, 1536, 2048, 2560]
    capsys.readouterr()
    assert main.main(["evaluate", str(run_dir), "--episodes", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["returns"] != returns
    again = PPO.load(run_dir)
    assert (again.gamma, again.hidden_sizes) == (config.settings.gamma, config.settings.hidden_sizes)


def test_an_old_run_with_alternating_acting_resumes_as_central(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    weights = {}
    for acting in ("alternating", "central"):
        run_dir = Path(shutil.copytree(RUNS / "v2", tmp_path / acting))
        content = json.loads((run_dir / "config.json").read_text())
        content["run"]["acting"] = acting
        (run_dir / "config.json").write_text(json.dumps(content))
        assert main.main(["resume", str(run_dir), "--steps", "512"]) == 0
        weights[acting] = (run_dir / "Policy_weights.pth").read_bytes()
        said = f"{run_dir / 'config.json'} has acting=alternating, which no longer exists: acting=central replaces it\n"
        assert capsys.readouterr().err.count(said) == (acting == "alternating")
    assert weights["alternating"] == weights["central"]


def test_settings_missing_in_an_old_run_have_their_defaults(run_dir: Path, capsys: pytest.CaptureFixture) -> None:
    content = json.loads((run_dir / "config.json").read_text())
    del content["config"]["bf16"], content["config"]["value_clip"]
    (run_dir / "config.json").write_text(json.dumps(content))
    for command in (["evaluate", str(run_dir), "--episodes", "1", "--json"], ["resume", str(run_dir), "--steps", "4"]):
        assert main.main(command) == 0
        captured = capsys.readouterr()
        names = setting_names("ppo")
        lacks = ", ".join(sorted(names[name] for name in names.keys() - content["config"].keys()))
        said = f"{run_dir / 'config.json'} is of an older version: the defaults stand for {lacks}\n"
        assert captured.err.count(said) == 1
        assert "older version" not in captured.out


def test_load_weights_of_a_killed_run_checks_the_settings(run_dir: Path, capsys: pytest.CaptureFixture) -> None:
    assert main.main(["resume", str(run_dir), "--steps", "512"]) == 0
    (run_dir / "Policy_weights.pth").unlink()
    next_run = ["--load-weights", str(run_dir), "--steps", "512", "--eval-episodes", "1", "--eval-every", "0"]
    assert main.main([*next_run, "--activation", "relu", "--run-dir", str(run_dir / "a")]) == 1
    assert "000000002560.state: the saved networks do not fit: activation is 'tanh' there" in capsys.readouterr().err
    assert main.main([*next_run, "--lr", "0.5", "--run-dir", str(run_dir / "b")]) == 0


FORGED: list[tuple[str, str, list[str]]] = [
    ("config.json", "[" * 10**5, ["evaluate", "plot", "resume"]),
    ("config.json", '{"config": {}}', ["evaluate"]),
    ("config.json", '{"config": {"env_id": "Pendulum-v1", "env_kwargs": ["g=1", 5]}}', ["evaluate"]),
    ("config.json", '{"config": {"env_id": "Pendulum-v1", "lr": 1' + "0" * 400 + "}}", ["evaluate"]),
    ("config.json", '{"config": {"env_id": "Pendulum-v1", "hidden_sizes": [1' + "0" * 400 + "]}}", ["evaluate"]),
    ("config.json", '{"config": {"env_id": "Pendulum-v1"}, "resumed": 5}', ["resume"]),
    ("metrics.csv", "steps,seconds,episodes,mean_return\n1" + "0" * 400 + ",1,1,1\n", ["plot", "resume"]),
    ("metrics.csv", "steps,seconds,episodes,mean_return\n1,1,1,1" + "0" * 400 + "\n", ["plot", "resume"]),
    ("metrics.csv", "steps,seconds,episodes,mean_return\nnan,1,1,1\n", ["plot", "resume"]),
    ("evaluations.csv", "steps,episodes,mean,std,min,max\n1,1,1" + "0" * 400 + ",1,1,1\n", ["resume"]),
    ("best/evaluation.json", '{"mean": 1' + "0" * 400 + "}", ["resume"]),
    ("best/evaluation.json", '{"mean": NaN}', ["resume"]),
    ("best/evaluation.json", "[" * 10**5, ["resume"]),
]


@pytest.mark.parametrize(("name", "content", "commands"), FORGED, ids=lambda value: f"{value!s:.40}")
def test_a_forged_file_is_named(
    name: str, content: str, commands: list[str], run_dir: Path, capsys: pytest.CaptureFixture
) -> None:
    (run_dir / name).write_text(content)
    flags = {"plot": ["--out", str(run_dir / "a.png")], "evaluate": ["--episodes", "1"], "resume": ["--steps", "512"]}
    for command in commands:
        assert main.main([command, str(run_dir), *flags[command]]) == 1
        assert str(run_dir / name) in capsys.readouterr().err


@pytest.mark.parametrize("content", ['{"steps": "x"}', "[" * 10**5, '{"steps": 1' + "0" * 400 + "}", '{"steps": -5}'])
def test_a_run_with_a_damaged_summary_uses_its_newest_checkpoint(content: str, run_dir: Path) -> None:
    (run_dir / "summary.json").write_text(content)
    (run_dir / "Policy_weights.pth").write_text("not looked at")
    assert main.main(["evaluate", str(run_dir), "--episodes", "1"]) == 0


def test_a_checkpoint_in_the_place_of_weights_is_named(run_dir: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.copy(run_dir / BEFORE, run_dir / "Policy_weights.pth")
    assert main.main(["evaluate", str(run_dir), "--episodes", "1"]) == 1
    assert f"{run_dir / 'Policy_weights.pth'} does not hold weights: it holds" in capsys.readouterr().err


def damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    """Flip a bit, or a byte, or cut short, or put noise in some place."""
    position = int(rng.integers(len(whole)))
    kind = rng.integers(4)
    if kind == 0:
        return whole[:position]
    part = rng.bytes(int(rng.integers(1, 9))) if kind == 1 else bytes([whole[position] ^ (1 << rng.integers(8))])
    return whole[:position] + part + whole[position + len(part) :]


def readers(run_dir: Path) -> dict[str, Callable[[], object]]:
    """Return what reads each file of a run."""
    from AsyncPPO.evaluation import BackgroundEvaluation
    from parallel_rl.commands.run_directory import steps_saved

    config = config_of(run_dir)
    ppo = PPO.for_env("Pendulum-v1", **(vars(config.settings) | {"use_RND": True}))
    ppo.save_weights(run_dir / "new")
    (run_dir / "old").mkdir()
    torch.save(ppo.policy.state_dict(), run_dir / "old" / "Policy_weights.pth")
    torch.save(ppo.rnd.state_dict(), run_dir / "old" / "RND_weights.pth")
    trainer = AsyncPPO("Pendulum-v1", fresh_agent(config), 4, 2048, backend="inline", progress=False)
    columns = ("steps", "episodes", "mean", "std", "min", "max")
    return {
        "new/Policy_weights.pth": lambda: (ppo.load_weights(run_dir / "new"), PPO.load(run_dir / "new")),
        "new/RND_weights.pth": lambda: ppo.load_weights(run_dir / "new"),
        "old/Policy_weights.pth": lambda: ppo.load_weights(run_dir / "old"),
        "old/RND_weights.pth": lambda: ppo.load_weights(run_dir / "old"),
        str(BEFORE): lambda: trainer.load_checkpoint(run_dir / BEFORE),
        "config.json": lambda: untrusted_modules(config_of(run_dir).run),
        "summary.json": lambda: steps_saved(run_dir),
        "metrics.csv": lambda: read_table(run_dir / "metrics.csv"),
        "evaluations.csv": lambda: read_table(run_dir / "evaluations.csv", columns),
        "best/evaluation.json": lambda: BackgroundEvaluation("Pendulum-v1", 10, keep_best=run_dir / "best"),
    }


def what_is_said(read: Callable[[], object]) -> str | None:
    """Return the error of reading a file, if it is one of the expected types."""
    try:
        read()
    except (ValueError, FileNotFoundError) as error:
        return str(error)
    return None


def check_damage(run_dir: Path, times: int, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for name, read in readers(run_dir).items():
        file = run_dir / name
        whole, refused = file.read_bytes(), 0
        read()
        for _ in range(times):
            file.write_bytes(damaged(whole, rng))
            said = what_is_said(read)
            refused += said is not None
            assert said is None or str(file) in said, said
        file.write_bytes(whole)
        read()
        assert refused > times // 10 or name == "summary.json", name


def test_damage_to_any_file_is_one_error_that_names_it(run_dir: Path) -> None:
    check_damage(run_dir, 40)


def test_forged_trees_are_refused(tmp_path: Path) -> None:
    """Their checksums are right."""
    path = tmp_path / "a.state"
    for array in (
        {"array at": "nowhere"},
        {"array at": "/x", "dtype": [["a", "<f4", [10**12]]]},
        {"array at": "/x", "dtype": [["a", "|O"]]},
        {"array at": "/x", "dtype": "nonsense"},
        {"array at": ["/x"]},
        {"array at": "/x", "dtype": 5},
    ):
        save_state(path, {"x": np.zeros(3), "y": array})
        with pytest.raises(ValueError, match=r"a\.state is not a state"):
            load_state(path)


def test_commands_do_not_import_modules_from_the_working_directory(run_dir: Path) -> None:
    """The working directory is not on the path of modules."""
    told = run_dir / "imported"
    for name in ("gymnasium", "torch", "numpy", "stranger", "commands", "config"):
        (run_dir / f"{name}.py").write_text(f"open({str(told)!r}, 'w').close()\n")
    change(run_dir, env_id="stranger:Pendulum-v1")
    done = subprocess.run(
        [sys.executable, ROOT / "main.py", "evaluate", ".", "--episodes", "1"],
        cwd=run_dir, env={**os.environ, "PYTHONPATH": ""}, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert "config.json names the module stranger" in done.stderr
    assert not told.exists()
