"""Agent and Environment: what users of a population write."""

from abc import ABC, abstractmethod
from typing import Any

from Population.experience import Experience

Observed = tuple[Any, dict[str, Any]]
"""An observation and its info."""


class Agent(ABC):
    """A policy that learns from `Experience`.

    Some methods are optional:

    - `before()`, `after()`: called in its process before the first step and after the last one.
    - `get()`, `set(data)`: what travels between processes in place of the object. It includes all that training
      changes. Without them the object is pickled.
    - `average(states)`: a static method that `MeanAgentCombiner` calls with what `get` of each agent returned.
    """

    @abstractmethod
    def action(self, state: Observed) -> Any:
        """Return an action for an observation and its info."""

    @abstractmethod
    def train(self, experience: Experience) -> None:
        """Learn from the steps since the last call."""


class Environment(ABC):
    """An environment without spaces; a `gymnasium.Env` will do as well.

    `before()` and `after()` are optional: called in its process before the first reset and after the last step.
    """

    @abstractmethod
    def reset(self) -> Observed:
        """Start an episode; return its first observation and info."""

    @abstractmethod
    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Return the next observation, the reward, `terminated`, `truncated`, and the info."""
