"""A fragment: T steps of B environments."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from parallel_rl.utils.shapes import in_shapes
from Rollouts.nested import Nested, tree_map


class State(NamedTuple):
    """The input of an actor, `(T, B, ...)`: the step number, an observation, and the previous action and its outcome.

    If `fin` is True, `obs` is the first observation of an episode and `stepno` is 0, but `act` and `rew` belong to the
    previous episode. (The very first row has no previous episode: there they are placeholders.)
    """

    stepno: Tensor
    """int64 `(T, B)`: the number of steps so far in the episode."""
    obs: Nested
    """`(T, B, ...)`, with the type of the observation space; for a Dict or Tuple space, a dict or tuple of tensors."""
    act: Nested
    """`(T, B, ...)`, the previous action."""
    rew: Tensor
    """float32 `(T, B)`, the reward of the previous action."""
    fin: Tensor
    """bool `(T, B)`: the previous action ended an episode, by termination or truncation."""

    def __repr__(self) -> str:
        """Return the fields as text, with shapes in place of numbers."""
        return in_shapes(self)


class StepValues(NamedTuple):
    """Values of a few environments at one step."""

    step: int
    envs: Tensor
    """int64 `(K,)`."""
    values: Nested
    """`(K, ...)`."""

    def __repr__(self) -> str:
        """Return the fields as text, with shapes in place of numbers."""
        return in_shapes(self)


@dataclass(frozen=True)
class Fragment:
    """T consecutive steps of B environments. No later fragment changes its tensors.

    Step t leads from row t of `state` to row t + 1; row T is row 0 of the next fragment.
    """

    state: State
    """`(1 + T, B, ...)`."""
    actor: dict[str, Nested]
    """`(1 + T, B, ...)`, the actor's further outputs. In row T they come from a look-ahead: no action is taken."""
    env: dict[str, Tensor]
    """bool `(T, B)` each, by step: `terminated`, `truncated` and `valid`. Exclude steps that are not valid from a loss:
    they were not taken, because the environment waited (`sticky`) or was restarted after a failure."""
    hx: Nested
    """The actor's recurrent state at row 0, tensors `(layers, B, ...)`."""
    lag: int = 0
    """How old the weights that acted were, in fragments."""
    last_obs: tuple[StepValues, ...] = ()
    """The last observations of the episodes that ended."""
    look_aheads: tuple[StepValues, ...] = ()
    """The actor's outputs for the last observations of truncated episodes."""
    first_hx: tuple[StepValues, ...] = ()
    """The recurrent states `(layers, K, ...)` at the start of the episodes that follow those that ended."""

    def __repr__(self) -> str:
        """Return the fields as text, with shapes in place of numbers."""
        return in_shapes(self)

    @property
    def before(self) -> State:
        """The states `(T, B, ...)` that the actor acted on."""
        return tree_map(lambda tensor: tensor[:-1], self.state)

    @property
    def after(self) -> State:
        """The next states `(T, B, ...)`, with the actions that led to them and their rewards."""
        return tree_map(lambda tensor: tensor[1:], self.state)

    @property
    def ends(self) -> Tensor:
        """Where returns stop, bool `(T, B)`: the episode ended, or its next step was not taken.

        Pass it as `ends` to `gae` and the other functions of `parallel_rl.utils`.
        """
        ends = self.state.fin[1:].clone()
        ends[:-1] |= ~self.env["valid"][1:]
        return ends

    @property
    def next_obs(self) -> Nested:
        """The next observations `(T, B, ...)`, before any reset: at an end, the last observation of the episode."""
        return _overwrite(tree_map(lambda tensor: tensor[1:].clone(), self.state.obs), self.last_obs)

    def following(self, name: str) -> Nested:
        """Return the actor's output for the next observation of each step, `(T, B, ...)`; zero after terminations.

        So `rew + gamma * following("value")` is correct at terminations, truncations and the end of the fragment. After
        truncations a look-ahead computed it. For steps that are not `valid` it has no meaning.

        Args:
            name: an entry of `actor`.

        Raises:
            KeyError: there is none of this name; the message lists them.
        """
        if name not in self.actor:
            raise KeyError(f"no output {name!r} of the actor: there are {', '.join(self.actor)}")
        finished = self.state.fin[1:]

        def zeroed(tensor: Tensor) -> Tensor:
            tensor = tensor[1:].clone()
            tensor[finished] = 0
            return tensor

        look_aheads = tuple(StepValues(entry.step, entry.envs, entry.values[name]) for entry in self.look_aheads)
        return _overwrite(tree_map(zeroed, self.actor[name]), look_aheads)


def _overwrite(tree: Nested, entries: tuple[StepValues, ...]) -> Nested:
    """Write entries into tensors `(T, B, ...)`, in place."""
    for entry in entries:
        where = entry.step, entry.envs
        tree_map(lambda tensor, values: tensor.__setitem__(where, values), tree, entry.values)  # noqa: B023
    return tree


def cat(trees: list[Any], dim: int = 0) -> Any:
    """Join containers of tensors."""
    return tree_map(lambda *tensors: torch.cat(tensors, dim), *trees)
