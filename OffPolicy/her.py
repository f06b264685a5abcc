"""Hindsight experience replay (Andrychowicz et al. 2017, arXiv:1707.01495): achieved goals become desired ones."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import numpy as np

from OffPolicy.replay import Replay, Transitions, random_below
from parallel_rl.utils import failure_of

Strategy = Literal["future", "final", "episode"]
GoalFunction = Callable[[np.ndarray, np.ndarray, dict[str, Any]], Any]
"""Takes achieved goals `(n, G)`, desired goals `(n, G)` and an info, and returns values `(n,)`.

It may also take single goals `(G,)` only, and return one value."""
ACHIEVED, DESIRED = "achieved_goal", "desired_goal"
CHECKED = 10_000
"""The largest number of stored steps that are checked."""
OTHER_REWARDS = 0.01
"""The fraction of rewards that may differ: goals are stored in single precision, and may then be beyond a threshold."""


class GoalFunctions(NamedTuple):
    """Reward and termination of a goal-conditioned environment, for any goal."""

    compute_reward: GoalFunction
    compute_terminated: GoalFunction | None = None
    """None: the termination of a step is taken not to depend on the goal."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "GoalFunctions":
        """Return itself: the functions may be methods of an environment, which is not copied."""
        return self

    @classmethod
    def of(cls, env: Any) -> "GoalFunctions":
        """Return the functions of an environment with the interface of Gymnasium-Robotics, or of its wrappers.

        Raises:
            ValueError: the environment lacks `compute_reward`.
        """
        is_vector = isinstance(env, gym.vector.VectorEnv)  # whose wrappers have no `get_wrapper_attr`
        find = partial(getattr, env.unwrapped) if is_vector else env.get_wrapper_attr
        found: dict[str, GoalFunction] = {}
        for name in cls._fields:
            with suppress(AttributeError):
                function = find(name)
                if not getattr(function, "__isabstractmethod__", False):  # Gymnasium-Robotics' base class has these
                    found[name] = function
        if "compute_reward" not in found:
            raise ValueError(f"hindsight needs the method compute_reward(achieved_goal, desired_goal, info) of {env}")
        return cls(**found)

    def on_arrays(self, achieved: np.ndarray, desired: np.ndarray) -> "GoalFunctions":
        """Return functions that take arrays of goals and return arrays, whatever these do.

        Args:
            achieved: goals that steps achieved `(n, G)`, as examples.
            desired: the goals of these steps `(n, G)`.

        Raises:
            RuntimeError: a function fails with arrays and with single goals; the message names the error with arrays.
        """
        others = np.roll(achieved, 1, axis=0)  # what other steps achieved, as hindsight takes it
        examples = np.concatenate([achieved, achieved, desired]), np.concatenate([desired, others, desired])
        return GoalFunctions(
            *[function and _on_arrays(name, function, *examples) for name, function in self._asdict().items()]
        )

    def values(
        self, name: Literal["compute_reward", "compute_terminated"], achieved: np.ndarray, desired: np.ndarray
    ) -> np.ndarray:
        """Return the values `(n,)` of one of the functions, which takes arrays, for goals `(n, G)`.

        Raises:
            ValueError: the values have another shape.
            RuntimeError: the function failed; the message names the error, and what it was called with.
        """
        values, count = np.asarray(_call(name, getattr(self, name), achieved, desired)), len(desired)
        if values.shape != (count,):
            raise ValueError(f"{name} must return ({count},) values for {count} goals, and returned {values.shape}")
        return values


