"""The values in arguments NAME=VALUE and in JSON files."""

import ast
from collections.abc import Sequence
from typing import Any

from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from parallel_rl.config import RunConfig
from parallel_rl.utils.settings import Setting, fault_of

NAMED_VALUES = {"true": True, "false": False, "none": None}


def kwargs_of(run: RunConfig) -> dict[str, Any]:
    """Return the arguments of a run's environment.

    Raises:
        ValueError: an argument is not NAME=VALUE, or two have the same name.
    """
    return named_values(run.env_kwargs, "env_kwargs")


def named_values(arguments: Sequence[str], what: str) -> dict[str, Any]:
    """Return the values in arguments NAME=VALUE, by name.

    Args:
        arguments: the arguments.
        what: what to call them in the message.

    Raises:
        ValueError: an argument is not NAME=VALUE, or two have the same name.
    """
    values: dict[str, Any] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not name.isidentifier() or not equals:
            raise ValueError(f"{what} are NAME=VALUE, not {argument!r}")
        if name in values:
            raise ValueError(f"{what} say {name} twice")
        values[name] = _literal(value)
    return values


def _literal(text: str) -> Any:
    """Return the value of a Python literal, or of a name in `NAMED_VALUES` (in any case); otherwise the text itself."""
    if text.lower() in NAMED_VALUES:
        return NAMED_VALUES[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):  # everything that literal_eval may raise
        return text


def checked(name: str, value: Any, hint: Any) -> Any:
    """Return a setting from JSON or a Python literal: a list as a tuple, and where whole numbers are due, 1e3 as 1000.

    Raises:
        ValueError: the value has another type.
    """
    value = tuple(value) if isinstance(value, list) else value
    if (fault := _type_fault(value, hint)) is None:
        return value
    whole = _with_ints(value)
    if _type_fault(whole, hint) is None:
        return whole
    raise ValueError(fault_of(name, value, Setting(name), hint) or f"{name}={value!r}: {fault}")


def _type_fault(value: Any, hint: Any) -> TypeCheckError | None:
    try:
        check_type(value, hint, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
    except TypeCheckError as error:
        return error
    return None


def _with_ints(value: Any) -> Any:
    """Return a value with its whole floats as ints."""
    if isinstance(value, tuple):
        return tuple(map(_with_ints, value))
    return int(value) if isinstance(value, float) and value.is_integer() else value
