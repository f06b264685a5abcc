"""Agent and Environment: the base classes that users of a population implement."""

from abc import ABC, abstractmethod
from typing import Any

from Population.experience import Experience

Observed = tuple[Any, dict[str, Any]]
"""An observation and its info."""


class Agent(ABC):
    """A policy that learns from `Experience`.

    Some methods are optional:

    - `before()`, `after()`: called in the agent's process before the first step and after the last one.
    - `get()`, `set(data)`: return and restore everything that training changes; this is sent between processes.
      Without them the whole object is pickled.
    - `average(states)`: returns the mean of what `get` of each agent has returned, for `MeanAgentCombiner`.
    """

    @abstractmethod
    def action(self, state: Observed) -> Any:
        """Return an action for an observation and its info."""

    @abstractmethod
    def train(self, experience: Experience) -> None:
        """Learn from the steps since the last call."""


class Environment(ABC):
    """An environment without spaces. A `gymnasium.Env` is one, too.

    `before()` and `after()` are optional: they are called in the environment's process before the first reset and after
    the last step.
    """

    @abstractmethod
    def reset(self) -> Observed:
        """Start an episode; return its first observation and info."""

    @abstractmethod
    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Return the next observation, the reward, `terminated`, `truncated`, and the info."""
