"""A fragment: T steps of B environments."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from Rollouts.nested import Nested, tree_map


class State(NamedTuple):
    """What an actor acts on, `(T, B, ...)`: the time, an observation, and what led to it.

    Where `fin`, `obs` is the first observation of an episode and `stepno` 0, while `act` and `rew` belong to the
    episode before (at the very first, they are placeholders).
    """

    stepno: Tensor
    """int64 `(T, B)`: how many steps the episode has taken."""
    obs: Nested
    """`(T, B, ...)`, of the type that the observation space has; a dict or tuple of tensors where it is one."""
    act: Nested
    """`(T, B, ...)`, the action before."""
    rew: Tensor
    """float32 `(T, B)`, the reward of that action."""
    fin: Tensor
    """bool `(T, B)`: that action ended an episode, by termination or truncation."""


class At(NamedTuple):
    """Values of a few environments at one step."""

    step: int
    envs: Tensor
    """int64 `(K,)`."""
    values: Nested
    """`(K, ...)`."""


@dataclass(frozen=True)
class Fragment:
    """T consecutive steps of B environments. Its tensors are its own: no later fragment changes them.

    Step t leads from row t of `state` to row t + 1; row T is row 0 of the next fragment.
    """

    state: State
    """`(1 + T, B, ...)`."""
    actor: dict[str, Nested]
    """`(1 + T, B, ...)`, what the actor returned beside its actions. Row T is a look-ahead: not acted on."""
    env: dict[str, Tensor]
    """bool `(T, B)` each, of the steps: `terminated`, `truncated`, and `valid`, which is False where no step was taken
    (`sticky`, or an environment failed and was restarted): leave these out of a loss."""
    hx: Nested
    """The actor's recurrent state at row 0, tensors `(layers, B, ...)`."""
    lag: int = 0
    """How many fragments the consumer had got between the weights that acted here and the weights of today."""
    last_obs: tuple[At, ...] = ()
    """The last observations of the episodes that ended."""
    look_aheads: tuple[At, ...] = ()
    """What the actor said of these, where an episode was truncated."""

    @property
    def before(self) -> State:
        """The states `(T, B, ...)` that were acted on."""
        return tree_map(lambda tensor: tensor[:-1], self.state)

    @property
    def after(self) -> State:
        """The states `(T, B, ...)` that the actions led to, with these actions and their rewards."""
        return tree_map(lambda tensor: tensor[1:], self.state)

    @property
    def next_obs(self) -> Nested:
        """The true next observations `(T, B, ...)`: where an episode ended its last one, not the first of the next."""
        return _with(tree_map(lambda tensor: tensor[1:].clone(), self.state.obs), self.last_obs)

    def following(self, name: str) -> Nested:
        """Return what the actor said of the true next observation of each step, `(T, B, ...)`; zero after terminations.

        So that `rew + gamma * following("value")` is right at terminations, truncations and the fragment's end. What
        follows a truncation has a look-ahead of its own. Zero where no step was taken.

        Args:
            name: an entry of `actor`.
        """
        finished = self.state.fin[1:]

        def zeroed(tensor: Tensor) -> Tensor:
            tensor = tensor[1:].clone()
            tensor[finished] = 0
            return tensor

        look_aheads = tuple(At(at.step, at.envs, at.values[name]) for at in self.look_aheads)
        return _with(tree_map(zeroed, self.actor[name]), look_aheads)


def _with(tree: Nested, entries: tuple[At, ...]) -> Nested:
    """Put entries into tensors `(T, B, ...)`, in place."""
    for at in entries:
        where = at.step, at.envs
        tree_map(lambda tensor, values: tensor.__setitem__(where, values), tree, at.values)  # noqa: B023
    return tree


def cat(trees: list[Any], dim: int = 0) -> Any:
    """Join containers of tensors."""
    return tree_map(lambda *tensors: torch.cat(tensors, dim), *trees)
