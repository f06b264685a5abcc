"""What is sent between processes in place of an agent, and what is averaged."""

import random
from typing import Any, NamedTuple

import numpy as np

from AsyncPPO.agent import optional
from parallel_rl.utils import Configured, settings_in

GENERATORS = np.random.Generator | random.Random


class Update(NamedTuple):
    """An agent for a member."""

    version: int
    content: Any
    """The result of `packed`."""


def is_trainable(agent: Any) -> bool:
    """Return whether an agent is for `AsyncTrainer` (PPO, DQN, ...), not a `Population.Agent`."""
    return hasattr(agent, "observe") and hasattr(agent, "steps_wanted")


def packed(agent: Any) -> Any:
    """Return what is sent in place of an agent: the result of its `get`, or the agent itself without `get`.

    For an agent of `AsyncTrainer` it is a dict with what is `shared`, and the `settings` that can be changed.
    """
    if is_trainable(agent):
        return {"shared": shared(agent), "settings": _changeable(agent)}
    return agent.get() if hasattr(agent, "get") else agent


def saved(agent: Any) -> dict[str, Any]:
    """Return the `packed` agent of `AsyncTrainer` without the settings that a file cannot hold: functions, objects."""
    return {
        "shared": shared(agent),
        "settings": {name: value for name, value in _changeable(agent).items() if _is_plain(value)},
    }


def unpacked(agent: Any, content: Any) -> Any:
    """Set the content of an agent and return it; without `set`, the content is an agent, and is returned."""
    if is_trainable(agent):
        apply_settings(agent, content["settings"])
        load_shared(agent, content["shared"])
    elif hasattr(agent, "set"):
        agent.set(content)
    else:
        return content
    return agent


def generators_of(agent: Any) -> dict[str, Any]:
    """Return the attributes of an agent that are random generators."""
    return {name: value for name, value in getattr(agent, "__dict__", {}).items() if isinstance(value, GENERATORS)}


def shared(agent: Any) -> Any:
    """Return all that training changes in an agent, as a tree.

    For an agent of `AsyncTrainer` this is its `shared_state()`, or its whole state. For another agent it is the result
    of its `get`, or its attributes.
    """
    if hasattr(agent, "shared_state"):
        return agent.shared_state()
    if is_trainable(agent):
        return agent.state()
    if hasattr(agent, "get"):
        return agent.get()
    return {name: value.state_dict() if _has_state(value) else value for name, value in vars(agent).items()}


def load_shared(agent: Any, state: Any) -> None:
    """Load a result of `shared`, or a mean of several, into an agent, which keeps its own random generators."""
    if hasattr(agent, "load_shared_state"):
        agent.load_shared_state(state)
    elif is_trainable(agent):
        agent.load_state(with_generators_of(agent.state(), state))
    elif hasattr(agent, "set"):
        agent.set(state)
    else:
        for name, value in state.items():
            own = getattr(agent, name)
            if _has_state(own):
                own.load_state_dict(value)
            elif not isinstance(own, GENERATORS):
                setattr(agent, name, value)


def reseeded(agent: Any, seed: int) -> Any:
    """Return an agent with other random streams.

    An agent of `AsyncTrainer` has them anywhere in its state, another agent as attributes.
    """
    sequence = np.random.SeedSequence(seed)

    def fresh(state: Any) -> Any:
        if not isinstance(state, dict):
            return state
        if "bit_generator" not in state:
            return {name: fresh(part) for name, part in state.items()}
        kind = getattr(np.random, state["bit_generator"])
        return kind(sequence.spawn(1)[0]).state

    if is_trainable(agent):
        agent.load_state(fresh(optional(agent, "whole_state")()))
        return agent
    for generator in generators_of(agent).values():
        (child,) = sequence.spawn(1)
        if isinstance(generator, random.Random):
            generator.seed(int(child.generate_state(1)[0]))
        else:
            generator.bit_generator.state = type(generator.bit_generator)(child).state
    return agent


def with_generators_of(own: Any, state: Any) -> Any:
    """Return a state with the random generators of another state of the same agent."""
    if not isinstance(state, dict) or not isinstance(own, dict):
        return state
    if "bit_generator" in state:
        return own
    return {name: with_generators_of(own.get(name), part) for name, part in state.items()}


def apply_settings(agent: Any, settings: dict[str, Any]) -> None:
    """Change the settings of an agent; settings from a file have lists in place of tuples."""
    for name, value in settings.items():
        setattr(agent, name, tuple(value) if isinstance(value, list) else value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return isinstance(value, bool | int | float | str | None)


def _changeable(agent: Any) -> dict[str, Any]:
    if not isinstance(agent, Configured):
        return {}
    return {name: getattr(agent, name) for name, about in settings_in(type(agent.config)).items() if not about.fixed}


def _has_state(value: Any) -> bool:
    return hasattr(value, "state_dict") and hasattr(value, "load_state_dict")
