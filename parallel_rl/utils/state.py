"""A tree of arrays and plain values in one file, with a checksum; reading it executes nothing.

The first line of the file is the format and the SHA-256 of the rest. The rest is a safetensors file: the arrays, by
their path in the tree, and the tree itself as JSON.
"""

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np
import safetensors.numpy

from parallel_rl.utils.files import write_atomically

State = dict[str, Any]
"""Numbers, strings, None, arrays or tensors, and lists and dicts of these, by name."""
FORMAT = b"async-ppo-state-1"
LONGEST_HEAD = 200
TREE = "tree.json"
ARRAY, DTYPE = "array at", "dtype"
"""The keys of a dict in place of an array: its path, and the type of a structured array, which is saved as bytes."""
DTYPES = {
    np.dtype(kind): name
    for name, kind in {
        "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8",
        "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8",
    }.items()
}  # fmt: skip
"""Safetensors' names of the types of numbers."""


class DamagedError(ValueError):
    """A file is damaged, or not written by `save_state`."""


def save_state(path: str | os.PathLike[str], state: State) -> None:
    """Save a tree completely or not at all.

    Raises:
        TypeError: something in it is neither an array nor a plain value.
        OSError: the file cannot be written; an older file there is untouched.
    """
    arrays = _arrays_of(state)
    write_atomically(path, lambda file: _write(file, arrays))


def state_to_bytes(tree: Any) -> bytes:
    """Return what `save_state` writes.

    Raises:
        TypeError: something in it is neither an array nor a plain value.
    """
    file = BytesIO()
    _write(file, _arrays_of(tree))
    return file.getvalue()


def _arrays_of(state: Any) -> dict[str, np.ndarray]:
    """Return the arrays of a tree, and the tree itself as one of them."""
    arrays: dict[str, np.ndarray] = {}
    tree = json.dumps(_without_arrays(state, "", arrays)).encode()
    arrays[TREE] = np.frombuffer(tree, np.uint8)
    return arrays


def _write(file: IO[bytes], arrays: dict[str, np.ndarray]) -> None:
    """Write a complete file, array after array: safetensors' own function would copy all of them at once.

    Source of the layout: https://github.com/huggingface/safetensors#format.
    """
    descriptions, stop = {}, 0
    for name, array in arrays.items():
        start, stop = stop, stop + array.nbytes
        descriptions[name] = {"dtype": DTYPES[array.dtype], "shape": array.shape, "data_offsets": (start, stop)}
    header = json.dumps(descriptions).encode()
    header += b" " * (-len(header) % 8)
    digest = hashlib.sha256()
    file.write(FORMAT + b" " + digest.hexdigest().encode() + b"\n")  # the digest is known only at the end
    contents = (array.reshape(-1).view(np.uint8).data for array in arrays.values())
    for content in chain([memoryview(struct.pack("<Q", len(header)) + header)], contents):
        digest.update(content)
        file.write(content)
    file.seek(len(FORMAT) + 1)
    file.write(digest.hexdigest().encode())


