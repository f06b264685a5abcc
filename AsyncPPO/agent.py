"""The protocols of actors and agents, on which evaluation, collector and trainer rely.

`evaluate` needs an `Actor`, `AsyncTrainer` an `Agent`. No base class is needed, nor torch. tests/toy_agent.py is a
complete agent, tabular Q-learning.
"""

from collections.abc import Callable, Sequence
from functools import partial
from os import PathLike
from typing import Any, Protocol

import numpy as np

from AsyncPPO.backends import Replica
from parallel_rl.utils import Metrics, State, Trajectory, mean_of_states
from parallel_rl.utils.records import check_equal

Acted = tuple[np.ndarray, dict[str, np.ndarray]]
"""Actions `(n, ...)`, and further rows `(n, ...)` by name to store with the transitions."""


class Actor(Protocol):
    """A policy to evaluate.

    An actor with a recurrent state also has `initial_state`, as an `Agent` has, and takes `state=`. If its attribute
    `wants_env_ids` is true, it takes `env_ids=`, the index `(n,)` of the environment of each row.
    """

    def get_action(self, obs: np.ndarray, /, *, deterministic: bool = False) -> np.ndarray:
        """Return an action for each of the observations `(n, ...)`."""


class BehaviorPolicy(Protocol):
    """A policy to collect experience with; a recurrent state and `wants_env_ids` are as for an `Actor`."""

    def act(self, obs: np.ndarray, /) -> Acted:
        """Return an action for each of the observations `(n, ...)`, and rows to store with the transitions."""


class AgentActor(Actor, Protocol):
    """A copy of an agent's policy, without memory, optimizer or replay buffer. It can be pickled."""

    def initial_state(self, num_envs: int, /) -> np.ndarray | None:
        """Return what `Agent.initial_state` returns."""

    def save_weights(self, directory: str | PathLike[str], /) -> None:
        """Save the weights, as `Agent.save_weights` does."""


class Agent(Protocol):
    """An agent that `AsyncTrainer` can train. It touches no environment, no process and no global random state.

    The trainer collects `steps_wanted()` transitions, passes them to `observe`, and calls `update` as soon as
    `steps_wanted()` is 0 or less.

    It may have further members: see `OptionalMembers`, `LaggableAgent`, `ReplicableAgent`, `SharingAgent`, and
    `wants_env_ids` of an `Actor`.
    """

    config: Any
    """The agent's settings; in this project a frozen dataclass."""

    def act(self, obs: np.ndarray, /, *, state: np.ndarray | None = None) -> Acted:
        """Choose actions by the behavior policy, exploration included.

        Args:
            obs: `(n, ...)`.
            state: recurrent state `(n, S)` of these rows, updated in place; only for an agent that has one.

        Returns:
            Actions `(n, ...)`, and further rows `(n, ...)` by name, which `observe` gets as `Trajectory.extras`.
        """

    def get_action(
        self, obs: np.ndarray, /, *, deterministic: bool = False, state: np.ndarray | None = None
    ) -> np.ndarray:
        """Choose actions for an evaluation; `obs` and `state` as for `act`."""

    def initial_state(self, num_envs: int, /) -> np.ndarray | None:
        """Return the recurrent state `(num_envs, S)` at the start of an episode, zeros; None without one."""

    def steps_wanted(self) -> int:
        """Return the number of transitions that the next `update` still waits for; 0 or less: update now."""

    def observe(self, trajectories: Sequence[Trajectory], /) -> None:
        """Store experience. The arrays may be reused after the next `update`: copy what is needed longer."""

    def update(self, progress: float, workers: Any = None, /) -> Metrics:
        """Learn from what was observed.

        Args:
            progress: the fraction of the run that is over, from 0 to 1.
            workers: processes that can compute gradients, or None; do not store them.

        Returns:
            Metrics by name; empty if nothing was learned.
        """

    def signature(self) -> dict[str, Any]:
        """Return the settings that must equal those of a checkpoint, as plain values by name."""

    def state(self) -> State:
        """Return everything for an exact resume, for `utils.save_state`."""

    def load_state(self, state: State, /) -> None:
        """Restore what `state` returned; raise a `ValueError`, and change nothing, if it does not fit."""

    def actor(self) -> AgentActor:
        """Return a copy of the current policy, to evaluate, save or pickle."""

    def replica(self) -> Replica | None:
        """Return a policy for worker processes (see `ReplicableAgent`); None if only the agent itself can act."""

    def save_weights(self, directory: str | PathLike[str], /) -> None:
        """Save the weights into a directory, which is created if necessary."""

    def load_weights(self, directory: str | PathLike[str], /) -> None:
        """Load what `save_weights` saved."""


