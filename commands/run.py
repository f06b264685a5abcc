"""The directory of a run: what is in it, and how to make from it what was trained, and on what."""

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, fields
from datetime import datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from AsyncPPO.callbacks import CHECKPOINT_DIRECTORY, checkpoints_in
from config import TrainConfig
from utils import load_state, write_atomically

if TYPE_CHECKING:
    from AsyncPPO.backends import EnvFactory
    from PPO import PPO

CONFIG_FILE = "config.json"
SUMMARY_FILE = "summary.json"
CURVE_FILE = "learning_curve.png"
BEST_DIRECTORY = "best"
ROOT = Path(__file__).parents[1]
PYTHON = "python" if shutil.which("python") == sys.executable else os.path.relpath(sys.executable)
PROGRAM = f"{PYTHON} {os.path.relpath(ROOT / 'main.py')}"
"""How to call this again, from here and with this interpreter."""
LIBRARIES = ("torch", "gymnasium", "numpy")


def make_run_dir(config: TrainConfig) -> Path:
    """Make the directory of the run, before anything is spent on it.

    Raises:
        FileExistsError: it holds a run already.
        OSError: it cannot be made or written.
    """
    now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S_%f")
    run_dir = Path(config.run_dir or Path("runs") / config.env_id / now)
    if (run_dir / CONFIG_FILE).exists():
        raise FileExistsError(f"{run_dir} holds a run already: choose another --run-dir, or resume it")
    run_dir.mkdir(parents=True, exist_ok=True)
    write_json(
        run_dir / CONFIG_FILE,
        {
            "config": asdict(config),
            "command": shlex.join(sys.orig_argv),
            "versions": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
            "git_commit": _git_commit(),
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        },
    )
    return run_dir


def config_of(run_dir: Path) -> TrainConfig:
    """Return the configuration of a run.

    Raises:
        FileNotFoundError: the directory is not a run's.
        ValueError: its configuration is not one of this program.
    """
    file = run_dir / CONFIG_FILE
    if not file.is_file():
        raise FileNotFoundError(f"{run_dir} is not a run: it has no {CONFIG_FILE}")
    try:
        settings = json.loads(file.read_text())["config"]
        unknown = settings.keys() - {field.name for field in fields(TrainConfig)}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is not the configuration of a run: {error!r}") from error
    if unknown:
        raise ValueError(f"{file} has settings that this version does not know: {', '.join(sorted(unknown))}")
    return TrainConfig(**settings | {"hidden_sizes": tuple(settings["hidden_sizes"])})


def agent_of(run_dir: Path, *, best: bool = False) -> tuple[TrainConfig, "PPO"]:
    """Return the configuration of a run, and the agent with what it has learnt.

    Args:
        run_dir: of the run; of one that was killed, its newest checkpoint counts.
        best: take the best evaluation's weights, not the last.

    Raises:
        FileNotFoundError: the directory is not a run's, or there are no weights.
        ValueError: they are damaged, or do not fit.
    """
    from AsyncPPO import make_env
    from PPO.agent import POLICY_FILE, PPO

    config = config_of(run_dir)
    with make_env(factory_of(config)) as env:
        ppo = PPO.for_env(env, **config.ppo())
    weights, checkpoints = run_dir / POLICY_FILE, checkpoints_in(run_dir / CHECKPOINT_DIRECTORY)
    if best:
        ppo.load_weights(run_dir / BEST_DIRECTORY)
    elif checkpoints and (not weights.exists() or weights.stat().st_mtime < checkpoints[-1].stat().st_mtime):
        ppo.load_state(load_state(checkpoints[-1])["ppo"])
    else:
        ppo.load_weights(run_dir)
    return config, ppo


def env_of(config: TrainConfig, *, training: bool = False) -> Any:
    """Return what is stepped in a run: what makes it, or an id for an environment's vectorized form.

    Raises:
        ValueError: an unknown environment, or the vectorized form of one that is to be wrapped.
    """
    if config.backend != "vector":
        return factory_of(config, training=training)
    if config.action_masks or config.env_id.startswith("ALE/"):
        raise ValueError("backend='vector' takes environments as they are: without action masks, and not ALE/...")
    return config.env_id


def factory_of(config: TrainConfig, *, training: bool = False, **kwargs: Any) -> "EnvFactory":
    """Return what makes the environment of a run; Atari games are made easier to train on with `training`.

    Raises:
        ValueError: an unknown environment.
    """
    import gymnasium as gym

    from AsyncPPO import ActionMasks, env_factory, make_atari

    if config.env_id.startswith("ALE/"):
        return partial(make_atari, config.env_id, training=training, **kwargs)
    env_factory(config.env_id)  # names the nearest id if it is unknown

    def make() -> gym.Env:
        env = gym.make(config.env_id, disable_env_checker=True, **kwargs)
        return ActionMasks(env) if config.action_masks else env

    return make


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    write_atomically(path, lambda file: file.write(json.dumps(content, indent=2, allow_nan=False).encode()))


def _git_commit() -> str | None:
    """Return the commit of this program, with a `+` where files differ from it; None outside of git."""
    run: Callable[..., subprocess.CompletedProcess[str]] = partial(
        subprocess.run, cwd=ROOT, capture_output=True, text=True, check=False
    )
    try:
        commit = run(["git", "rev-parse", "HEAD"])
        changed = run(["git", "status", "--porcelain", "--untracked-files=no"])
    except OSError:
        return None
    return commit.stdout.strip() + ("+" if changed.stdout else "") if commit.returncode == 0 else None
