"""Which modules a config would import, and whether they may be imported."""

import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from parallel_rl.commands.values import kwargs_of
from parallel_rl.config import RunConfig

PERHAPS_A_MODULE = re.compile(r"([^\W\d]\w*)[.:]")
"""The module part of a name."""
TRUST = "--trust-env-module"
WRAPPERS = "gymnasium.wrappers"
"""A module that is safe to import."""


def untrusted_modules(run: RunConfig) -> set[str]:
    """Return the modules that are imported, and so executed, when the environment or a callback of a run is made.

    These are the modules of the environment's id, of its wrappers and of callbacks, and those that an argument of the
    environment may name: text that begins with the name of an installed module.
    """
    named = {name.partition(":")[0] for name in (*run.wrapper, *run.callback)} - {WRAPPERS}
    modules = ({run.env_id.rpartition(":")[0]} | named) - {""}
    texts = (text for value in kwargs_of(run).values() for text in _texts_in(value))
    return modules.union(text for text in texts if _names_module(text))


def check_trust(run: RunConfig, file: Path, trusted: bool, typed: RunConfig | None = None) -> None:
    """Check that a file names no module to import, unless the command line allows it.

    Args:
        run: the settings in the file.
        file: for the message.
        trusted: whether the command line allows it.
        typed: the settings that were typed on the command line; their modules are trusted.

    Raises:
        ValueError: the file names a module; the message says which, and how to allow it.
    """
    modules = untrusted_modules(run) - (untrusted_modules(typed) if typed else set())
    if modules and not trusted:
        raise ValueError(
            f"{file} names the module {', '.join(sorted(modules))}, which would be imported, and so run: if you trust "
            f"it, allow that with {TRUST}"
        )


def run_arguments(run: RunConfig, run_dir: Path) -> str:
    """Return the arguments with which further commands work on a run: its directory, and the flag that they need."""
    return shlex.quote(str(run_dir)) + (f" {TRUST}" if untrusted_modules(run) else "")


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _texts_in([*value, *value.values()])
    elif isinstance(value, list | tuple | set):
        for part in value:
            yield from _texts_in(part)


def _names_module(text: str) -> bool:
    """Return whether a text begins with the name of an installed module; nothing is imported."""
    name = PERHAPS_A_MODULE.match(text)
    try:
        return name is not None and find_spec(name[1]) is not None
    except ValueError:  # it is loaded, but has no spec
        return True
