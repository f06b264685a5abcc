"""Files: written completely or not at all, never through a link, and read without executing anything."""

import json
import math
import os
import pickle
import stat
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_STORED, ZipFile, is_zipfile

import numpy as np

UNFINISHED_SUFFIX = ".unfinished"
NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""Flags with which `open` does not follow a link or wait for the reader of a pipe, on systems that have them."""
LARGEST_JSON = 2**24
"""Limit in bytes, far above the size of any JSON file of this program."""


def write_atomically(path: str | os.PathLike[str], write: Callable[[IO[bytes]], object]) -> None:
    """Write a file under another name and rename it, so that a crash leaves either the old file or the new one.

    Args:
        path: the file; its directory must exist.
        write: called with the open binary file.

    Raises:
        OSError: the directory cannot be written, or the disk is full; the message names the file.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}{UNFINISHED_SUFFIX}")
    try:
        aside.unlink(missing_ok=True)  # removes a link that somebody placed there, not its target
        with open(aside, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        _flush_directory(path.parent)
    except BaseException as error:
        with suppress(OSError):
            aside.unlink()
        if isinstance(error, OSError) and error.errno is not None and error.filename in (None, str(aside)):
            error.filename = str(path)
        raise


def _flush_directory(directory: Path) -> None:
    """Make a renamed file survive a power failure, on systems that can flush directories."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def append_to(path: str | os.PathLike[str]) -> IO[str]:
    """Open a text file for appending; make it if it is missing.

    Raises:
        OSError: it cannot be opened, or is a link, a pipe, ... instead of a file.
    """
    if os.path.islink(path):
        raise OSError(f"{path} is a link: what it points to is not written to")
    file = open(path, "a", newline="", opener=lambda name, flags: os.open(name, flags | NO_LINK, 0o666))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(f"{path} is not a file")
    return file


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a JSON object.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    if path.stat().st_size > LARGEST_JSON:
        raise ValueError(f"{path} is too large to be a JSON file of a run")
    try:
        content = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} does not hold an object of JSON")
    return content


def to_json(content: Any, indent: int | None = None) -> str:
    """Return JSON text; a number that is not finite becomes null, since JSON has no such numbers."""
    return json.dumps(_plain(content), indent=indent, allow_nan=False)


def _plain(content: Any) -> Any:
    """Return a tree with the numbers that JSON has."""
    if isinstance(content, dict):
        return {name: _plain(part) for name, part in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(part) for part in content]
    if isinstance(content, np.generic):
        return _plain(content.item())
    return None if isinstance(content, float) and not math.isfinite(content) else content


def remove_unfinished(directory: Path) -> None:
    """Remove the unfinished files of `write_atomically` that killed processes left in a directory."""
    for file in directory.glob(f".*{UNFINISHED_SUFFIX}"):
        file.unlink()


def load_tensors(path: str | os.PathLike[str], device: Any) -> dict[str, Any]:
    """Load a state dict that `torch.save` wrote, onto `device`; pickled objects in it are refused, not executed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a file of tensors, or damaged.
    """
    import torch

    if not Path(path).is_file():
        raise FileNotFoundError(f"no weights at {path}")
    try:
        if is_zipfile(path):  # as `torch.save` writes it, with checksums that `torch.load` does not check
            with ZipFile(path) as parts:
                if any(part.compress_type != ZIP_STORED for part in parts.infolist()):
                    raise ValueError("it is compressed")
                damaged = parts.testzip()
            if damaged is not None:
                raise ValueError(f"{damaged} in it is damaged")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about a pickle that is refused anyway
            tensors = torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(f"{path} is not a file of tensors: it holds objects, whose loading could run code") from None
    except Exception as error:  # zip, zlib, struct, pickle and torch raise many types for damaged files
        raise ValueError(f"{path} is not a file of tensors: {str(error) or type(error).__name__}") from error
    if not isinstance(tensors, dict) or not all(torch.is_tensor(tensor) for tensor in tensors.values()):
        raise ValueError(f"{path} is not a file of tensors: it holds something else")
    return tensors
