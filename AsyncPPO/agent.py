"""What acts and what learns, seen from outside: the protocols that evaluation, the collector and the trainer rely on.

`evaluate` needs an `Actor`, `AsyncTrainer` an `Agent`. Neither has to inherit from these classes, and nothing here
imports torch. tests/toy_agent.py is a complete agent in 40 lines.
"""

from collections.abc import Sequence
from os import PathLike
from typing import Any, Protocol

import numpy as np

from AsyncPPO.backends import Replica
from parallel_rl.utils import Metrics, State, Trajectory

Acted = tuple[np.ndarray, dict[str, np.ndarray]]
"""Actions `(n, ...)`, and further rows `(n, ...)` by name to be kept with the transitions."""


class Actor(Protocol):
    """A policy to play episodes with.

    An actor with a recurrent state also has `initial_state`, as an `Agent` has, and takes `state=`. One whose
    attribute `wants_env_ids` is true is passed `env_ids=`, the index `(n,)` of the environment of each row.
    """

    def get_action(self, obs: np.ndarray, /, *, deterministic: bool = False) -> np.ndarray:
        """Return an action for each of the observations `(n, ...)`."""


class BehaviorPolicy(Protocol):
    """A policy to collect experience with; a recurrent state and `wants_env_ids` are as for an `Actor`."""

    def act(self, obs: np.ndarray, /) -> Acted:
        """Return an action for each of the observations `(n, ...)`, and rows to be kept with the transitions."""


class AgentActor(Actor, Protocol):
    """A copy of an agent's policy: what acting needs, without memory, optimizer or replay buffer. It can be pickled."""

    def initial_state(self, num_envs: int, /) -> np.ndarray | None:
        """Return what `Agent.initial_state` returns."""

    def save_weights(self, directory: str | PathLike[str], /) -> None:
        """Do what `Agent.save_weights` does."""


class Agent(Protocol):
    """An agent that `AsyncTrainer` can train. It touches no environment, no process and no global random state.

    The trainer collects until there are `steps_wanted()` transitions, hands them to `observe`, and calls `update` if
    the agent then wants no more.

    Some members are optional:

    - `on_policy = True`: each `update` gives a row of metrics. Without it a row is the mean over the updates of at
      least `AsyncPPO.rows.ROW_STEPS` environment steps, since an off-policy agent may update in every step.
    - `check_fits(env)`: raise a `ValueError` if the agent was made for other spaces than those of the environment.
    - `check_signature(saved, source)`: compare signatures in another way than key by key; see `signature`.
    - `forget_environments()`: forget what is kept for each environment by index, since others take their places.
    - `wants_env_ids`: see `Actor`.
    """

    config: Any
    """What the agent was made with; of the agents in this project a frozen dataclass."""

    def act(self, obs: np.ndarray, /, *, state: np.ndarray | None = None) -> Acted:
        """Choose actions by the behavior policy, exploration included.

        Args:
            obs: `(n, ...)`.
            state: recurrent state `(n, S)` of these rows, updated in place; only for an agent that has one.

        Returns:
            Actions `(n, ...)`, and further rows `(n, ...)` by name: they come back as `Trajectory.extras`.
        """

    def get_action(
        self, obs: np.ndarray, /, *, deterministic: bool = False, state: np.ndarray | None = None
    ) -> np.ndarray:
        """Choose actions for an evaluation; `obs` and `state` as for `act`."""

    def initial_state(self, num_envs: int, /) -> np.ndarray | None:
        """Return the recurrent state `(num_envs, S)` at the start of an episode, zeros; None without one."""

    def steps_wanted(self) -> int:
        """Return how many more transitions the agent waits for before `update` makes sense; 0 or less: update now."""

    def observe(self, trajectories: Sequence[Trajectory], /) -> None:
        """Take experience. The arrays may be reused after the following `update`: copy what is kept longer."""

    def update(self, progress: float, workers: Any = None, /) -> Metrics:
        """Learn from what was observed.

        Args:
            progress: how much of the run is over, from 0 to 1.
            workers: processes that can help with gradients, or None; not to be kept.

        Returns:
            Metrics by name; empty if nothing was learned.
        """

    def signature(self) -> dict[str, Any]:
        """Return the settings that a checkpoint must agree with, as plain values by name."""

    def state(self) -> State:
        """Return everything that an exact resume needs, for `utils.save_state`."""

    def load_state(self, state: State, /) -> None:
        """Restore what `state` returned; raise a `ValueError`, and change nothing, if it is of another agent."""

    def actor(self) -> AgentActor:
        """Return a copy of the policy as it is now, to be evaluated, saved or sent to another process."""

    def replica(self) -> Replica | None:
        """Return a policy for worker processes, as `ReplicableAgent` says; None if only the agent itself can act."""

    def save_weights(self, directory: str | PathLike[str], /) -> None:
        """Save the weights into a directory, which is made if it is missing."""

    def load_weights(self, directory: str | PathLike[str], /) -> None:
        """Load what `save_weights` saved."""


class ReplicableAgent(Protocol):
    """What an `Agent` with a `replica` also has: its policy acts in the processes that step environments."""

    def replica_weights(self) -> np.ndarray:
        """Return the present weights `(P,)` of the replicas."""

    def noise(self, *shape: int) -> np.ndarray:
        """Return the random numbers `(*shape, A)` that replicas need to act `shape` times."""
