"""Sampler: minibatches from a replay buffer, uniform or prioritized, with hindsight goals or n-step returns."""

from collections.abc import Sequence

import numpy as np
import torch

from OffPolicy.config import OffPolicyConfig
from OffPolicy.her import ACHIEVED, DESIRED, GoalFunctions, Hindsight
from OffPolicy.priorities import Priorities
from OffPolicy.replay import Replay, Transitions
from parallel_rl.utils import ALONE, Ranks, State, Trajectory

ROUNDING = 1e-3
"""The amount by which rewards may be out of the range of `clip_return`."""


class Sampler:
    """Samples minibatches according to a config."""

    def __init__(
        self, replay: Replay, config: OffPolicyConfig, goal_functions: GoalFunctions | None, rng: np.random.Generator
    ) -> None:
        """Store the parts; hindsight needs `goal_functions`, and goals in the observations.

        Raises:
            ValueError: they are missing.
        """
        self.replay, self.rng = replay, rng
        self.hindsight: Hindsight | None = None
        self._hindsight_is_checked = False
        if config.hindsight != "none":
            if goal_functions is None:
                raise ValueError("hindsight needs the goal functions of an environment: make the agent by for_env")
            if missing := {ACHIEVED, DESIRED}.difference(replay.parts):
                raise ValueError(f"hindsight needs {' and '.join(sorted(missing))} in the observations")
            self.hindsight = Hindsight(goal_functions, config.hindsight, config.replay_k)
        self.priorities = Priorities(replay.capacity, config.priority_alpha) if config.prioritized else None

    def extend(self, trajectories: Sequence[Trajectory]) -> None:
        """Add trajectories to the replay buffer."""
        changed = self.replay.extend(trajectories)
        if self.priorities is not None:
            self.priorities.extend(changed, self.replay.is_transition[changed])

    @property
    def mass(self) -> float:
        """The number of transitions; with prioritized replay the sum of their priorities."""
        return len(self.replay) if self.priorities is None else float(self.priorities.tree.total)

    def sample(
        self, config: OffPolicyConfig, count: int, progress: float, ranks: Ranks = ALONE
    ) -> tuple[np.ndarray, Transitions]:
        """Return rows of the replay buffer, int64 `(count,)`, and their transitions.

        Args:
            config: the current settings.
            count: the number of transitions, of one minibatch or of several.
            progress: the fraction of the run that is over, from 0 to 1, for the importance weights.
            ranks: those that have the other transitions of the minibatch.

        Raises:
            ValueError: hindsight would compute other rewards than those of the steps, or `clip_return` would cut off
                returns that can be reached.
        """
        if self.priorities is None:
            rows = self.replay.sample(count, self.rng)
            transitions = self._transitions(config, rows)
        else:
            rows = self.priorities.sample(count, self.rng)
            beta = config.priority_beta
            weight = self.priorities.weights(rows, beta + (1 - beta) * progress, ranks)
            transitions = self._transitions(config, rows)._replace(weight=weight)
        if config.clip_return:
            _check_clipped(transitions.reward, config.n_step)
        return rows, transitions

    def _transitions(self, config: OffPolicyConfig, rows: np.ndarray) -> Transitions:
        if self.hindsight is None:
            return self.replay.transitions(rows, config.gamma, config.n_step)
        if not self._hindsight_is_checked:
            self.hindsight, self._hindsight_is_checked = self.hindsight.checked(self.replay), True
        return self.hindsight.transitions(self.replay, rows, config.gamma, self.rng)

    def update_priorities(self, rows: np.ndarray, errors: torch.Tensor) -> None:
        """Record the TD errors `(B,)` of a minibatch, computed before its update, if replay is prioritized."""
        if self.priorities is not None:
            self.priorities.update(rows, errors.detach().cpu().numpy())

    def sync_priorities(self, ranks: Ranks) -> None:
        """Give new rows the largest priority of all ranks."""
        if self.priorities is not None:
            self.priorities.largest = max(ranks.all_gather(self.priorities.largest))

    def clear(self) -> None:
        """Empty the replay buffer."""
        self.replay.clear()
        if self.priorities is not None:
            self.priorities.clear()

    def state(self) -> State:
        """Return everything, for `utils.save_state`; the replay buffer is not copied."""
        return {
            "replay": self.replay.state(),
            "priorities": None if self.priorities is None else self.priorities.state(),
        }

    def load_state(self, state: State) -> None:
        """Restore what `state` returned; raise a `ValueError` if it is that of another buffer."""
        self.replay.load_state(state["replay"])
        if self.priorities is None:
            return
        if state["priorities"] is not None:
            self.priorities.load_state(state["priorities"])
            return
        self.priorities.clear()  # replay was uniform before: all transitions get the same priority
        if self.replay.num_envs:
            self.priorities.extend(np.arange(self.replay.rows), self.replay.is_transition)


def _check_clipped(reward: np.ndarray, steps: int) -> None:
    """Check that rewards `(B,)`, sums of so many steps each, do not lead out of the range of `clip_return`.

    Raises:
        ValueError: they do.
    """
    low, high = reward.min(), reward.max()
    if low < -steps - ROUNDING or high > ROUNDING:
        found = f"{'one' if steps == 1 else f'{steps} of them'} had {high if high > ROUNDING else low:g}"
        raise ValueError(
            f"clip_return needs rewards from -1 to 0 in all steps, but {found}: leave it out (--no-clip-return)"
        )


def shares(masses: Sequence[float], size: int) -> list[int]:
    """Return how many of the `size` rows of a minibatch come from each rank, in proportion to their masses."""
    bounds = np.cumsum([0.0, *masses])
    return np.diff(np.rint(bounds / bounds[-1] * size)).astype(int).tolist()
