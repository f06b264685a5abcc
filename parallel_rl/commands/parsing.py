"""How a command line is checked and parsed."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, suppress
from functools import partial
from inspect import signature
from io import StringIO
from itertools import groupby
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import tyro
from tyro.conf import arg
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from parallel_rl.agents import AGENTS
from parallel_rl.config import setting_names
from parallel_rl.utils.names import nearest, sb3_hint

REGISTRY = ConstructorRegistry()
GROUPED = (tyro.conf.OmitArgPrefixes, tyro.conf.HelptextFromCommentsOff)
"""A group of flags is only a box in the help: its name is not part of theirs.

Comments are not meant as help, and take time to find.
"""
REPEATABLE = ("--env-kwargs", "--wrapper", "--info-keys", "--callback", "--companions", "--override", "--labels")
"""Flags that may be given several times, each time with one or more values."""
SEVERAL = re.compile(r"\d+(\.\.\d+|(,\d+)+)")
"""Several seeds: a range such as 0..4, or a list such as 0,3,7."""


class UsageError(ValueError):
    """A command line has an unknown flag, or a value of the wrong kind, or lacks one."""


def check_flags(arguments: Sequence[str], known: Mapping[str, object], prog: str, agent: str | None = None) -> None:
    """Check that the flags in a command line exist, that switches have no value, and that `--seed` has one seed.

    Args:
        arguments: of the command line.
        known: the names of its flags, and their defaults.
        prog: the name of the program, in its help.
        agent: whose flags they are; None: those of no agent.

    Raises:
        UsageError: one does not exist; the message names the agents that have it, or suggests another flag. Or a switch
            has a value, or `--seed` has several.
    """
    for word, following in zip(arguments, [*arguments, ""][1:], strict=True):
        flag, equals, value = word.partition("=")
        no = "no_" if flag.startswith("--no-") else ""
        name = flag[2:].replace("-", "_").removeprefix(no).lower()
        if not flag.startswith("--") or name == "help":
            continue
        if name in known:
            if isinstance(known[name], bool) and (equals or following.lower() in {"true", "false"}):
                raise UsageError(f"{flag} takes no value: there are {flag_of(name)} and {flag_of(f'no_{name}')}")
            value = value if equals else following
            if name == "seed" and "seeds" in known and SEVERAL.fullmatch(value):
                raise UsageError(f"--seed takes one seed: --seeds {value} trains with each of them")
            continue
        if agent and (owners := [other for other in AGENTS if name in setting_names(other)]):
            whose = f"the agent{'s' * (len(owners) > 1)} {', '.join(owners)}"
            raise UsageError(f"{flag} is a flag of {whose}, not of {agent}")
        hint = sb3_hint(name, known) if agent else ""
        if found := None if hint else nearest(name, known):
            hint = f": did you mean {flag_of(no + found[0])}?{found[1]}"
        raise UsageError(f"no flag {flag}{hint or f'; {prog} --help lists them'}")


def flags_with_defaults(command: Callable[..., int]) -> dict[str, Any]:
    """Return the names and defaults of the flags of a command: of its parameters, those that are not positional."""
    parameters = signature(command).parameters.values()
    return {each.name: each.default for each in parameters if get_origin(each.annotation) is not Annotated}


def gathered(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with each flag of `REPEATABLE` once, with all its values: tyro would use only the last.

    Flags are in lower case, so that the names of settings in Python are flags too: `--GAE_lambda`.
    """
    values: dict[str, list[str]] = {}
    rest: list[str] = []
    into = rest
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        flag = flag.replace("_", "-")
        if flag in REPEATABLE:
            into = values.setdefault(flag, [])
            into += [value] if equals else []
            continue
        if argument.startswith("-"):
            into = rest
        into.append(flag.lower() + equals + value if argument.startswith("--") else argument)
    return rest + [word for flag, given in values.items() for word in (flag, *given)]


def flag_of(name: str) -> str:
    """Return the flag of a setting."""
    return f"--{name.lower().replace('_', '-')}"