class LaggableAgent(Protocol):
    """What an on-policy `Agent` needs for `lag=1`: it acts in one thread while it updates in another."""

    def behavior(self) -> BehaviorPolicy:
        """Return a copy that acts as the agent does now, with random numbers of its own."""


class ReplicableAgent(Protocol):
    """The further methods of an `Agent` whose `replica` acts in the processes that step environments."""

    def replica_weights(self) -> np.ndarray:
        """Return the current weights `(P,)` for the replicas."""

    def noise(self, *shape: int) -> np.ndarray:
        """Return the random numbers `(*shape, A)` for `shape` actions of replicas."""


class SharingAgent(Protocol):
    """The further methods of an `Agent` that learns on ranks; members of a `Population` use them, too.

    Without them, the members share all of `state`, except random numbers.
    """

    def shared_state(self) -> State:
        """Return the part of the state that training changes, and that copies of the agent can share."""

    def load_shared_state(self, state: State, /) -> None:
        """Load the `shared_state` of a copy, or the `average` of several."""


class OptionalMembers:
    """The defaults of the optional members of an `Agent`; see `optional`."""

    on_policy = False
    """Whether each `update` gives a row of metrics. Otherwise a row is the mean over the updates of at least
    `AsyncPPO.rows.ROW_STEPS` environment steps, since an off-policy agent may update in every step."""
    learns_on_ranks = False
    """Whether it is a `SharingAgent` whose `observe` and `update` take a further argument, the `Ranks` that learn
    together, and whose `act` takes a keyword `noise`, rows of what `noise` returned. All ranks have the same agent and
    call these methods together. After a `RankError` in `update` the same transitions are observed again: the agent has
    dropped them by then, or its `savepoint` drops them."""
    device: Any = "cpu"
    """Where its networks are. If it is not the CPU, processes that evaluate the agent start by `spawn`."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def check_fits(self, env: Any, /) -> None:
        """Raise a `ValueError` if the spaces of the environment, an `EnvVectorizer`, are not the agent's."""

    def check_signature(self, saved: State, source: str, /) -> None:
        """Raise a `ValueError` if a `signature` from a checkpoint does not fit; `source` says where it is from."""
        check_equal(saved, self._agent.signature(), source)

    def take_share(self, own: slice, total: int, /) -> None:
        """Prepare for a run in which this rank has the environments `own` of `total`; a single rank has all."""

    def forget_environments(self) -> None:
        """Drop state that is stored by environment index, since other environments follow."""

    def continue_after(self, steps: int, /) -> None:
        """Continue a run of `steps` environment steps whose experience is lost."""

    def whole_state(self) -> State:
        """Return what `load_state` needs to undo a failed load: more than `state`, if that leaves something out."""
        return self._agent.state()

    def savepoint(self) -> Callable[[], None]:
        """Return a function that undoes an update."""
        return partial(self._agent.load_state, self._agent.state())

    def load_networks(self, state: State, signature: State, /) -> None:
        """Load only the networks of the `state` of an agent with that `signature`, as `load_weights` does of files."""
        self._agent.load_state(state)

    def average(self, states: Sequence[State], /) -> State:
        """Return the mean of the `shared_state` of several members of a `Population`."""
        return mean_of_states(states)

    def joined_states(self, states: Sequence[State], /) -> State:
        """Join the `states` of all ranks, each with the environments of its rank, into one with all environments."""
        return states[0]

    def part_of_state(self, state: State, own: slice, /) -> State:
        """Return a `state` with some of its environments."""
        return state


def optional(agent: Any, name: str) -> Any:
    """Return a member of an agent, or its default in `OptionalMembers`."""
    return getattr(agent, name, getattr(OptionalMembers(agent), name))
