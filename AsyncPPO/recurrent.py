"""The recurrent state of an actor, one row for each environment."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from AsyncPPO.agent import Actor, BehaviorPolicy
from parallel_rl.utils import check_like

Result = TypeVar("Result")


class RecurrentState:
    """The recurrent state `(N, S)` of an actor in N environments, if the actor has `initial_state`."""

    def __init__(self, actor: Actor | BehaviorPolicy, num_envs: int) -> None:
        initial = getattr(actor, "initial_state", None)
        self._state: np.ndarray | None = None if initial is None else initial(num_envs)
        self._wants_env_ids: bool = getattr(actor, "wants_env_ids", False)

    def query(self, method: Callable[..., Result], obs: np.ndarray, env_ids: np.ndarray, **options: Any) -> Result:
        """Call `act` or `get_action` of the actor for environments `env_ids` `(n,)`, and store their next state.

        Args:
            method: of the actor.
            obs: `(n, ...)`; for one environment also a single observation.
            env_ids: the environments.
            options: further arguments of the method.
        """
        if self._wants_env_ids:
            options["env_ids"] = env_ids
        if self._state is None:
            return method(obs, **options)
        state = self._state[env_ids]
        result = method(obs, state=state, **options)
        self._state[env_ids] = state
        return result

    def state(self) -> np.ndarray | None:
        """Return a copy of the recurrent state `(N, S)`, or None."""
        return None if self._state is None else self._state.copy()

    def load_state(self, state: np.ndarray | None) -> None:
        """Restore what `state` returned; None leaves the state at an episode's start.

        Raises:
            ValueError: it has another shape or type.
        """
        if self._state is not None and state is not None:
            check_like(state, self._state, "recurrent state")
            self._state = state

    def reset(self, env_ids: np.ndarray) -> None:
        """Set the state of some environments to that at the start of an episode."""
        if self._state is not None:
            self._state[env_ids] = 0.0