def _about_default(shown: str) -> str:
    """Return what the help adds about a default; nothing for None, no values and no text, which the help explains."""
    return f"(default: {shown})" if shown not in {"", "None", "''"} else ""


ABOUT_DEFAULTS = arg(help_behavior_hint=_about_default)
"""Annotation of a flag: how the help shows its default."""


def parsed(kind: Any, name: str, arguments: Sequence[str], **options: Any) -> Any:
    """Parse a command line; return an instance of a class of arguments, or the call of a function that takes them.

    Args:
        kind: the class or function.
        name: of the program, in its help.
        arguments: the words of the command line.
        options: of `tyro.cli`.

    Raises:
        UsageError: a value is missing or of the wrong kind, or there is a word too many.
    """
    made = kind if isinstance(kind, type) else _call_of(kind)
    told = StringIO()
    try:
        with redirect_stderr(told):
            return tyro.cli(made, prog=name, args=arguments, registry=REGISTRY, config=GROUPED, **options)
    except SystemExit as leaving:
        if leaving.code == 0:  # the help
            raise
        raise UsageError(_first_part(told.getvalue())) from None


def _call_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that takes the arguments of another, and returns its call with them."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return partial(function, *args, **kwargs)

    call.__annotations__ = {name: Annotated[hint, ABOUT_DEFAULTS] for name, hint in function.__annotations__.items()}
    call.__doc__, call.__signature__ = function.__doc__, signature(function)  # type: ignore[attr-defined]
    return call


def _first_part(box: str) -> str:
    """Return what a box of tyro says is wrong, as one line; below the first rule is the help of the argument."""
    rows = [row.strip("│| ") for row in re.sub(r"\x1b\[[\d;]*m", "", box).splitlines()[1:]]  # without the title
    parts = [" ".join(part) for is_rule, part in groupby(rows, lambda row: not row.strip("─-╰╯+")) if not is_rule]
    said = " ".join(parts[0].split()).removeprefix("Error parsing ") if parts else box.strip()
    said = re.sub(r"^Missing from .*?: (\S+) (.*) \(required\)$", r"\1 is missing: \2", said)
    return re.sub(r"^Missing value for argument '(\S+)'.*", r"\1 needs a value", said)


def _int_of(text: str) -> int:
    """Return the whole number in a text such as 1000000, 1_000_000 or 1e6.

    Raises:
        ValueError: it is not a whole number.
    """
    try:
        return int(text)
    except ValueError:
        with suppress(ValueError):
            number = float(text)
            if number.is_integer():
                return int(number)
        raise ValueError(f"{text!r} is not a whole number") from None


def _float_of(text: str) -> float:
    """Return the number in a text.

    Raises:
        ValueError: it is not a number.
    """
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None


NUMBERS: dict[type, Callable[[str], float]] = {int: _int_of, float: _float_of}
"""By type of a number: what reads it."""


@REGISTRY.primitive_rule
def _number(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """Read a number, or a number or None: tyro's own error for the latter names neither."""
    parts = get_args(info.type) if info.type_origin in {Union, UnionType} else (info.type,)
    kinds = [part for part in parts if part is not NoneType]
    if len(kinds) != 1 or kinds[0] not in NUMBERS:
        return None
    kind, optional = kinds[0], NoneType in parts
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{{None}}|{kind.__name__.upper()}" if optional else kind.__name__.upper(),
        instance_from_str=lambda words: None if optional and words[0] == "None" else NUMBERS[kind](words[0]),
        is_instance=lambda value: isinstance(value, int | kind) or (optional and value is None),
        str_from_instance=lambda value: [str(value)],
    )


@REGISTRY.primitive_rule
def _whole_numbers(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    if info.type_origin is not tuple or get_args(info.type) != (int, ...):
        return None
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="[INT [INT ...]]",
        instance_from_str=lambda words: tuple(_int_of(part) for word in words for part in word.split(",") if part),
        is_instance=lambda value: isinstance(value, tuple) and all(isinstance(part, int) for part in value),
        str_from_instance=lambda value: [*map(str, value)],
    )
