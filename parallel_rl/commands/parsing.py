"""Parsing of the command line; whole numbers may be written as 1e6, and several as 64,64."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, get_args

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

REGISTRY = ConstructorRegistry()
GROUPED = (tyro.conf.OmitArgPrefixes, tyro.conf.HelptextFromCommentsOff)
"""A group of flags is only a box in the help: its name is not part of theirs.

Comments are not meant as help, and take time to find.
"""


def parsed(kind: Any, name: str, arguments: Sequence[str], **options: Any) -> Any:
    """Parse a command line; return an instance of a class of arguments, or the result of a function that takes them.

    Args:
        kind: the class or function.
        name: of the program, in its help.
        arguments: the words of the command line.
        options: of `tyro.cli`.
    """
    return tyro.cli(kind, prog=name, args=arguments, registry=REGISTRY, config=GROUPED, **options)


def whole_number(text: str) -> int:
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


@REGISTRY.primitive_rule
def _whole_number(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    if info.type is not int:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda words: whole_number(words[0]),
        is_instance=lambda value: isinstance(value, int),
        str_from_instance=lambda value: [str(value)],
    )


@REGISTRY.primitive_rule
def _whole_numbers(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    if info.type_origin is not tuple or get_args(info.type) != (int, ...):
        return None
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="[INT [INT ...]]",
        instance_from_str=lambda words: tuple(whole_number(part) for word in words for part in word.split(",") if part),
        is_instance=lambda value: isinstance(value, tuple) and all(isinstance(part, int) for part in value),
        str_from_instance=lambda value: [*map(str, value)],
    )
