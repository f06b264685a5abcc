"""Tensors in files: written whole or not at all, read without running anything."""

import io
import os
import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile, ZipFile, is_zipfile

UNFINISHED_SUFFIX = ".unfinished"


def write_atomically(path: str | os.PathLike[str], write: Callable[[IO[bytes]], object]) -> None:
    """Write a file aside and move it into place, so that a crash leaves the old file or the new one.

    Args:
        path: the file; its directory must exist.
        write: called with the open binary file.

    Raises:
        OSError: the directory cannot be written, or the disk is full; the message names the file.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}{UNFINISHED_SUFFIX}")
    try:
        with open(aside, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        _flush_directory(path.parent)
    except BaseException as error:
        aside.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def _flush_directory(directory: Path) -> None:
    """Make sure that a renamed file outlasts a power cut, where directories can be flushed."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def save_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Any]) -> None:
    """Save a state dict.

    Raises:
        OSError: see `write_atomically`.
    """
    import torch

    content = io.BytesIO()  # torch's own writer does not say that a disk is full
    torch.save(dict(tensors), content)
    write_atomically(path, lambda file: file.write(content.getbuffer()))


def remove_unfinished(directory: Path) -> None:
    """Remove what killed processes have left of `write_atomically` in a directory."""
    for file in directory.glob(f".*{UNFINISHED_SUFFIX}"):
        file.unlink()


def load_tensors(path: str | os.PathLike[str], device: Any) -> dict[str, Any]:
    """Load a state dict onto `device`; a pickle in it is refused, not run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a file of tensors, or damaged.
    """
    import torch

    if not Path(path).is_file():
        raise FileNotFoundError(f"no weights at {path}")
    try:
        if is_zipfile(path):  # as `torch.save` makes it, with checksums that `torch.load` does not look at
            with ZipFile(path) as parts:
                damaged = parts.testzip()
            if damaged is not None:
                raise ValueError(f"{damaged} in it is damaged")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a pickle that is refused anyway
            tensors = torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(f"{path} is not a file of tensors: it holds objects, whose loading could run code") from None
    except (BadZipFile, RuntimeError, EOFError, OSError, ValueError) as error:
        raise ValueError(f"{path} is not a file of tensors: {error}") from error
    if not isinstance(tensors, dict) or not all(torch.is_tensor(tensor) for tensor in tensors.values()):
        raise ValueError(f"{path} is not a file of tensors: it holds something else")
    return tensors


def load_fitting(module: Any, path: str | os.PathLike[str], device: Any) -> dict[str, Any]:
    """Load a state dict that fits `module`, which is not changed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a file of tensors, or they do not fit the module.
    """
    saved = load_tensors(path, device)
    check_fit(saved, module.state_dict(), f"the weights in {path}")
    return saved


def check_fit(saved: Mapping[str, Any], own: Mapping[str, Any], what: str) -> None:
    """Check that tensors or arrays, by name, have the names and shapes of others.

    Raises:
        ValueError: they do not; the message says which, and begins with `what` they are.
    """
    faults = [f"{name} is missing" for name in own.keys() - saved.keys()]
    faults += [f"{name} is not part of this network" for name in saved.keys() - own.keys()]
    faults += [
        f"{name} is {tuple(saved[name].shape)} in the file and {tuple(own[name].shape)} in this network"
        for name in own.keys() & saved.keys()
        if saved[name].shape != own[name].shape
    ]
    if faults:
        raise ValueError(f"{what} do not fit: {'; '.join(sorted(faults))}")
