"""The values in arguments NAME=VALUE and in JSON files."""

import ast
from collections.abc import Sequence
from types import NoneType
from typing import Any, get_args

from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from parallel_rl.config import RunConfig, TrainConfig, setting_types
from parallel_rl.utils import settings_in
from parallel_rl.utils.names import suggestion
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
    fault = None
    for given in (value, _with_ints(value)):
        try:
            return check_type(given, hint, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
        except TypeCheckError as error:
            fault = fault or error
    raise ValueError(fault_of(name, value, Setting(name), hint) or f"{name}={value!r}: {fault}")


def _with_ints(value: Any) -> Any:
    """Return a value with its whole floats as ints."""
    if isinstance(value, tuple):
        return tuple(map(_with_ints, value))
    return int(value) if isinstance(value, float) and value.is_integer() else value


def overrides(config: TrainConfig, arguments: Sequence[str]) -> dict[str, Any]:
    """Return the settings of a run's agent that `resume --override` changes, with their new values.

    Args:
        config: of the run.
        arguments: NAME=VALUE of each setting.

    Raises:
        ValueError: the agent has no such setting, it cannot change, or the value has another type.
    """
    known, types = settings_in(type(config.settings)), setting_types(config.agent)
    names = {name.lower(): name for name in known}
    values = {}
    for typed, value in named_values(arguments, "overrides").items():
        name = names.get(typed.lower(), typed)
        if name not in known:
            raise ValueError(f"{config.agent} has no setting {name!r} to override{suggestion(name, known)}")
        if known[name].structure:
            raise ValueError(f"{name} cannot be overridden: the weights depend on it")
        if known[name].initial:
            raise ValueError(f"{name} cannot be overridden: it counts only at the start of a run")
        values[name] = checked(name, _text_if_not_none(value, types[name]), types[name])
    return {name: value for name, value in values.items() if value != getattr(config.settings, name)}


def _text_if_not_none(value: Any, hint: Any) -> Any:
    """Return a value, but None as the text `none` for a setting that is never None: it may be one of its choices."""
    return "none" if value is None and NoneType not in get_args(hint) else value
