"""Checks of the environments, and of an actor's outputs; made once before the first step."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import Tensor

from parallel_rl.utils import is_vectorized
from Rollouts.actor import Actor, call
from Rollouts.fragment import State
from Rollouts.nested import Nested, tree_leaves, tree_map

Result = TypeVar("Result")


def check_single(env: Any) -> None:
    """Check that environments are single ones.

    Raises:
        TypeError: it is a `VectorEnv`, or makes one.
    """
    if is_vectorized(env):
        raise TypeError(f"rollouts step single environments: pass a function that makes one, not the VectorEnv {env!r}")


def initial_hx(actor: Actor, state: State) -> Nested:
    """Return the recurrent state of an actor at the start of episodes; check the actor's outputs.

    Args:
        actor: called twice, as a look-ahead.
        state: the first states `(1, B, ...)`.

    Raises:
        RuntimeError: the actor raises an error.
        TypeError, ValueError: it returns wrong values, or changes its arguments in place.
    """
    step, reset = f"{type(actor).__name__}.step", f"{type(actor).__name__}.reset"
    outputs = call(actor, "step", *state, hx=None, virtual=True)
    if not isinstance(outputs, tuple) or len(outputs) != 3 or not isinstance(outputs[2], dict):
        raise TypeError(f"{step} must return actions, hx and a dict of tensors, not {outputs!r:.200}")
    act, initial, info = outputs
    num_envs = len(state.rew[0])
    _check_actions(actor, act, state.act)
    _check_shapes(f"info of {step}", info, (1, num_envs))
    _check_shapes(f"hx of {step}", initial, (None, num_envs))
    hx = _checked_for_changes(reset, {"hx": initial}, lambda: call(actor, "reset", initial, slice(None)))
    _check_like(reset, hx, initial)
    arguments = {"hx": hx, **state._asdict()}
    _, next_hx, _ = _checked_for_changes(step, arguments, lambda: call(actor, "step", *state, hx=hx, virtual=True))
    _check_like(step, next_hx, hx)
    return hx


@contextmanager
def actions_of(actor: Actor) -> Iterator[None]:
    """Let an error about actions name the actor."""
    try:
        yield
    except ValueError as error:
        step = f"{type(actor).__name__}.step"
        raise ValueError(f"the actions of {step} do not fit the action space: {error}") from None


def _check_actions(actor: Actor, act: Nested, wanted: Nested) -> None:
    """Check actions `(1, B, ...)` against examples of the right structure, shape and type."""

    def check(example: Tensor, value: Any) -> None:
        _check_shape(example, value)
        if value.is_floating_point() and not example.is_floating_point():
            raise ValueError(f"they must be {example.dtype}, not {value.dtype}")

    with actions_of(actor):
        tree_map(check, wanted, act)


def _check_shape(example: Tensor, value: Any) -> None:
    if not isinstance(value, Tensor) or value.shape != example.shape:
        found = tuple(value.shape) if isinstance(value, Tensor) else repr(value)[:200]
        raise ValueError(f"there must be a tensor of shape {tuple(example.shape)}, not {found}")


def _check_shapes(what: str, tree: Nested, lead: tuple[int | None, int]) -> None:
    """Check that all leaves are tensors `(*lead, ...)`; None in `lead` stands for any number."""
    for name, leaf in tree_leaves(tree):
        named = f"{name!r} in the {what}" if name else f"the {what}"
        if not isinstance(leaf, Tensor):
            raise TypeError(f"{named} must be a tensor, not {leaf!r:.200}")
        if leaf.ndim < 2 or any(wanted not in (None, size) for wanted, size in zip(lead, leaf.shape, strict=False)):
            shape = f"({'layers' if lead[0] is None else lead[0]}, {lead[1]}, ...)"
            raise ValueError(f"{named} must have shape {shape}, not {tuple(leaf.shape)}")


def _check_like(what: str, hx: Nested, before: Nested) -> None:
    """Check that a recurrent state has the structure and the shapes of the previous one."""
    try:
        tree_map(_check_shape, before, hx)
    except ValueError as error:
        raise ValueError(f"the hx that {what} returns is not like the one that it was given: {error}") from None


def _checked_for_changes(what: str, given: Nested, call: Callable[[], Result]) -> Result:
    """Return the result of a call with some tensors.

    Raises:
        ValueError: it changed one of them.
    """
    before = [(name, leaf, leaf._version) for name, leaf in tree_leaves(given)]
    result = call()
    for name, leaf, version in before:
        if leaf._version != version:
            raise ValueError(f"{what} changed its {name} in place: it must return new tensors")
    return result
