"""The directory of a run: its files, its record in `config.json`, and the lock on it."""

import operator
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import reduce
from itertools import chain
from pathlib import Path
from typing import Any

from AsyncPPO.callbacks import CHECKPOINT_DIRECTORY, checkpoints_in
from parallel_rl.agents import agent_kind
from parallel_rl.commands.output import note
from parallel_rl.commands.program import commit
from parallel_rl.commands.values import checked
from parallel_rl.config import DEFAULT_AGENT, TrainConfig, setting_names, setting_types, train_config
from parallel_rl.utils import DamagedError, append_to, older, read_json, to_json, whole_number, write_atomically
from parallel_rl.utils.versions import versions

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

CONFIG_FILE = "config.json"
SUMMARY_FILE = "summary.json"
LOCK_FILE = ".lock"
CURVE_FILE = "learning_curve.png"
CURVES_FILE = "learning_curves.png"
"""That of several runs."""
BEST_DIRECTORY = "best"
RUN_DEPTH = 5
"""How far below a directory of runs a run may be: MODULE/NAMESPACE/ID/DATE/seed_0."""


def runs_of(env_id: str) -> Path:
    """Return the directory of the runs of an environment; a colon cannot be in a name on all systems."""
    return Path("runs") / env_id.replace(":", "/")


def with_run_dir(config: TrainConfig) -> TrainConfig:
    """Return the config of a new run with the directory of its results.

    Raises:
        FileExistsError: it holds a run already.
    """
    now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S_%f")
    run_dir = Path(config.run.run_dir or runs_of(config.run.env_id) / now)
    weights = run_dir / agent_kind(config.agent).weights
    begun = weights.exists() or checkpoints_in(run_dir / CHECKPOINT_DIRECTORY)
    if (run_dir / CONFIG_FILE).exists() and begun:  # a run that ended before its first update may start again
        raise FileExistsError(f"{run_dir} holds a run already: choose another --run-dir, or resume it")
    return config.changed({"run_dir": str(run_dir)})


def note_start(config: TrainConfig, *, resumed: bool, changed: dict[str, Any]) -> None:
    """Write the `config.json` of a new run, or add the resumption and the changed settings to a resumed run's."""
    file = config.run_dir / CONFIG_FILE
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
        content = config.record() | start
    write_json(file, content)


