"""Configured: an agent whose settings are its attributes."""

import copy
from dataclasses import fields
from functools import cache
from inspect import get_annotations
from typing import TYPE_CHECKING, Any, ClassVar

from parallel_rl.utils.names import SB3_ATTRIBUTES, sb3_attribute, suggestion
from parallel_rl.utils.settings import check, settings_in

MISSPELLED = 0.88
"""The least similarity, from 0 to 1, of a misspelled name to the right one: about one letter of eight differs."""


class Configured:
    """A mixin that makes the settings of an agent's `config` attributes of the agent.

    Settings that may change between updates can be assigned; this replaces `config` by one with the new value.
    """

    config: Any
    arguments: ClassVar[frozenset[str]] = frozenset()
    """The other arguments of the agent, which cannot be changed."""

    def __repr__(self) -> str:
        """Return the spaces, the seed, and the settings that differ from the defaults, as text."""
        spaces = [_shape_of(vars(self)[name]) for name in ("observation_space", "action_space")]
        settings = [("seed", vars(self)["seed"]), *vars(self.config).items()]
        defaults = {"seed": None} | {each.name: each.default for each in fields(self.config)}
        changed = [f"{name}={value!r}" for name, value in settings if value != defaults[name]]
        return f"{type(self).__name__}({' -> '.join(spaces)}{''.join(f', {each}' for each in changed)})"

    if not TYPE_CHECKING:  # a type checker sees the fields of the config as a base class, and so misspelled names

        def __getattr__(self, name: str) -> Any:
            """Return the setting of that name."""
            settings = getattr(self.__dict__.get("config"), "__dict__", {})  # there are none yet in a copy
            if name in settings:
                return settings[name]
            message = f"{type(self).__name__!r} object has no attribute {name!r}{sb3_attribute(name, settings)}"
            raise AttributeError(message, name=name, obj=self)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; the next update uses it.

        Raises:
            AttributeError: it cannot be changed after the agent is made, or its name is a misspelled setting's.
            ValueError: it is a setting, and the value is out of its range.
        """
        own = vars(self)
        config: Any = own.get("config")
        is_setting = config is not None and name in vars(config)
        if settings_in(type(config))[name].fixed if is_setting else name in self.arguments and name in own:
            raise AttributeError(f"{name} cannot be changed once the agent is made: make another with {name}=")
        if not is_setting:
            if config is not None and name not in own:
                self._check_spelling(name)
            super().__setattr__(name, value)
            return
        changed: Any = copy.copy(config)
        object.__setattr__(changed, name, value)  # unchecked: relations may hold only after further assignments
        check(changed, [name])
        super().__setattr__("config", changed)

    def _check_spelling(self, name: str) -> None:
        """Refuse a new public attribute that is almost called like a setting, or as in Stable-Baselines3.

        Subclasses of an agent may have such attributes.
        """
        is_agent = "config" in get_annotations(type(self))  # a subclass need not declare it again
        if is_agent and not name.startswith("_") and not hasattr(self, name):
            hint = f": {SB3_ATTRIBUTES[name]}" if name in SB3_ATTRIBUTES else ""
            hint = hint or _misspelling(name, tuple(vars(self.config)))
            if hint:
                raise AttributeError(f"{type(self).__name__} has no setting {name!r}{hint}")


@cache
def _misspelling(name: str, settings: tuple[str, ...]) -> str:
    """Return the suggestion for a name, if it is near a setting: every agent sets the same attributes."""
    return suggestion(name, settings, MISSPELLED)


def _shape_of(space: Any) -> str:
    """Return a short text for a space: for a Box, only its shape."""
    return f"Box{space.shape}" if type(space).__name__ == "Box" else str(space)
