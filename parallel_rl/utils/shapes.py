"""Arrays and tensors as text: their types and shapes."""

from dataclasses import fields, is_dataclass
from typing import Any


def in_shapes(value: Any) -> str:
    """Return a value as text, with the type and shape of each array and tensor in place of its numbers.

    Args:
        value: an array, a tensor, or a dict, list, tuple, named tuple or dataclass of such and other values.
    """
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {in_shapes(part)}' for key, part in value.items())}}}"
    names = [each.name for each in fields(value)] if is_dataclass(value) else getattr(value, "_fields", None)
    if names is not None:
        return f"{type(value).__name__}({', '.join(f'{name}={in_shapes(getattr(value, name))}' for name in names)})"
    if isinstance(value, list | tuple):
        parts = ", ".join(map(in_shapes, value))
        return f"[{parts}]" if isinstance(value, list) else f"({parts}{',' * (len(value) == 1)})"
    return repr(value)
