"""The command line, as a user uses it."""

import importlib.util
import io
import json
import os
import re
import runpy
import signal
import subprocess
import sys
from dataclasses import fields
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import pytest

from parallel_rl import main
from parallel_rl.agents import AGENTS, agent_kind
from parallel_rl.commands.build import factory_of
from parallel_rl.commands.run_directory import CONFIG_FILE, config_of, write_json
from parallel_rl.config import RunConfig, train_config
from parallel_rl.presets import PRESETS
from PPO import PPO, PPOConfig
from tests.envs import Counter
from tests.fake_envpool import use_fake_envpool
from tests.program import ROOT, Forked, config_from

SMALL = ["--num-envs", "4", "--batch-size", "256", "--k-epochs", "2"]
ENDLESS = [*SMALL, "--steps", "100000000", "--eval-every", "0", "--eval-episodes", "2"]
QUICK = [*SMALL, "--steps", "1024", "--eval-episodes", "2"]


def untrained_run(directory: Path) -> None:
    """Write what `watch` and `record` need of a run, with short episodes."""
    PPO(False, 4, 2, hidden_sizes=(8,), seed=0).save_weights(directory)
    write_json(directory / CONFIG_FILE, train_config("ppo", {"hidden_sizes": (8,)}).record())


@pytest.mark.pictures
def test_a_run_trains_saves_evaluates_and_prints_how_to_continue(tmp_path: Path) -> None:
    code, out, err = Forked("--run-dir", "here", "--backend", "process", *QUICK, cwd=tmp_path).finish()
    assert code == 0, err
    run_dir = tmp_path / "here"
    assert {file.name.split(".out.")[0] for file in run_dir.iterdir()} == {
        "config.json", "summary.json", "metrics.csv", "evaluations.csv", "learning_curve.png", "Policy_weights.pth",
        "checkpoints", "best", "events", ".lock",
    }  # fmt: skip
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["000000001024.state"]
    assert {path.name for path in (run_dir / "best").iterdir()} == {"Policy_weights.pth", "evaluation.json"}
    assert (run_dir / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    summary = json.loads((run_dir / "summary.json").read_text())
    record = json.loads((run_dir / "config.json").read_text())
    assert record["run"]["env_id"] == summary["env_id"] == "CartPole-v1"
    assert record["versions"].keys() == {"project", "python", "torch", "gymnasium", "numpy"}
    assert "--run-dir here" in record["command"]
    assert len(record["git_commit"] or "0" * 40) >= 40
    assert summary["steps"] == 1024
    assert summary["seconds"] > 0
    assert summary["threshold"] == 475
    assert summary["solved"] is None
    evaluation = summary["evaluation"]
    assert evaluation["episodes"] == 2
    assert 0 < evaluation["min"] <= evaluation["mean"] <= evaluation["max"] <= 500
    assert "process backend" in out
    for said in ("mean", "here/learning_curve.png", "main.py watch here", "main.py resume here --steps 1024"):
        assert said in out
    for shown in ("mean return", "step/s", "1024/1024"):
        assert shown in err


def test_continuous_actions_rnd_and_weights_from_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pendulum = ("--env-id", "Pendulum-v1", "--use-rnd", "--hidden-sizes", "16", *QUICK)
    assert main.main(["train", *pendulum, "--backend", "inline", "--eval-every", "0", "--run-dir", "first"]) == 0
    assert (tmp_path / "first" / "RND_weights.pth").exists()
    assert main.main(["--run-dir", "second", "--load-weights", "first"]) == 0
    first, second = (config_of(tmp_path / run).flat() for run in ("first", "second"))
    assert second == first | {"run_dir": "second", "load_weights": "first", "seed": first["seed"] + 1}


def test_a_run_directory_stands_for_its_config(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    untrained_run(tmp_path)
    assert config_from(["--config", str(tmp_path)]) == config_from(["--config", str(tmp_path / CONFIG_FILE)])
    (tmp_path / "best").mkdir()
    assert main.main(["evaluate", str(tmp_path / "best")]) == 1
    assert f"no config.json; {tmp_path} is one, whose best weights --best takes\n" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_a_run_without_evaluations_has_no_best_weights(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    untrained_run(tmp_path)
    assert main.main([command, str(tmp_path), "--best"]) == 1
    said = f"error: {tmp_path} has no best weights: it made no evaluation (--eval-every)\n"
    assert said in capsys.readouterr().err


@pytest.mark.covering
@pytest.mark.parametrize("module", ["parallel_rl", "parallel_rl.main"])
def test_the_program_runs_as_a_module(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("parallel-rl ")


def test_watch_shows_a_run_in_a_window(tmp_path: Path) -> None:
    untrained_run(tmp_path)
    no_screen = partial(os.environ.__setitem__, "SDL_VIDEODRIVER", "offscreen")
    code, out, err = Forked("watch", str(tmp_path), "--episodes", "1", cwd=tmp_path, prepare=no_screen).finish()
    assert code == 0, err
    assert re.fullmatch(r"episode 1: return \d+\.00\n", out)


def test_help_names_every_setting(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as left:
        main.main(["--help"])
    assert left.value.code == 0
    words = capsys.readouterr().out.split()
    for each in (*fields(RunConfig), *fields(PPOConfig)):
        flag = f"--{each.name.lower().replace('_', '-')}"
        assert flag in words or f"{flag}," in words, flag
        assert each.metadata["setting"].help.split()[0] in words


def test_environments_of_envpool_are_trained_on_and_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_fake_envpool(monkeypatch)
    flags = ["--backend", "vector", "--mode", "mask", *QUICK]
    assert main.main([*flags, "--run-dir", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["evaluation"]["episodes"] == 2
    assert main.main([*flags, "--action-masks", "--run-dir", str(tmp_path / "other")]) == 1


def test_env_kwargs_reach_all_parallel_environments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    lake = ["--env-id", "FrozenLake-v1", "--env-kwargs", "is_slippery=false", "map_name=4x4", "render_mode=rgb_array"]
    fast = ["--lr", "0.01", "--no-anneal-lr", "--entropy-coef", "0", "--gamma", "0.99", "--backend", "inline"]
    assert main.main([*lake, *QUICK, *fast, "--steps", "4000", "--eval-every", "0", "--run-dir", "run"]) == 0
    assert factory_of(config_of(Path("run")).run, render_mode="ansi")().render_mode == "ansi"
    assert config_from(["--load-weights", "run"]).run.env_kwargs == tuple(lake[3:])
    assert config_from(["--load-weights", "run", "--env-kwargs", "map_name=8x8"]).run.env_kwargs == ("map_name=8x8",)
    capsys.readouterr()
    assert main.main(["evaluate", "run", "--episodes", "20"]) == 0
    assert "mean 1.00" in capsys.readouterr().out, "on ice that is slippery nobody gets there every time"
    assert main.main([*lake, "--backend", "vector", "--mode", "mask"]) == 1
    assert "without env_kwargs" in capsys.readouterr().err


def test_every_setting_is_a_flag_with_its_default_and_can_be_typed() -> None:
    config = config_from([])
    assert config.flat() == vars(RunConfig()) | vars(PPOConfig(k_epochs=10, gamma=0.99, mini_batch_size=256))
    flags = "--agent ppo --lr 0.5 --gae-lambda 0.25 --use-rnd --hidden-sizes 3 4 --core gru --num-envs 5"
    typed = config_from(flags.split(" "))
    expected = {"lr": 0.5, "GAE_lambda": 0.25, "use_RND": True, "hidden_sizes": (3, 4), "core": "gru", "num_envs": 5}
    expected["normalize_advantage"] = "returns"  # as with every recurrent core
    assert typed.flat() == config.flat() | expected


def test_names_of_settings_are_different_in_any_case() -> None:
    """A flag, and a name in config.json, means one setting."""
    for agent in AGENTS:
        names = [each.name for config in (RunConfig, agent_kind(agent).config_class) for each in fields(config)]
        names += ["agent", "trust_env_module"]
        assert len({name.lower() for name in names}) == len(names)


def test_presets_are_settings() -> None:
    for agent, presets in PRESETS.items():
        for values in (*presets.by_env.values(), *presets.by_namespace.values(), *presets.with_rnd.values()):
            assert train_config(agent, values).flat().items() >= values.items()


def test_flags_win_over_presets_and_presets_over_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS["ppo"].by_env, "Acrobot-v1", {"gamma": 0.5, "lr": 0.25})
    monkeypatch.setitem(PRESETS["ppo"].with_rnd, "Acrobot-v1", {"beta": 9.0})
    settings, default = config_from(["--env-id", "Acrobot-v1", "--lr", "0.125"]).settings, config_from([]).settings
    assert (settings.gamma, settings.lr, settings.beta) == (0.5, 0.125, default.beta)
    assert config_from(["--env-id", "Acrobot-v1", "--use-rnd"]).settings.beta == 9.0
    assert default.gamma == train_config().settings.gamma == 0.99


@pytest.mark.parametrize("backend", ["inline", "process"])
def test_ctrl_c_saves_and_leaves_cleanly(tmp_path: Path, backend: str) -> None:
    program = Forked("--run-dir", "here", *ENDLESS, "--backend", backend, cwd=tmp_path)
    try:
        program.wait_for("mean return")
        program.send(signal.SIGINT, to_group=True)  # as a terminal does
        code, out, err = program.finish()
    finally:
        program.kill()
    assert code == main.INTERRUPTED
    assert "Traceback" not in err
    assert "main.py resume here" in out
    assert "finishing this update" in err
    assert (tmp_path / "here" / "Policy_weights.pth").exists()
    assert json.loads((tmp_path / "here" / "summary.json").read_text())["evaluation"] is None


@pytest.mark.parametrize("backend", ["inline", "process"])
def test_a_signal_ends_a_run_whose_environment_hangs(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:

    from parallel_rl.commands import stopping
    from tests.envs import Hanging

    pid = os.getpid()

    class Stuck(Hanging):
        """Sends the run a signal, and hangs; if there are workers, only in a worker."""

        def step(self, action: int) -> Any:
            if backend == "process" and os.getpid() == pid:
                return super(Hanging, self).step(action)
            os.kill(pid, signal.SIGTERM)
            return super().step(action)

    monkeypatch.setattr(stopping, "GRACE_SECONDS", 0.3)
    monkeypatch.setitem(gym.registry, "Stuck-v0", gym.envs.registration.EnvSpec("Stuck-v0", Stuck))
    flags = ["--num-envs", "2", "--num-workers", "2", "--eval-every", "0", "--close-timeout", "0.1"]
    code = main.main(["--env-id", "Stuck-v0", "--backend", backend, "--run-dir", str(tmp_path / "run"), *flags])
    assert code == 128 + signal.SIGTERM
    assert "no environment has come back for 0.3 seconds: leaving" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["stopped"] == "by SIGTERM"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--env-id", "CartPoel-v1"], "error: no environment 'CartPoel-v1'; did you mean 'CartPole-v1'?"),
        (
            ["--env-id", "nowhere:Ant-v5"],
            "error: no module 'nowhere': it is neither installed nor in the current direc",
        ),
        (["--env-id", "ALE/Pog-v5"], "error: no environment 'ALE/Pog-v5'"),
        (["--env-id", "FrozenLake-v1", "--env-kwargs", "slip=1"], "got an unexpected keyword argument 'slip'"),
        (["--action-masks"], "error: CartPole-v1: the environment provides no action mask: neither action_masks() nor"),
        (["--env-kwargs", "is_slippery"], "error: env_kwargs are NAME=VALUE, not 'is_slippery'"),
        (["--env-kwargs", "a=1", "a=2"], "error: env_kwargs say a twice"),
        (["--num-envs", "0"], "error: num_envs must be at least 1, not 0"),
        (["--steps", "-5"], "error: steps must be at least 1, not -5"),
        (["--mini-batch-size", "2048"], "error: mini_batch_size (2048) is larger than batch_size (1024)"),
        (["--load-weights", "nowhere"], "error: no weights at nowhere/Policy_weights.pth"),
        (["--run-dir", "file/run"], "error: the run directory file/run cannot be made: Not a directory\n"),
        (["--run-dir", "file"], "error: the run directory file cannot be made: it is a file\n"),
        (["--config", "file"], "error: file is not JSON: Expecting value"),
        (["--seeds", "3..1"], "error: --seeds must begin with the smaller number, not '3..1'"),
        pytest.param(
            ["--env-id", "Ant-v5"],
            "(pip install 'parallel-rl[mujoco]', or -r requirements-mujoco.txt in a checkout)\n",
            marks=pytest.mark.skipif(importlib.util.find_spec("mujoco") is not None, reason="MuJoCo is here"),
        ),
        (["--eval-episodes", "0"], "error: eval_episodes must be positive and finite, not 0"),
        (["--hidden-sizes", "-3"], "error: each of hidden_sizes must be in [1, 65536], not -3"),
        (["--seed", "-1"], "error: seed must be finite and not negative, not -1"),
        (["--seed", str(2**63)], "error: seed must be below 2**63, not 9223372036854775808"),
        (["--device", "gpu"], "error: device must be auto or one that torch knows, such as cpu or cuda, not 'gpu'"),
        (["--lag", "1", "--agent", "dqn"], "error: --lag 1 needs an on-policy agent (--agent ppo), --mode streaming,"),
        (["--lag", "1", "--mode", "mask"], "error: --lag 1 needs an on-policy agent (--agent ppo), --mode streaming,"),
        (["--lag", "1", "--acting", "replicas"], "--mode streaming, and no --acting replicas\n"),
        (["--lr", "inf"], "error: lr must be positive and finite, not inf"),
        (["--target-kl", "-1"], "error: target_kl must be positive and finite, not -1.0"),
        (["--agent", "SAC"], "error: no agent 'SAC'; did you mean 'sac'? There are ppo, dqn, ddpg, td3, sac"),
        (["--agent", "a2c"], "error: no agent 'a2c': docs/rollouts.md has a program of it; there are ppo, dqn, ddpg, "),
        (["--agent", "RecurrentPPO"], "error: no agent 'RecurrentPPO': it is ppo with --core lstm; there are ppo, dqn"),
        (["--agent", "zzz"], "error: no agent 'zzz'; there are ppo, dqn, ddpg, td3, sac"),
        (["--env-id", "Xyzzy-v0"], "error: no environment 'Xyzzy-v0'; if a module registers it, MODULE:Xyzzy-v0 imp"),
        (["--agent", "pp"], "error: no agent 'pp'; did you mean 'ppo'? There are ppo, dqn, ddpg, td3, sac"),
        (["watch", "nowhere"], "error: nowhere is not a run: it has no config.json"),
        (["evalute", "nowhere"], "error: no command 'evalute'; did you mean 'evaluate'?"),
        (["eval", "nowhere"], "error: no command 'eval'; did you mean 'evaluate'?"),
        (["dqn-train", "CartPole-v1"], "error: no command 'dqn-train'; did you mean 'train --agent dqn'?"),
        (["zzz"], "'zzz'; there are train, tune, resume, evaluate, record, watch, plot, export, envs\n"),
        (["plot"], "error: no run to plot"),
        (["envs", "zzz"], "error: no environment has 'zzz' in its id"),
        (["--checkpoint-seconds", "0"], "error: checkpoint_seconds must be positive and finite, not 0.0"),
        (["--close-timeout", "-1"], "error: close_timeout must be finite and not negative, not -1.0"),
        (["--eval-every", "-1"], "error: eval_every must be finite and not negative, not -1"),
    ],
)
def test_bad_input_is_one_clear_error(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert main.main(arguments) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "a run that cannot start leaves nothing"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--num-env 3", "no flag --num-env: did you mean --num-envs?"),
        ("--no-normalise-obs", "no flag --no-normalise-obs: did you mean --no-normalize-obs?"),
        ("--qqqq 1", "no flag --qqqq; main.py --help lists them"),
        ("tune --trails 3", "no flag --trails: did you mean --trials?"),
        ("evaluate --bst somewhere", "no flag --bst: did you mean --best?"),
        ("evaluate somewhere --gamma 1", "no flag --gamma; main.py evaluate --help lists them"),
        ("--lerning-rate 1", "no flag --lerning-rate: did you mean --lr?"),
        ("--learning-rate 1", "no flag --learning-rate: did you mean --lr?"),
        ("--total_timesteps=9", "no flag --total-timesteps: did you mean --steps?"),
        ("--n-envs 4", "no flag --n-envs: did you mean --num-envs?"),
        ("--n-steps 4", "no flag --n-steps: did you mean --batch-size? (n_steps times the environments; the former "),
        ("--algo sac", "no flag --algo: did you mean --agent?"),
        ("--tensorboard-log here", "no flag --tensorboard-log: the callback TensorBoard(directory) writes it;"),
        ("--ent-coef 0.1", "no flag --ent-coef: did you mean --entropy-coef?"),
        ("--agent sac --ent-coef 0.1", "no flag --ent-coef: did you mean --alpha?"),
        ("--lr abc", "--lr: 'abc' is not a number"),
        ("--max-seconds soon", "--max-seconds: 'soon' is not a number"),
        ("--num-workers 2.5", "--num-workers: '2.5' is not a whole number"),
        ("--lr", "--lr needs a value"),
        ("--agent", "--agent needs a value"),
        ("--config --lr 1", "--config needs a value"),
        ("--seed 0,1", "--seed takes one seed: --seeds 0,1 trains with each of them"),
        ("train --seed=0..4", "--seed takes one seed: --seeds 0..4 trains with each of them"),
        ("tune --seed 0..4", "--seed: '0..4' is not a whole number"),
        ("--acting here", "invalid choice 'here' for argument '--acting'. Expected one of ('auto', 'central', "),
        ("evaluate", "PATH is missing: directory of a training run, or that of train --seeds, for a table of all seed"),
        ("evaluate --run-dir here", "no flag --run-dir; main.py evaluate --help lists them"),
        ("evaluate here there", "Unrecognized options: there"),
        ("--use-rnd True", "--use-rnd takes no value: there are --use-rnd and --no-use-rnd"),
        ("--no-normalize-obs=1", "--no-normalize-obs takes no value: there are --normalize-obs and --no-normalize-obs"),
        ("evaluate here --best false", "--best takes no value: there are --best and --no-best"),
        ("plot --y", "--y needs a value"),
    ],
)
def test_a_command_line_that_cannot_be_read_is_one_clear_error(
    arguments: str, message: str, capsys: pytest.CaptureFixture
) -> None:
    assert main.main(arguments.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {message}")
    assert said.count("\n") == 1


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_wrong_value_is_one_line_however_tyro_draws_boxes(
    encoding: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding))
    assert main.main(["--lr", "abc"]) == 2
    assert capsys.readouterr().err == "error: --lr: 'abc' is not a number\n"


def test_a_run_directory_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "Policy_weights.pth").touch()
    assert main.main(["--run-dir", str(tmp_path)]) == 1
    assert "holds a run already: choose another --run-dir, or resume it" in capsys.readouterr().err


class Fragile(Counter):
    """Fails in some step of the process."""

    left = 0

    def step(self, action: int) -> Any:
        Fragile.left -= 1
        if Fragile.left < 0:
            raise OSError("no such device")
        return super().step(action)


def run_fragile(run_dir: Path, steps: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Train in environments that fail after so many steps; return the exit code."""
    monkeypatch.setattr(Fragile, "left", steps)
    monkeypatch.setitem(gym.registry, "Fragile-v0", gym.envs.registration.EnvSpec("Fragile-v0", Fragile))
    return main.main(["--env-id", "Fragile-v0", "--backend", "inline", "--run-dir", str(run_dir), *QUICK])


def test_weights_are_saved_when_an_environment_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert run_fragile(tmp_path / "run", 400, monkeypatch) == 1
    captured = capsys.readouterr()
    assert "error: environment " in captured.err
    assert re.search(r"stopped   by an error, at step \d+; to continue: ", captured.out)
    assert (tmp_path / "run" / "Policy_weights.pth").exists()
    stopped = json.loads((tmp_path / "run" / "summary.json").read_text())["stopped"]
    assert re.match(r"by an error: EnvError: environment \d failed in step: OSError: no such device$", stopped)


def test_a_run_without_a_step_has_nothing_to_continue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for _ in range(2):
        assert run_fragile(tmp_path / "run", 0, monkeypatch) == 1, "the same command starts again"
        captured = capsys.readouterr()
        assert "stopped   by an error, before the first step\n" in captured.out
        assert "OSError: no such device" in captured.err
        for misleading in ("continue", "curve", "saved"):
            assert misleading not in captured.out
    assert not (tmp_path / "run" / "learning_curve.png").exists()
    assert "no such device" in json.loads((tmp_path / "run" / "summary.json").read_text())["stopped"]


def test_ctrl_c_during_the_imports_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    class Importing(ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "parallel_rl.main", Importing("parallel_rl.main"))
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(Path(__file__).parents[1] / "main.py"), run_name="__main__")
    assert ended.value.code == 130
