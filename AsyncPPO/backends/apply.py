"""What is done to the environments of a block besides resets and steps: functions that travel to where the block is."""

from typing import TYPE_CHECKING, Any, NamedTuple

import cloudpickle
import gymnasium as gym

if TYPE_CHECKING:
    from AsyncPPO.backends.block import Block


class Outcome(NamedTuple):
    """What came of it in one environment."""

    result: Any
    fault: str = ""
    """What it raised, if anything; then there is no result."""


Outcomes = dict[int, Outcome]
"""By environment index."""


def call(block: "Block", name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcomes:
    """Call a method of each environment, or read an attribute that is no method."""

    def result(index: int, env: gym.Env) -> Any:
        attribute = env.get_wrapper_attr(name)
        return attribute(*args, **kwargs) if callable(attribute) else attribute

    return block.each(f"call({name!r})", result)


def set_attr(block: "Block", name: str, values: list[Any]) -> Outcomes:
    """Set an attribute of each environment; `values` are those of all blocks."""

    def result(index: int, env: gym.Env) -> None:
        env.set_wrapper_attr(name, values[index])

    return block.each(f"set_attr({name!r})", result)


def set_reset_options(block: "Block", options: dict[str, Any] | None) -> Outcomes:
    """Set what every further reset in the block is handed."""
    block.reset_options = options
    return {}


def packed(index: int, outcome: Outcome) -> bytes:
    """Pickle what came of it; what cannot be pickled is a fault."""
    try:
        return cloudpickle.dumps(outcome)
    except Exception as error:
        return cloudpickle.dumps(Outcome(None, _unsendable(index, error)))


def unpacked(index: int, pickled: bytes) -> Outcome:
    """Undo `packed`."""
    try:
        return cloudpickle.loads(pickled)
    except Exception as error:
        return Outcome(None, _unsendable(index, error))


def _unsendable(index: int, error: Exception) -> str:
    return f"environment {index}: its result cannot leave its process: {type(error).__name__}: {error}"