def load_state(path: str | os.PathLike[str]) -> State:
    """Load what `save_state` saved; tensors are loaded as arrays, tuples as lists.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: it is damaged, or has another format. A `DamagedError` is a `ValueError`.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no saved state at {path}")
    with open(path, "rb") as file:
        return _read(file, path)


def state_from(content: bytes) -> Any:
    """Undo `state_to_bytes`.

    Raises:
        DamagedError: it is something else; a `ValueError`.
    """
    return _read(BytesIO(content), "a message")


def _read(file: IO[bytes], path: str | os.PathLike[str]) -> Any:
    name, _, digest = file.readline(LONGEST_HEAD).removesuffix(b"\n").partition(b" ")
    if name != FORMAT:
        saved_by = "another version of this program" if name.startswith(FORMAT[:-1]) else "something else"
        raise DamagedError(f"{path} does not hold a state of the format {FORMAT.decode()}: {saved_by} wrote it")
    body = file.read()
    if digest != hashlib.sha256(body).hexdigest().encode():
        raise DamagedError(f"{path} is damaged: its checksum is not that of its {len(body):,} bytes")
    try:
        arrays = safetensors.numpy.load(body)
        return _with_arrays(json.loads(arrays[TREE].tobytes()), arrays)
    except Exception as error:  # NumPy, JSON and safetensors raise many types for forged trees
        raise DamagedError(f"{path} is not a state: {error!r}") from error


def holds_state(path: str | os.PathLike[str]) -> bool:
    """Return whether some version of `save_state` wrote a file, judged by its beginning."""
    with open(path, "rb") as file:
        return file.read(len(FORMAT)).startswith(FORMAT[:-1])


def check_like(saved: Any, own: np.ndarray, what: str) -> None:
    """Check that a saved part of a state is an array with the shape and type of the own one.

    Raises:
        ValueError: it is not; the message calls it `what`.
    """
    if not isinstance(saved, np.ndarray) or saved.shape != own.shape or saved.dtype != own.dtype:
        is_ = f"{saved.dtype} {saved.shape}" if isinstance(saved, np.ndarray) else f"a {type(saved).__name__}"
        raise ValueError(f"the saved {what} should be {own.dtype} {own.shape}, and is {is_}")


def check_fit(saved: Mapping[str, Any], own: Mapping[str, Any], what: str) -> None:
    """Check that saved tensors have the same names, shapes and types as a network's own.

    Raises:
        ValueError: they do not; the message begins with `what`, their name, and lists the differences.
    """
    faults = [f"{name} is missing" for name in own.keys() - saved.keys()]
    faults += [f"{name} is not part of this network" for name in saved.keys() - own.keys()]
    faults += [
        f"{name} is {tuple(saved[name].shape)} in the file and {tuple(own[name].shape)} in this network"
        for name in own.keys() & saved.keys()
        if saved[name].shape != own[name].shape
    ]
    faults += [
        f"{name} is of {saved[name].dtype} in the file and of {own[name].dtype} in this network"
        for name in own.keys() & saved.keys()
        if saved[name].is_floating_point() != own[name].is_floating_point() or saved[name].is_complex()
    ]
    if faults:
        raise ValueError(f"{what} do not fit: {'; '.join(sorted(faults))}")


def whole_number(value: Any, what: str) -> int:
    """Return a saved part of a state as a whole number.

    Raises:
        ValueError: it is not a whole number from 0 to 2**63 - 1; the message calls it `what`.
    """
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"the saved {what} should be a whole number, not {value!r:.40}")
    return value


def _without_arrays(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """Return a tree with paths in place of the arrays, and put the arrays into `arrays`."""
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"a state has only strings as keys, not {list(value)} at {path or 'its root'}")
        return {key: _without_arrays(part, f"{path}/{_escaped(key)}", arrays) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_arrays(part, f"{path}/{index}", arrays) for index, part in enumerate(value)]
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if not isinstance(value, np.ndarray) or not (value.dtype.kind == "V" or value.dtype.newbyteorder("=") in DTYPES):
        kind = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        raise TypeError(f"a state is made of numbers, strings and arrays of numbers, not of {kind} at {path}")
    if value.dtype.names is None:
        arrays[path] = np.asarray(value, value.dtype.newbyteorder("<"), order="C")
        return {ARRAY: path}
    arrays[path] = np.ascontiguousarray(value)[..., None].view(np.uint8)
    return {ARRAY: path, DTYPE: np.lib.format.dtype_to_descr(value.dtype)}


def _escaped(key: str) -> str:
    """Return a key without slashes, so that no two paths are the same: as in a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


def _with_arrays(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Undo `_without_arrays`."""
    if isinstance(value, list):
        return [_with_arrays(part, arrays) for part in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {ARRAY}:
        return arrays[value[ARRAY]]
    if value.keys() == {ARRAY, DTYPE}:
        return arrays[value[ARRAY]].view(_aligned(np.lib.format.descr_to_dtype(_tuples(value[DTYPE]))))[..., 0]
    return {key: _with_arrays(part, arrays) for key, part in value.items()}


def _tuples(fields: Any) -> Any:
    """Return the description of a structured type with the tuples that NumPy needs; JSON made lists of them."""
    if not isinstance(fields, list):
        return fields
    return [(name, _tuples(kind), *map(tuple, shape)) for name, kind, *shape in fields]


def _aligned(kind: np.dtype) -> np.dtype:
    """Mark the fields of a structured type as aligned if they are, so that joined arrays keep the gaps between them."""
    if kind.names is None:
        return kind
    aligned = np.dtype([(name, _aligned(kind[name])) for name in kind.names], align=True)
    return aligned if aligned == kind else kind
