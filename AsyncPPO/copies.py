"""What can be asked of the copies of an environment, besides their steps."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from AsyncPPO.backends import Backend, EnvError, apply

Result = TypeVar("Result")


class Copies(ABC):
    """N copies of an environment, wherever they are: methods, attributes and frames, as Gymnasium's `VectorEnv` has.

    They are not for `reset` and `step`, which the vectorizer has to know of. What a copy raises is told and harms
    nothing; copies that are restarted (`on_env_error="restart"`) have the attributes that they were made with.
    """

    num_envs: int
    _reset_options: dict[str, Any] | None = None

    @property
    def reset_options(self) -> dict[str, Any] | None:
        """What every reset is handed as its `options`, autoresets too; may be assigned, for the resets that follow.

        Each environment gets a copy. It belongs to a checkpoint, so it is made of what `utils.save_state` takes.

        Raises:
            TypeError: it is not a dict of names, or cannot be sent to a process.
            RuntimeError: some environments were sent actions, or the vectorizer is closed.
        """
        return self._reset_options

    @reset_options.setter
    def reset_options(self, options: dict[str, Any] | None) -> None:
        if options is not None and not (isinstance(options, dict) and all(isinstance(name, str) for name in options)):
            raise TypeError(f"reset_options must be a dict with strings as keys, not {options!r}")
        backend, options = self._idle_backend(), copy.deepcopy(options)
        self._guarded(lambda: backend.set_reset_options(options))
        self._reset_options = options

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call a method of every copy, or read an attribute that is no method; wrappers are looked through.

        Args:
            name: of the method or attribute.
            args: of the method; what goes to another process has to be picklable.
            kwargs: of the method.

        Returns:
            N results, in index order.

        Raises:
            EnvError: a copy raised, has no such attribute, or gave a result that cannot leave its process; names it. Or
                the backend is `vector`, whose environments are one object.
            RuntimeError: some were sent actions, or the vectorizer is closed.
        """
        return self._apply(partial(apply.call, name=name, args=args, kwargs=kwargs))

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Return an attribute of every copy; as in Gymnasium, of a method what it returns. See `call`."""
        return self._apply(partial(apply.call, name=name, args=(), kwargs={}, what="get_attr"))

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of every copy: in the wrapper that has it, otherwise in the outermost.

        Args:
            name: of the attribute.
            values: a list or tuple of one value for each copy, or one value for all.

        Raises:
            ValueError: another number of values.
            EnvError, RuntimeError: as for `call`.
        """
        values = list(values) if isinstance(values, list | tuple) else [values] * self.num_envs
        if len(values) != self.num_envs:
            raise ValueError(f"there are {len(values)} values of {name!r} for {self.num_envs} environments")
        self._apply(partial(apply.set_attr, name=name, values=values))

    def render(self) -> tuple[Any, ...]:
        """Return what every copy renders, by the `render_mode` that it was made with. See `call`."""
        return self.call("render")

    def _apply(self, function: Callable[..., apply.Outcomes]) -> tuple[Any, ...]:
        """Apply a function to all blocks; return its results in index order."""
        backend = self._idle_backend()
        outcomes = self._guarded(lambda: backend.apply(function))
        for index in sorted(outcomes):
            if outcomes[index].fault:
                raise EnvError(outcomes[index].fault)
        return tuple(outcomes[index].result for index in sorted(outcomes))

    @abstractmethod
    def _idle_backend(self) -> Backend:
        """Return the backend, if no environment is in the middle of a step."""

    @abstractmethod
    def _guarded(self, call: Callable[[], Result]) -> Result:
        """Close when a call is cut short."""
