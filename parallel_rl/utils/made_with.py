"""MadeWith: methods that editors and `help` show with their arguments; the settings among these, explained."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from inspect import Signature, cleandoc, signature
from types import MethodType
from typing import Any, Generic, ParamSpec, Self, TypeVar

from parallel_rl.utils.names import SB3_HINTS

P = ParamSpec("P")
T = TypeVar("T")


class MadeWith(Generic[P]):
    """A class method that type checkers, editors and `help` show with the arguments of another callable.

    @MadeWith(ArgumentsOfForEnv)
    def for_env(cls, env, **settings): ...
    """

    def __init__(self, arguments: Callable[P, Any]) -> None:
        """Store the callable, such as a class; it is never called."""
        self._arguments = arguments

    def __call__(self, function: Callable[..., Any]) -> Self:
        """Store the function, whose first argument is the class."""

        @wraps(function)
        def method(owner: type, *args: Any, **kwargs: Any) -> Any:
            if len(args) > 1:
                wanted = f"{owner.__name__}.for_env takes one argument without a name, the environment"
                raise TypeError(f"{wanted}: {SB3_HINTS['policy']}")
            return function(owner, *args, **kwargs)

        method.__doc__ = explained(function.__doc__, self._arguments)
        known = signature(self._arguments).parameters.values()
        method.__signature__ = Signature([next(iter(signature(function).parameters.values())), *known])  # type: ignore[attr-defined]
        self._method, self.__doc__ = method, method.__doc__
        return self

    def __get__(self, instance: Any, owner: type[T]) -> Callable[P, T]:
        """Return the method, bound to the class."""
        return MethodType(self._method, owner)


def explained(doc: str | None, arguments: Any) -> str | None:
    """Return a docstring with the sentences of the settings among arguments, for a reader of `help`."""
    bases = [base for base in reversed(getattr(arguments, "__mro__", ())) if is_dataclass(base)]
    about = {each.name: each.metadata["setting"] for base in bases for each in fields(base) if each.metadata}
    lines = [f"    {name}: {each.help}" for name, each in about.items()]
    return "\n".join([cleandoc(doc), "", "Settings:", *lines]) if doc and lines else doc
