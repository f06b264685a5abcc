"""Parallel environments, in whatever process they are: their rows, methods and attributes, and their end."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np

from AsyncPPO.backends import Backend, EnvError, apply
from AsyncPPO.progress import tell_if_long
from AsyncPPO.workers import WorkerPool
from parallel_rl.utils import Closeable

Result = TypeVar("Result")


class ParallelEnvs(Closeable):
    """N environments behind a backend, without their steps.

    `call`, `get_attr`, `set_attr` and `render` are as in Gymnasium's `VectorEnv`. Do not call `reset` and `step` with
    them: the vectorizer has to know of these. What an environment raises is an error after which all of them go on;
    one that is restarted (`on_env_error="restart"`) has the attributes that it was made with.
    """

    num_envs: int
    _backend: Backend | None = None
    _outstanding = 0
    """How many environments were sent actions."""
    _settled = False
    """Whether a step has come back."""
    _reset_options: dict[str, Any] | None = None

    @property
    def obs(self) -> np.ndarray:
        """Observations `(N, ...)`, the present ones; they change with the next step."""
        return self._open_backend().arrays.obs

    @property
    def final_obs(self) -> np.ndarray:
        """Observations `(N, ...)`: the last of an episode, where an environment was reset in its last step."""
        return self._open_backend().arrays.final_obs

    @property
    def failed(self) -> np.ndarray:
        """Bool `(N,)`: which failed in their last step and were restarted (`on_env_error="restart"`)."""
        return self._open_backend().arrays.failed

    @property
    def restarts(self) -> int:
        """How many environments were restarted because they, or their process, failed."""
        return self._open_backend().restarts

    @property
    def pool(self) -> WorkerPool:
        """The processes that step, this one among them, for other tasks (`backends.Replicas`, `GradientWorkers`).

        Raises:
            RuntimeError: some environments were sent actions, or the vectorizer is closed.
        """
        return self._idle_backend().pool

    @property
    def reset_options(self) -> dict[str, Any] | None:
        """The `options` of every reset, autoresets too; may be assigned, for the resets that follow.

        Each environment gets a copy. A checkpoint contains them, so they consist of what `utils.save_state` takes.

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
        """Call a method of every environment, or read an attribute that is no method; wrappers are looked through.

        Args:
            name: of the method or attribute.
            args: of the method; what goes to another process has to be picklable.
            kwargs: of the method.

        Returns:
            N results, in index order.

        Raises:
            EnvError: an environment raised, has no such attribute, or gave a result that cannot leave its process. Or
                the backend is `vector`, whose environments are one object.
            RuntimeError: some were sent actions, or the vectorizer is closed.
        """
        return self._apply(partial(apply.call, name=name, args=args, kwargs=kwargs))

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Return an attribute of every environment; as in Gymnasium, of a method what it returns. See `call`."""
        return self._apply(partial(apply.call, name=name, args=(), kwargs={}, what="get_attr"))

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of every environment: in the wrapper that has it, otherwise in the outermost.

        Args:
            name: of the attribute.
            values: a list or tuple of one value for each environment, or one value for all.

        Raises:
            ValueError: another number of values.
            EnvError, RuntimeError: as for `call`.
        """
        values = list(values) if isinstance(values, list | tuple) else [values] * self.num_envs
        if len(values) != self.num_envs:
            raise ValueError(f"there are {len(values)} values of {name!r} for {self.num_envs} environments")
        self._apply(partial(apply.set_attr, name=name, values=values))

    def render(self) -> tuple[Any, ...]:
        """Return what every environment renders, by the `render_mode` that it was made with. See `call`."""
        return self.call("render")

    def _apply(self, function: Callable[..., apply.Outcomes]) -> tuple[Any, ...]:
        """Apply a function to all blocks; return its results in index order."""
        backend = self._idle_backend()
        outcomes = self._guarded(lambda: backend.apply(function))
        for index in sorted(outcomes):
            if outcomes[index].fault:
                raise EnvError(outcomes[index].fault)
        return tuple(outcomes[index].result for index in sorted(outcomes))

    def close(self) -> None:
        """Close the environments and end their processes; may be called twice."""
        backend, self._backend = self._backend, None
        if backend is not None:
            backend.close()

    def _open_backend(self) -> Backend:
        if self._backend is None or self._backend.pool.closed:
            raise RuntimeError("this EnvVectorizer is closed")
        return self._backend

    def _idle_backend(self) -> Backend:
        backend = self._open_backend()
        if self._outstanding:
            raise RuntimeError("some environments have been sent actions: recv() them first")
        return backend

    def _guarded(self, call: Callable[[], Result]) -> Result:
        """Close when a call is cut short: half a step must not be taken for a whole one later."""
        try:
            return call()
        except BaseException:
            self.close()
            raise

    def _awaited(self, call: Callable[[], Result]) -> Result:
        """Do the same for a reset or step; the first may never return, so it warns of what it waits for."""
        if self._settled:
            return self._guarded(call)
        with tell_if_long(self._open_backend().waits_for):
            return self._guarded(call)
