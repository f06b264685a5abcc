"""The directory of a run: what is in it, and how to make from it what was trained, and on what."""

import ast
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import datetime
from functools import partial, reduce
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from typeguard import TypeCheckError, check_type

from AsyncPPO.callbacks import CHECKPOINT_DIRECTORY, checkpoints_in, steps_of
from config import ADDED, TrainConfig
from utils import DamagedError, write_atomically

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import gymnasium as gym

    from AsyncPPO.backends import EnvFactory
    from PPO import PPO

    Wrap = Callable[[gym.Env], gym.Env]

CONFIG_FILE = "config.json"
SUMMARY_FILE = "summary.json"
LOCK_FILE = ".lock"
CURVE_FILE = "learning_curve.png"
BEST_DIRECTORY = "best"
ROOT = Path(__file__).parents[1]
PYTHON = "python" if shutil.which("python") == sys.executable else os.path.relpath(sys.executable)
PROGRAM = f"{PYTHON} {os.path.relpath(ROOT / 'main.py')}"
"""How to call this again, from here and with this interpreter."""
LIBRARIES = ("torch", "gymnasium", "numpy")
NAMED_VALUES = {"true": True, "false": False, "none": None}


def choose_run_dir(config: TrainConfig) -> Path:
    """Return the directory of a run that is to begin.

    Raises:
        FileExistsError: it holds a run already.
    """
    from PPO.saving import POLICY_FILE

    now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S_%f")
    run_dir = Path(config.run_dir or Path("runs") / config.env_id / now)
    begun = (run_dir / POLICY_FILE).exists() or checkpoints_in(run_dir / CHECKPOINT_DIRECTORY)
    if (run_dir / CONFIG_FILE).exists() and begun:  # what ended before it had learnt anything may begin again
        raise FileExistsError(f"{run_dir} holds a run already: choose another --run-dir, or resume it")
    return run_dir


