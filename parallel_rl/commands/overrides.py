"""`resume --override NAME=VALUE`: new values for the settings of a run's agent."""

from collections.abc import Sequence
from types import NoneType
from typing import Any, get_args

from parallel_rl.commands.values import checked, named_values
from parallel_rl.config import TrainConfig, setting_types
from parallel_rl.utils import settings_in
from parallel_rl.utils.names import suggestion


def overrides(config: TrainConfig, arguments: Sequence[str]) -> dict[str, Any]:
    """Return the settings of a run's agent that change, with their new values.

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
