"""The directory of a run: what is in it, and how to make from it what was trained, and on what."""

import json
import operator
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import datetime
from functools import partial, reduce
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from AsyncPPO.callbacks import CHECKPOINT_DIRECTORY, checkpoints_in, steps_of
from AsyncPPO.checkpoint import SIGNATURE, read_checkpoint
from parallel_rl.commands.output import note
from parallel_rl.commands.program import commit
from parallel_rl.commands.trust import check_trust, kwargs_of
from parallel_rl.config import TrainConfig
from parallel_rl.utils import DamagedError, append_to, read_json, whole_number, write_atomically
from parallel_rl.utils.versions import versions

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
LARGEST_WHOLE = 2**63
"""What a setting stays below."""


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


def note_start(run_dir: Path, config: TrainConfig, *, resumed: bool, changed: dict[str, Any]) -> None:
    """Write `config.json`; into that of a run that goes on, how it does, and which settings are others from there."""
    file = run_dir / CONFIG_FILE
    start = {
        "command": shlex.join(sys.orig_argv),
        "versions": versions(),
        "git_commit": commit(),
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    if resumed:
        content = _record_in(file)
        content["resumed"] = [*content.get("resumed", []), start | ({"changed": changed} if changed else {})]
    else:
        content = {"config": asdict(config), **start}
    write_json(file, content)


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Make a directory and keep other processes from training in it, where the system has locks.

    Raises:
        RuntimeError: one does; if it is killed, its lock is gone.
        OSError: the directory cannot be made or written, or it leads out of itself.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    for directory in (run_dir / CHECKPOINT_DIRECTORY, run_dir / BEST_DIRECTORY):
        if directory.is_symlink():  # whose files a run would replace and delete
            raise OSError(f"{directory} is a link: what a run writes has to lie in its directory")
    if fcntl is None:
        yield
        return
    with append_to(run_dir / LOCK_FILE) as file:
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
    settings = _settings_in(_record_in(file))
    known = {field.name for field in fields(TrainConfig)}
    if unknown := settings.keys() - known:
        raise ValueError(f"{file} has settings that this version does not know: {', '.join(sorted(unknown))}")
    hints = get_type_hints(TrainConfig)
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    for name, value in settings.items():
        try:
            check_type(value, hints[name], collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
        except TypeCheckError as error:
            raise ValueError(f"{file} says {name}={value!r}: {error}") from None
        for number in value if isinstance(value, tuple) else [value]:
            if isinstance(number, int) and abs(number) >= LARGEST_WHOLE:
                raise ValueError(f"{file} says {name}={value}: that is too large")
    if missing := known - settings.keys():
        note(f"{file} is of an older version: the defaults stand for {', '.join(sorted(missing))}")
    return TrainConfig(**settings)


def _settings_in(record: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that a run has by now: those that it began with, and what was changed where it went on."""
    return reduce(operator.or_, [start.get("changed", {}) for start in record.get("resumed", [])], record["config"])


def _record_in(file: Path) -> dict[str, Any]:
    """Return what `note_start` wrote.

    Raises:
        ValueError: it is something else.
    """
    try:
        record = read_json(file)
    except ValueError as error:
        raise ValueError(f"{file} is not the configuration of a run: {error}") from error
    settings, resumed = record.get("config"), record.get("resumed", [])
    known = isinstance(settings, dict) and "env_id" in settings and isinstance(resumed, list)
    if not known or not all(
        isinstance(start, dict) and isinstance(start.get("changed", {}), dict) for start in resumed
    ):
        raise ValueError(f"{file} is not the configuration of a run")
    return record


def agent_of(run_dir: Path, *, best: bool = False, trust_env_module: bool = False) -> tuple[TrainConfig, "PPO"]:
    """Return the configuration of a run, and the agent with what it has learnt.

    Args:
        run_dir: of the run; of one that was killed, its newest checkpoint counts.
        best: take the best evaluation's weights, not the last.
        trust_env_module: import what the configuration names.

    Raises:
        FileNotFoundError: the directory is not a run's, or there are no weights.
        ValueError: they are damaged, or do not fit; or a module is named that is not to be imported.
    """
    config = config_of(run_dir)
    check_trust(config, run_dir / CONFIG_FILE, trust_env_module)
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
    from PPO.saving import POLICY_FILE

    checkpoints = checkpoints_in(directory / CHECKPOINT_DIRECTORY)
    if checkpoints and (not (directory / POLICY_FILE).exists() or steps_of(checkpoints[-1]) > _steps_saved(directory)):
        load_newest(partial(_load_networks, ppo), checkpoints)
    else:
        ppo.load_weights(directory)


def _load_networks(ppo: "PPO", checkpoint: Path) -> None:
    state = read_checkpoint(checkpoint)
    try:
        ppo.load_networks(state["agent"].get("networks"), state.get(SIGNATURE))
    except ValueError as error:
        raise ValueError(f"{checkpoint}: {error}") from error


def _steps_saved(run_dir: Path) -> int:
    """Return after how many steps the weights of a run were saved."""
    try:
        return whole_number(read_json(run_dir / SUMMARY_FILE)["steps"], "number of steps")
    except (OSError, ValueError, LookupError):
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
    kwargs = kwargs_of(config) | kwargs
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
        ValueError: one that is not there, or needs more than the environment; the message names it.
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
        _check_takes_env_alone(name, wrapper)
        wrappers.append(wrapper)
    return wrappers


def _check_takes_env_alone(name: str, wrapper: Callable[..., Any]) -> None:
    try:
        parameters = signature(wrapper)
    except ValueError:  # written in C: it shows when it is called
        return
    try:
        parameters.bind("env")
    except TypeError as error:
        raise ValueError(
            f"the wrapper {name!r} cannot be called with the environment alone ({error}): a function of your own that "
            "takes the environment and returns it wrapped can give it its arguments"
        ) from None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    write_atomically(path, lambda file: file.write(json.dumps(content, indent=2, allow_nan=False).encode()))