@contextmanager
def locked(run_dir: Path, *, wait: bool = False) -> Iterator[None]:
    """Make a directory and lock it, so that no other process trains in it (on systems with file locks).

    Args:
        run_dir: the directory.
        wait: whether to wait for another process that has it.

    Raises:
        RuntimeError: another process trains in it. The lock of a killed process is free.
        OSError: the directory cannot be made or written, or is a link.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fault = "it is a file" if run_dir.is_file() else error.strerror
        raise OSError(f"the run directory {run_dir} cannot be made: {fault}") from error
    for directory in (run_dir / CHECKPOINT_DIRECTORY, run_dir / BEST_DIRECTORY):
        if directory.is_symlink():  # a run would replace and delete files elsewhere
            raise OSError(f"{directory} is a link: a run writes only into its own directory")
    if fcntl is None:
        yield
        return
    with append_to(run_dir / LOCK_FILE) as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            raise RuntimeError(f"another process is training in {run_dir}") from None
        yield


def config_of(run_dir: Path) -> TrainConfig:
    """Return the config of a run.

    Raises:
        FileNotFoundError: it is not the directory of a run.
        ValueError: its config is not valid; the message names the file.
    """
    file = run_dir / CONFIG_FILE
    if not file.is_file():
        other = "".join(f"; {run} is one" for run in runs_in(run_dir)[-1:])
        if (run_dir.parent / CONFIG_FILE).is_file():
            best = ", whose best weights --best takes" if run_dir.name == BEST_DIRECTORY else ""
            other = f"; {run_dir.parent} is one{best}"
        raise FileNotFoundError(f"{run_dir} is not a run: it has no {CONFIG_FILE}{other}")
    return config_in(file)


def runs_in(directory: Path) -> list[Path]:
    """Return the directory if it is a run, otherwise the runs in it, up to `RUN_DEPTH` levels below."""
    if (directory / CONFIG_FILE).is_file():
        return [directory]
    files = (directory.glob("*/" * depth + CONFIG_FILE) for depth in range(1, RUN_DEPTH + 1))
    return sorted(file.parent for file in chain.from_iterable(files))


def config_in(file: Path) -> TrainConfig:
    """Return the config in a file that a run wrote as its `config.json`.

    Raises:
        ValueError: it is not valid; the message names the file.
        OSError: it cannot be read.
    """
    record = _record_in(file)
    try:
        agent = record.get("agent", DEFAULT_AGENT)
        known = setting_names(agent)
        first = older.run_record(record)
        changes = [start.get("changed", {}) for start in record.get("resumed", [])]
        current = reduce(operator.or_, changes, first["run"] | first["settings"])
        values = {known.get(name.lower(), name): value for name, value in current.items()}
        for (name, value), new in older.VALUES.items():
            if values.get(name) == value:
                values[name] = new
                note(f"{file} has {name}={value}, which no longer exists: {name}={new} replaces it")
        if unknown := values.keys() - {*known.values()}:
            raise ValueError(f"this version does not know the settings {', '.join(sorted(unknown))}")
        types = setting_types(agent)
        config = train_config(agent, {name: checked(name, value, types[name]) for name, value in values.items()})
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    if missing := {*known.values()} - values.keys():
        note(f"{file} is of an older version: the defaults stand for {', '.join(sorted(missing))}")
    return config


def values_over_time(run_dir: Path) -> dict[str, list[Any]]:
    """Return the values, from the first to the current one, of the settings that changed when a run was resumed."""
    record = _record_in(run_dir / CONFIG_FILE)
    today = older.run_record(record)
    first, values = today["run"] | today["settings"], dict[str, list[Any]]()
    for start in record.get("resumed", []):
        for name, value in start.get("changed", {}).items():
            known = values.setdefault(name, [first[name]] if name in first else [])
            if known[-1:] != [value]:
                known.append(value)
    return values


def _record_in(file: Path) -> dict[str, Any]:
    """Return the record that `note_start` wrote, as it is.

    Raises:
        ValueError: it is not such a record.
    """
    record = read_json(file)
    parts: list[Any] = [older.run_record(record).get(name) for name in ("run", "settings")]
    resumed = record.get("resumed", [])
    known = (
        isinstance(record.get("agent", ""), str)
        and all(isinstance(part, dict) for part in parts)
        and "env_id" in parts[0]
        and isinstance(resumed, list)
        and all(isinstance(start, dict) and isinstance(start.get("changed", {}), dict) for start in resumed)
    )
    if not known:
        raise ValueError(f"{file} is not the configuration of a run")
    return record


def steps_saved(run_dir: Path) -> int:
    """Return how many steps a run had done when its weights were saved; 0 if unknown."""
    try:
        return whole_number(read_json(run_dir / SUMMARY_FILE)["steps"], "number of steps")
    except (OSError, ValueError, LookupError):
        return 0


def load_newest(load: Callable[[Path], None], checkpoints: Sequence[Path]) -> None:
    """Load the last of some checkpoints; if it is damaged, the error names the previous one.

    Raises:
        ValueError: it is damaged, or does not fit.
    """
    try:
        load(checkpoints[-1])
    except DamagedError as error:
        before = f"; delete it, and {checkpoints[-2]} is taken" if len(checkpoints) > 1 else ""
        raise DamagedError(f"{error}{before}") from error


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file completely or not at all."""
    write_atomically(path, lambda file: file.write(to_json(content, indent=2).encode()))
