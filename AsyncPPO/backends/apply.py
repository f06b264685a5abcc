"""Functions other than reset and step that are sent to a block and applied to its environments."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cloudpickle
import gymnasium as gym

if TYPE_CHECKING:
    from AsyncPPO.backends.block import Block


@dataclass(frozen=True)
class Outcome:
    """The result in one environment."""

    index: int
    result: Any
    fault: str = ""
    """The exception, if one was raised; then there is no result."""

    def __reduce__(self) -> Any:
        """Pickle it; a result that cannot be pickled becomes a fault."""
        try:
            return _unpacked, (self.index, cloudpickle.dumps(self.result), self.fault)
        except Exception as error:
            return Outcome, (self.index, None, _unsendable(self.index, error))


def _unpacked(index: int, pickled: bytes, fault: str) -> Outcome:
    try:
        return Outcome(index, cloudpickle.loads(pickled), fault)
    except Exception as error:
        return Outcome(index, None, _unsendable(index, error))


def _unsendable(index: int, error: Exception) -> str:
    return f"environment {index}: its result cannot be sent between processes: {type(error).__name__}: {error}"


Outcomes = dict[int, Outcome]
"""By environment index."""


def call(block: "Block", name: str, args: tuple[Any, ...], kwargs: dict[str, Any], what: str = "call") -> Outcomes:
    """Call a method of each environment, or read an attribute that is not a method; errors call this `what`."""

    def result(index: int, env: gym.Env) -> Any:
        attribute = env.get_wrapper_attr(name)
        return attribute(*args, **kwargs) if callable(attribute) else attribute

    return block.each(f"{what}({name!r})", result)


def set_attr(block: "Block", name: str, values: list[Any]) -> Outcomes:
    """Set an attribute of each environment; `values` are those of all blocks."""

    def result(index: int, env: gym.Env) -> None:
        env.set_wrapper_attr(name, values[index])

    return block.each(f"set_attr({name!r})", result)


def set_reset_options(block: "Block", options: dict[str, Any] | None) -> Outcomes:
    """Set the options of every further reset in the block."""
    block.reset_options = options
    return {}