def _on_arrays(name: str, function: GoalFunction, achieved: np.ndarray, desired: np.ndarray) -> GoalFunction:
    """Return a goal function that takes arrays; what the given one takes is found out with pairs of goals `(n, G)`.

    One that fails with arrays, or returns a single number for them, takes single goals (the mazes), and is called for
    each. But if it returns this number also for each of the pairs, it is constant (Fetch's `compute_terminated`).
    """

    def each(achieved: np.ndarray, desired: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        return np.array([_call(name, function, *pair) for pair in zip(achieved, desired, strict=True)])

    try:
        values = np.asarray(_call(name, function, achieved, desired))
    except RuntimeError:
        with suppress(RuntimeError):
            _call(name, function, achieved[0], desired[0])
            return each
        raise
    if values.ndim:
        return function
    if (each(achieved, desired, {}) == values).all():
        return lambda achieved, desired, info: np.full(len(desired), values)
    return each


def _call(name: str, function: GoalFunction, achieved: np.ndarray, desired: np.ndarray) -> Any:
    try:
        return function(achieved, desired, {})
    except Exception as error:
        raise RuntimeError(
            f"hindsight called {name} with achieved goals {achieved.shape}, desired goals {desired.shape} and the info "
            f"{{}}, and it failed: {failure_of(error)}"
        ) from error


@dataclass(frozen=True)
class Hindsight:
    """Replaces the goal of sampled transitions by one that their own episode achieved.

    It changes k/(k+1) of all transitions: the goal in both observations, the reward, and whether the step terminated.
    """

    goal_functions: GoalFunctions
    strategy: Strategy
    """Which step of the episode achieved the new goal: a later one (`future`), the last one (`final`), or any
    (`episode`). In an unfinished episode only the steps so far count."""
    k: int
    """The number of transitions with such a goal for each one with its original goal."""

    def checked(self, replay: Replay) -> "Hindsight":
        """Return the same with goal functions that take arrays, after a check with stored steps.

        Raises:
            ValueError: steps have other rewards than `compute_reward` gives for their own goals, so those for other
                goals would be wrong, too.
            RuntimeError: a goal function fails.
        """
        rows = np.flatnonzero(replay.is_transition)[:CHECKED]
        stored, obs = replay.reward[rows], replay.obs[replay.following(rows)]
        functions = self.goal_functions.on_arrays(obs[ACHIEVED], obs[DESIRED])
        computed = functions.values("compute_reward", obs[ACHIEVED], obs[DESIRED])
        others = np.flatnonzero(~np.isclose(computed, stored, rtol=1e-3, atol=1e-3))
        if len(others) > OTHER_REWARDS * len(rows):
            raise ValueError(
                f"hindsight needs the rewards of compute_reward, but {len(others):,} of {len(rows):,} steps had others "
                f"({stored[others[0]]:g} in place of {computed[others[0]]:g}): a wrapper that changes rewards or goals "
                "needs a compute_reward of its own"
            )
        return replace(self, goal_functions=functions)

    def transitions(self, replay: Replay, rows: np.ndarray, gamma: float, rng: np.random.Generator) -> Transitions:
        """Return the transitions at rows `(B,)`, some of them with another goal."""
        batch = replay.transitions(rows, gamma)
        relabeled = np.flatnonzero(rng.random(len(rows)) < self.k / (self.k + 1))
        goal = replay.obs.take(self.goal_rows(replay, rows[relabeled], rng), 0)[ACHIEVED]
        achieved = batch.next_obs[ACHIEVED][relabeled]
        for obs in (batch.obs, batch.next_obs):
            obs[DESIRED][relabeled] = goal
        batch.reward[relabeled] = self.goal_functions.values("compute_reward", achieved, goal)
        if self.goal_functions.compute_terminated is not None:
            terminated = self.goal_functions.values("compute_terminated", achieved, goal)
            batch.discount[relabeled] = np.where(terminated, 0.0, gamma)
        return batch

    def goal_rows(self, replay: Replay, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return, for each of `rows` `(n,)`, the row whose achieved goal becomes its goal.

        An observation shows what the step before it achieved, so the first one of an episode is never a goal.
        """
        last = replay.steps_to_final(rows)
        if self.strategy == "final":
            return replay.following(rows, last)
        first = 1 - replay.steps_kept_before(rows) if self.strategy == "episode" else 1
        return replay.following(rows, first + random_below(last + 1 - first, len(rows), rng))
