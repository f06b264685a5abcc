"""The interface of an actor."""

import inspect
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from parallel_rl.utils.device import found_device
from parallel_rl.utils.names import fault_of_call
from Rollouts.nested import Nested, tree_map


class Actor(Protocol):
    """A `BaseActorModule`, or another object with the same two methods."""

    def reset(self, hx: Nested, at: Any) -> Nested:
        """Return the recurrent state after a reset of some environments."""

    def step(
        self, stepno: Tensor, obs: Nested, act: Nested, rew: Tensor, fin: Tensor, /, *, hx: Nested, virtual: bool
    ) -> tuple[Nested, Nested, dict[str, Nested]]:
        """Return actions, the next recurrent state, and further outputs by name."""


class BaseActorModule(nn.Module):
    """A module that acts, in any number of environments, in this process or in workers.

    Override `step` or `forward`, and `reset` if the initial recurrent state is not zero. The arguments of `step` and
    `reset` are checked when a subclass is defined.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Check the arguments of `reset` and `step`.

        Raises:
            TypeError: they differ from those of this class.
        """
        super().__init_subclass__(**kwargs)
        check_signatures(cls)

    def reset(self, hx: Nested, at: int | slice) -> Nested:
        """Return the recurrent state after a reset of some environments; by default it is zero for these.

        Args:
            hx: tensors `(layers, B, ...)`; do not change them in place.
            at: the environments that were reset, as an index of the second dimension.
        """

        def zeroed(tensor: Tensor) -> Tensor:
            tensor = tensor.clone()
            tensor[:, at] = 0
            return tensor

        return tree_map(zeroed, hx)

    def step(
        self, stepno: Tensor, obs: Nested, act: Nested, rew: Tensor, fin: Tensor, /, *, hx: Nested, virtual: bool
    ) -> tuple[Nested, Nested, dict[str, Nested]]:
        """Act on states; by default this calls `forward`, with `obs` and all other arguments by name.

        The arguments before `hx` are the fields of a `State`, `(T, B, ...)`. In a rollout T is 1. A loss can call this
        with the states of a whole fragment. Do not change arguments in place.

        Args:
            stepno: int64 `(T, B)`, the number of steps so far in the episode.
            obs: `(T, B, ...)`; for a Dict or Tuple space a dict or tuple of tensors.
            act: `(T, B, ...)`, the previous actions.
            rew: float32 `(T, B)`, their rewards.
            fin: bool `(T, B)`: the previous action ended an episode, and `obs` is the first observation of the next
                one. If T > 1, reset the recurrent state there; if T = 1, the rollout has done it.
            hx: the recurrent state, tensors `(layers, B, ...)` in any container. None asks for the initial one; `()`
                means that there is none.
            virtual: whether this is a look-ahead, whose actions are not taken.

        Returns:
            Actions `(T, B, ...)`, the next recurrent state in new tensors, and a dict of tensors `(T, B, ...)` for the
            fragment.
        """
        return self(obs, act=act, rew=rew, fin=fin, stepno=stepno, hx=hx, virtual=virtual)


SIGNATURES = {
    "reset": "(self, hx, at)",
    "step": "(self, stepno, obs, act, rew, fin, /, *, hx, virtual)",
}


def check_signatures(cls: type) -> None:
    """Check the arguments of the two methods of an actor's class.

    Raises:
        TypeError: a method is missing, or takes other arguments.
    """
    for name, wanted in SIGNATURES.items():
        method = getattr(cls, name, None)
        if not callable(method):
            raise TypeError(f"{cls.__name__} is not an actor: it has no method {name}{wanted}")
        signature = inspect.signature(method)
        if name == "step":
            fits = fault_of_call(method, *range(6), hx=None, virtual=True) is None
        else:
            fits = [*signature.parameters] == ["self", "hx", "at"]
        if not fits:
            raise TypeError(f"{cls.__name__}.{name} must take {wanted}, not {signature}")


def check_actor(cls: type) -> None:
    """Check the arguments of the methods of an actor's class: also those of `forward`, if `step` calls it.

    Raises:
        TypeError: a method is missing, or takes other arguments.
    """
    check_signatures(cls)
    if issubclass(cls, nn.Module) and getattr(cls, "step", None) is BaseActorModule.step:
        names, signature = ("act", "rew", "fin", "stepno", "hx", "virtual"), inspect.signature(cls.forward)
        if fault_of_call(cls.forward, "self", "obs", **dict.fromkeys(names)):
            raise TypeError(
                f"{cls.__name__}.forward must take (self, obs, *, {', '.join(names)}), or **_ for those that it does "
                f"not use, not {signature}"
            )


def call(actor: Actor, method: str, *args: Any, **options: Any) -> Any:
    """Return what a method of an actor returns.

    Raises:
        RuntimeError: the method raised an error, which is its cause; the message names both.
    """
    try:
        return getattr(actor, method)(*args, **options)
    except Exception as error:
        raise RuntimeError(f"{type(actor).__name__}.{method} failed: {type(error).__name__}: {error}") from error


def device_for(actor: Actor, device: torch.device | str | None) -> torch.device:
    """Return the device as given, or that of an actor's parameters.

    Raises:
        ValueError: torch does not know the device, or does not find it.
    """
    if device is None:
        parameters = getattr(actor, "parameters", lambda: iter(()))()
        device = next((parameter.device for parameter in parameters), torch.device("cpu"))
    return torch.device(found_device(str(device)))
