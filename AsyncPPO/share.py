"""A rank's share of the environments; states of environments, joined over the ranks and split again."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from AsyncPPO.agent import optional
from AsyncPPO.memory import joined_buffers, part_of_buffer
from AsyncPPO.resets import EnvSeeds
from AsyncPPO.settings import EnvSettings
from parallel_rl.utils import Cluster, State

if TYPE_CHECKING:
    from AsyncPPO.trainer import AsyncTrainer

COMMON = {"reset_options"}
"""Parts of the state of a collector that do not belong to one environment."""


class Share(NamedTuple):
    """The environments of a rank, `first` to `stop`, among the N of all ranks."""

    first: int
    stop: int
    total: int

    @property
    def own(self) -> slice:
        """The index of this rank's environments."""
        return slice(self.first, self.stop)

    @property
    def num_envs(self) -> int:
        """The number of this rank's environments."""
        return self.stop - self.first

    @property
    def is_whole(self) -> bool:
        """Whether this rank has all environments."""
        return self.num_envs == self.total

    @classmethod
    def of(cls, ranks: Cluster, num_envs: int) -> "Share":
        """Return a rank's share of N environments; two shares differ by one environment at most.

        Raises:
            ValueError: there are fewer environments than ranks.
        """
        check_enough(num_envs, ranks.nodes)
        first, stop = (num_envs * node // ranks.nodes for node in (ranks.node, ranks.node + 1))
        return cls(first, stop, num_envs)

    def of_run(self, env: Any, settings: EnvSettings) -> tuple[Any, dict[str, Any]]:
        """Return this rank's part of the environments `env`, and the keyword arguments of its `EnvVectorizer`."""
        if self.is_whole:
            return env, {**settings}
        seeds = EnvSeeds(settings["seed"], self.total, self.own)
        return env[self.own] if isinstance(env, list | tuple) else env, {**settings, "seed": seeds}


def check_enough(num_envs: int, nodes: int) -> None:
    """Check that each rank has an environment.

    Raises:
        ValueError: there are fewer environments than ranks.
    """
    if num_envs < nodes:
        raise ValueError(f"{nodes} ranks need at least as many environments, not {num_envs}")


def check_ranks(ranks: Cluster, agent: Any, mode: str, lag: int, seed: Any) -> None:
    """Check that a run can have several ranks.

    Raises:
        ValueError: it cannot; the message says why.
    """
    if ranks.nodes == 1:
        return
    if not optional(agent, "learns_on_ranks"):
        raise ValueError(f"{type(agent).__name__} does not learn on several ranks")
    if mode != "streaming" or lag:
        raise ValueError("several ranks need mode='streaming' and lag=0: they collect and update in step")
    if seed is None:
        raise ValueError("several ranks need a seed: the same for all")


def joined_environments(trainer: "AsyncTrainer") -> tuple[State, State, State] | None:
    """Return the states of the collector, of the buffer and of the agent, with the environments of all ranks.

    All ranks call this; those after the first one get None.
    """
    agent = trainer.agent
    own = [*trainer.collector.state(), agent.state()]
    parts = trainer.ranks.attempt(lambda ranks: ranks.gather(own), lambda: lambda: None)
    if parts is None:
        return None
    if len(parts) == 1:
        return parts[0]
    collectors, buffers, agents = zip(*parts, strict=True)
    return _joined(collectors), joined_buffers(buffers), optional(agent, "joined_states")(agents)


def part_of_environments(share: Share, collector: State, buffer: State) -> tuple[State, State]:
    """Return this rank's part of the states of collector and buffer that `joined_environments` returned."""
    if share.is_whole:
        return collector, buffer
    return _part(collector, share.own), part_of_buffer(buffer, share.own)


def part_of_agent(agent: Any, state: State, share: Share, own: slice) -> State:
    """Return the `state` of an agent with only the environments `own`."""
    return state if own == slice(0, share.total) else optional(agent, "part_of_state")(state, own)


def _joined(states: Sequence[Any]) -> Any:
    """Join trees of several ranks: lists and arrays have an entry for each environment, the rest is the same in all."""
    first = states[0]
    if isinstance(first, dict):
        return {
            name: part if name in COMMON else _joined([state[name] for state in states]) for name, part in first.items()
        }
    if isinstance(first, list):
        return [entry for state in states for entry in state]
    return np.concatenate(states) if isinstance(first, np.ndarray) else first


def _part(state: Any, own: slice) -> Any:
    """Undo `_joined`, for the environments `own`."""
    if isinstance(state, dict):
        return {name: part if name in COMMON else _part(part, own) for name, part in state.items()}
    return state[own] if isinstance(state, list | np.ndarray) else state
