"""Settings, each declared once: checks, command line, records and docs derive from the declaration.

A config is a frozen dataclass whose fields are declared by `setting`:

    @settings_class
    class DQNConfig(Config):
        gamma: float = setting(0.99, "Discount of the reward.", least=0, most=1)

A config that inherits a setting can give it another default: `gamma = new_default(0.9)`.
"""

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from inspect import get_annotations
from types import MappingProxyType, NoneType, UnionType
from typing import (
    Any,
    Literal,
    NamedTuple,
    ParamSpec,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np
from gymnasium import spaces

from parallel_rl.utils.made_with import explained
from parallel_rl.utils.names import SB3_VALUES, check_names
from parallel_rl.utils.schedules import LostSchedule, Schedule, scheduled

C = TypeVar("C", bound="Config")
P = ParamSpec("P")
T = TypeVar("T")
SettingValues = dict[str, Any]
"""Values of settings of an agent, and of its run, by name."""
WHOLE_LIMIT = 2**63
"""Whole numbers must be below this limit, to fit into 64 bits."""
WIDEST = 2**16
"""The largest number of units in a layer, so that a forged file cannot exhaust the memory."""
LARGEST = 1.7976931348623157e308
"""The largest float: a larger whole number counts as infinite."""


@dataclass(frozen=True)
class Setting:
    """The facts about a setting besides its name, type and default. If the type allows None, None is valid too."""

    help: str
    """One sentence, or two."""
    above: float | None = None
    """Numbers must be larger."""
    least: float | None = None
    """Numbers must not be smaller."""
    most: float | None = None
    """Numbers must not be larger."""
    also: Any = None
    """A value outside the range that is valid too."""
    fixed: bool = False
    """Whether it cannot be changed after the agent is made."""
    structure: bool = False
    """Whether the weights depend on it."""
    initial: bool = False
    """Whether it is the start of something learned, so that it counts only for a new agent."""
    incidental: bool = False
    """Whether it changes neither the weights nor the training, except for rounding."""
    needs: str = ""
    """The settings, separated by spaces, of which one must not have its default, or this one has no effect."""
    group: str | None = None
    """The group of its flag in the help."""

    @property
    def range(self) -> str:
        """The valid numbers, in words."""
        if self.most is not None:
            least = f"({self.above:g}" if self.least is None else f"[{self.least:g}"
            words = f"in {least}, {self.most:g}]"
        elif self.above is not None:
            words = "positive and finite" if self.above == 0 else f"above {self.above:g}"
        elif self.least is not None:
            words = "finite and not negative" if self.least == 0 else f"at least {self.least:g}"
        else:
            words = "finite"
        return words if self.also is None else f"{words}, or {self.also}"

    def allows(self, number: Any) -> bool:
        """Return whether a number is valid.

        Raises:
            TypeError: it is not a number.
        """
        return bool(
            -LARGEST <= number <= LARGEST
            and (self.above is None or number > self.above)
            and (self.least is None or number >= self.least)
            and (self.most is None or number <= self.most)
        )

    def nearest(self, number: float) -> float:
        """Return the valid number that is nearest to a finite one, which may be whole."""
        least = self.least
        if self.above is not None:
            least = self.above + 1 if isinstance(number, int) else math.nextafter(self.above, math.inf)
        number = number if least is None else max(number, least)
        return number if self.most is None else min(number, self.most)


def setting(default: Any, help: str, **facts: Any) -> Any:
    """Declare a field of a `Config`.

    Args:
        default: its default.
        help: its description, in a sentence.
        facts: further fields of `Setting`.
    """
    facts["fixed"] = any(facts.get(fact, False) for fact in ("fixed", "structure", "initial"))
    return field(default=default, metadata={"setting": Setting(help, **facts)})


class _Default(NamedTuple):
    value: Any


def new_default(value: Any) -> Any:
    """Give a setting that a `Config` inherits another default; the rest of its declaration stays."""
    return _Default(value)


@dataclass_transform(kw_only_default=True, field_specifiers=(field,))
def settings_class(kind: type[T]) -> type[T]:
    """Make a class a frozen dataclass of settings, which are keyword arguments.

    For a type checker the fields are not frozen. It sees them as attributes of an agent, and many of those can be
    assigned.
    """
    inherited = {each.name: each for base in kind.__bases__ if is_dataclass(base) for each in fields(base)}
    changed = {name: value for name, value in vars(kind).items() if isinstance(value, _Default)}
    for name, (value,) in changed.items():
        setattr(kind, name, field(default=value, metadata=inherited[name].metadata))
    kind.__annotations__ = get_annotations(kind) | {name: inherited[name].type for name in changed}
    made = dataclass(frozen=True, kw_only=True)(kind)
    made.__doc__ = explained(made.__doc__, made)
    return made


@settings_class
class Config:
    """Settings that have been checked and have their types: the base of every agent's config.

    Raises:
        ValueError: a setting is out of its range; the message names all such settings.
    """

    def __post_init__(self) -> None:
        """Check and convert the settings."""
        check(self)
        self.check_relations()

    def check_relations(self) -> None:
        """Raise a `ValueError` if settings exclude each other, which assignments of single ones do not check."""

    @classmethod
    def defaults_for(cls, observation_space: spaces.Space, action_space: spaces.Space) -> SettingValues:
        """Return settings that suit the spaces of one environment: the defaults where there is no preset.

        They are settings of the agent, and of the run such as `num_envs`. What they leave out has its usual default.
        """
        return {}


def hints(config: type[Config]) -> Mapping[str, Any]:
    """Return the types of the settings of a config, by name."""
    hashable: Any = config  # as every class, though mypy says no
    return _hints(hashable)


@cache
def _hints(config: Any) -> Mapping[str, Any]:
    known = get_type_hints(config)
    return MappingProxyType({each.name: known[each.name] for each in fields(config)})


def settings_in(config: type[Config]) -> dict[str, Setting]:
    """Return the facts about the settings of a config, by name."""
    return {each.name: each.metadata["setting"] for each in fields(config)}


def check(config: Config, names: Iterable[str] | None = None) -> None:
    """Check that settings are in their ranges, and convert them to their types: 2.0 to 2 where numbers are whole.

    Args:
        config: the settings.
        names: of the settings to check; by default all.

    Raises:
        ValueError: a setting is not in its range; the message names all such settings.
    """
    known, types = settings_in(type(config)), hints(type(config))
    faults = []
    for name in known if names is None else names:
        value = _plain(getattr(config, name), types[name])
        if fault := fault_of(name, value, known[name], types[name]):
            faults.append(fault)
        else:
            object.__setattr__(config, name, _converted(value, known[name], types[name]))
    if faults:
        raise ValueError("; ".join(faults))


def _plain(value: Any, hint: Any) -> Any:
    """Return a number of NumPy as one of Python, a sequence as a tuple, and a path or a `torch.device` as a text."""
    if get_origin(hint) is tuple and isinstance(value, Iterable) and not isinstance(value, str):
        return tuple(_plain(part, None) for part in value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if type(value).__name__ == "device":  # torch need not be imported
        return str(value)
    return value.item() if isinstance(value, np.generic) else value


def _converted(value: Any, about: Setting, hint: Any) -> Any:
    """Return a valid plain value in the type of its setting."""
    kinds = _kinds(hint)
    if value is None or callable(value):
        return value
    if about.also is not None and value == about.also:
        return about.also
    if choices := literals(kinds):
        return choices[choices.index(value)]
    if get_origin(hint) is tuple:
        part = get_args(hint)[0]
        return tuple(map(part, value)) if part in (int, float) else value
    return next((kind(value) for kind in (float, int) if kind in kinds), value)


def _kinds(hint: Any) -> tuple[Any, ...]:
    """Return the types of a union; another type alone."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def fault_of(name: str, value: Any, about: Setting, hint: Any) -> str | None:
    """Return, in words, what is wrong with a value; None if it is valid.

    Raises:
        ValueError: it is a schedule that does not return a number.
    """
    kinds = _kinds(hint)
    is_also = about.also is not None and value == about.also
    if (value is None and NoneType in kinds) or is_also or (isinstance(value, LostSchedule) and Schedule in kinds):
        return None
    if choices := literals(kinds):
        return None if value in choices else _choice_fault(name, value, choices)
    is_whole = float not in {*kinds, *get_args(hint)}
    if get_origin(hint) is tuple:
        if not isinstance(value, tuple):
            return f"{name} must be a sequence, not {value!r}"
        numbers = value if {int, float} & {*get_args(hint)} else ()
        faults = (_number_fault(f"each of {name}", number, about, is_whole) for number in numbers)
        return next(filter(None, faults), None)
    if not {int, float} & {*kinds}:
        return f"{name} must be a text, not {value!r}" if str in kinds and not isinstance(value, str) else None
    if Schedule in kinds:
        value = scheduled(name, value, False, 0.0)
    due = "a number, or be left out" if NoneType in kinds else "a number"  # SB3 has "auto" for what is left out here
    return _number_fault(name, value, about, is_whole, due)


def checked_seed(seed: int | None) -> int | None:
    """Return the seed of an agent as a number of Python.

    Raises:
        ValueError: it is not a whole number from 0 to 2**63 - 1, or None.
    """
    if fault := fault_of("seed", seed, Setting("", least=0), int | None):
        raise ValueError(fault)
    return None if seed is None else int(seed)


def literals(kinds: Iterable[Any]) -> list[Any]:
    """Return the values that types list; none for other types."""
    if bool in kinds:
        return [True, False]
    return [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]


def _choice_fault(name: str, value: Any, choices: list[Any]) -> str:
    ours = SB3_VALUES.get((name, repr(value)))
    near = f": did you mean {ours!r}?" if ours else ""
    return f"{name} must be one of {', '.join(map(str, choices))}, not {value!r}{near}"


def _number_fault(name: str, value: Any, about: Setting, is_whole: bool, due: str = "a number") -> str | None:
    try:
        if not about.allows(value):
            return f"{name} must be {about.range}, not {value}"
    except TypeError:
        return f"{name} must be {due}, not {value!r}"
    if is_whole and value != int(value):
        return f"{name} must be a whole number, not {value}"
    if (is_whole or isinstance(value, int)) and value >= WHOLE_LIMIT:
        return f"{name} must be below 2**63, not {value}"
    return None


def make_config(config: type[C], values: Mapping[str, Any], others: Iterable[str] = (), by: str | None = None) -> C:
    """Return a config with some settings.

    Args:
        config: its class.
        values: the settings, by name.
        others: the names of further arguments of the caller, which the message may suggest.
        by: the name of the caller, for the message.

    Raises:
        TypeError: a name is unknown; the message suggests the nearest one.
        ValueError: a setting is out of its range.
    """
    known = settings_in(config)
    check_names(values, known, others, by or config.__name__)
    return config(**values)