def note_start(run_dir: Path, config: TrainConfig, *, resumed: bool) -> None:
    """Write `config.json`; into that of a run that goes on, how it does."""
    file = run_dir / CONFIG_FILE
    start = {
        "command": shlex.join(sys.orig_argv),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
        "git_commit": _git_commit(),
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    if resumed:
        content = json.loads(file.read_text())
        content["resumed"] = [*content.get("resumed", []), start]
    else:
        content = {"config": asdict(config), **start}
    write_json(file, content)


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Make a directory and keep other processes from training in it, where the system has locks.

    Raises:
        RuntimeError: one does; if it is killed, its lock is gone.
        OSError: the directory cannot be made or written.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield
        return
    with open(run_dir / LOCK_FILE, "w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RuntimeError(f"another process is training in {run_dir}") from None
        yield


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
        known = {field.name for field in fields(TrainConfig)}
        unknown, missing = settings.keys() - known, known - settings.keys() - ADDED
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is not the configuration of a run: {type(error).__name__}") from error
    if missing:
        raise ValueError(f"{file} does not say {', '.join(sorted(missing))}")
    if unknown:
        raise ValueError(f"{file} has settings that this version does not know: {', '.join(sorted(unknown))}")
    hints = get_type_hints(TrainConfig)
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    for name, value in settings.items():
        try:
            check_type(value, hints[name])
        except TypeCheckError as error:
            raise ValueError(f"{file} says {name}={value!r}: {error}") from None
    return TrainConfig(**settings)


def agent_of(run_dir: Path, *, best: bool = False) -> tuple[TrainConfig, "PPO"]:
    """Return the configuration of a run, and the agent with what it has learnt.

    Args:
        run_dir: of the run; of one that was killed, its newest checkpoint counts.
        best: take the best evaluation's weights, not the last.

    Raises:
        FileNotFoundError: the directory is not a run's, or there are no weights.
        ValueError: they are damaged, or do not fit.
    """
    config = config_of(run_dir)
    ppo = fresh_agent(config)
    if best:
        ppo.load_weights(run_dir / BEST_DIRECTORY)
    else:
        load_latest(ppo, run_dir)
    return config, ppo


def fresh_agent(config: TrainConfig) -> "PPO":
    """Return an agent that has learnt nothing yet.

    Raises:
        ValueError: a setting out of its range; the message names it.
    """
    from AsyncPPO.factory import sample_env
    from PPO import PPO

    with sample_env(factory_of(config)) as env:
        return PPO.for_env(env, **config.ppo())


def load_latest(ppo: "PPO", directory: Path) -> None:
    """Load into an agent what was learnt last: the weights in a directory, or the newest checkpoint of a killed run.

    Raises:
        FileNotFoundError: there are none.
        ValueError: they are damaged, or do not fit.
    """
    from AsyncPPO.trainer import read_checkpoint
    from PPO.saving import POLICY_FILE

    checkpoints = checkpoints_in(directory / CHECKPOINT_DIRECTORY)
    if checkpoints and (not (directory / POLICY_FILE).exists() or steps_of(checkpoints[-1]) > _steps_saved(directory)):
        load_newest(lambda path: ppo.load_networks(read_checkpoint(path)["ppo"]["networks"]), checkpoints)
    else:
        ppo.load_weights(directory)


def _steps_saved(run_dir: Path) -> int:
    """Return after how many steps the weights of a run were saved."""
    try:
        return json.loads((run_dir / SUMMARY_FILE).read_text())["steps"]
    except (OSError, ValueError, LookupError, TypeError):
        return 0


def load_newest(load: Callable[[Path], None], checkpoints: Sequence[Path]) -> None:
    """Load the last of some checkpoints; if it is damaged, say which would do.

    Raises:
        ValueError: it is damaged, or does not fit.
    """
    try:
        load(checkpoints[-1])
    except DamagedError as error:
        before = f"; delete it, and {checkpoints[-2]} is taken" if len(checkpoints) > 1 else ""
        raise DamagedError(f"{error}{before}") from error


def env_of(config: TrainConfig, *, training: bool = False) -> Any:
    """Return what is stepped in a run: what makes it, or an id for an environment's vectorized form.

    Raises:
        ValueError: an unknown environment, or the vectorized form of one that is not to be as it is.
    """
    if config.backend != "vector":
        return factory_of(config, training=training)
    if config.action_masks or config.env_kwargs or config.wrapper or config.env_id.startswith("ALE/"):
        raise ValueError(
            "backend='vector' takes environments as they are: without env_kwargs, wrappers and action masks, and not "
            "ALE/..."
        )
    return config.env_id


def factory_of(config: TrainConfig, *, training: bool = False, **kwargs: Any) -> "EnvFactory":
    """Return what makes the environment of a run; Atari games are made easier to train on with `training`.

    Raises:
        ValueError: an unknown environment, wrong arguments of it, or an unknown wrapper.
    """
    from AsyncPPO import ActionMasks, env_factory, make_atari

    wrappers = wrappers_of(config.wrapper) + ([ActionMasks] if config.action_masks else [])
    kwargs = _kwargs_of(config) | kwargs
    if config.env_id.startswith("ALE/"):
        make: EnvFactory = partial(make_atari, config.env_id, training=training, **kwargs)
    else:
        make = env_factory(config.env_id, **kwargs)
    return (lambda: reduce(lambda env, wrap: wrap(env), wrappers, make())) if wrappers else make


def wrappers_of(names: Sequence[str]) -> list["Wrap"]:
    """Import wrappers: classes, or functions of an environment.

    Args:
        names: MODULE:CLASS of each.

    Raises:
        ValueError: one that is not there; the message names it.
    """
    wrappers = []
    for name in names:
        module, colon, attribute = name.partition(":")
        if not (module and colon and attribute):
            raise ValueError(f"a wrapper is MODULE:CLASS, not {name!r}")
        try:
            wrapper = getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"no wrapper {name!r} ({error})") from None
        if not callable(wrapper):
            raise ValueError(f"the wrapper {name!r} is neither a class nor a function, but {wrapper!r}")
        wrappers.append(wrapper)
    return wrappers


def _kwargs_of(config: TrainConfig) -> dict[str, Any]:
    """Return the arguments of a run's environment.

    Raises:
        ValueError: one that is not NAME=VALUE, or a name twice.
    """
    kwargs: dict[str, Any] = {}
    for argument in config.env_kwargs:
        name, equals, value = argument.partition("=")
        if not name.isidentifier() or not equals:
            raise ValueError(f"env_kwargs are NAME=VALUE, not {argument!r}")
        if name in kwargs:
            raise ValueError(f"env_kwargs say {name} twice")
        kwargs[name] = _literal(value)
    return kwargs


def _literal(text: str) -> Any:
    """Return the value of a Python literal, of `NAMED_VALUES` in any case; of all else the text."""
    if text.lower() in NAMED_VALUES:
        return NAMED_VALUES[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


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
