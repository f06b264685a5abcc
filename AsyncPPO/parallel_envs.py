"""Parallel environments behind a backend: their mask, rows, attributes and state, and how they are closed."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from AsyncPPO.backends import ENV_ERROR, Backend, EnvError, apply, check_saved
from AsyncPPO.progress import warn_if_long
from AsyncPPO.resets import EnvSeeds, check_mask, checked_options
from AsyncPPO.workers import WorkerPool
from parallel_rl.utils import Closeable, State, episode_ends, true_next_obs

Result = TypeVar("Result")
logger = logging.getLogger(__name__)


class ParallelEnvs(Closeable):
    """N environments behind a backend; a subclass resets and steps them.

    `envs_active` is a bool mask `(N,)` in which True means that the environment has FINISHED (the name is historical;
    `finished` is the same array).

    `call`, `get_attr`, `set_attr` and `render` are as in Gymnasium's `VectorEnv`. Do not call `reset` or `step` through
    them, since the vectorizer would not notice. If an environment raises an exception in them, that is an `EnvError`,
    and the environments can still be used. An environment that is restarted has its initial attributes.
    """

    num_envs: int
    autoreset: bool
    _finished: np.ndarray
    _seeds: EnvSeeds
    _backend: Backend | None = None
    _outstanding = 0
    """The number of environments that have an action, and no result yet."""
    _settled = False
    """Whether a step has ever been received."""
    _reset_options: dict[str, Any] | None = None

    @property
    def envs_active(self) -> np.ndarray:
        """The mask `(N,)`, True for an environment that has FINISHED; may be assigned or written into."""
        return self._finished

    @envs_active.setter
    def envs_active(self, mask: ArrayLike) -> None:
        self._finished[:] = check_mask("envs_active", mask, self.num_envs)

    @property
    def finished(self) -> np.ndarray:
        """The same mask as `envs_active`."""
        return self._finished

    @property
    def obs(self) -> np.ndarray:
        """Current observations `(N, ...)`; the next step overwrites them."""
        return self._open_backend().arrays.obs

    @property
    def final_obs(self) -> np.ndarray:
        """Observations `(N, ...)`: for environments that the last step reset, the last one of the old episode."""
        return self._open_backend().arrays.final_obs

    @property
    def next_obs(self) -> np.ndarray:
        """The next observations `(N, ...)` of the last step, before any reset: what transitions contain."""
        arrays = self._open_backend().arrays
        if not self.autoreset:
            return arrays.obs.copy()
        over = episode_ends(arrays.terminated, arrays.truncated)
        return true_next_obs(arrays.obs.copy(), over, arrays.final_obs[over])

    @property
    def failed(self) -> np.ndarray:
        """Bool `(N,)`: the environments that failed in the last step and were restarted."""
        return self._open_backend().arrays.failed

    @property
    def restarts(self) -> int:
        """The number of restarts of environments that failed, or whose process did."""
        return self._open_backend().restarts

    @property
    def pool(self) -> WorkerPool:
        """The processes that step, this one included, for other tasks (`backends.Replicas`, `GradientWorkers`).

        Raises:
            RuntimeError: `recv` is due first, or the vectorizer is closed.
        """
        return self._idle_backend().pool

    @property
    def reset_options(self) -> dict[str, Any] | None:
        """The `options` of every reset, autoresets too; may be assigned.

        Each environment gets a copy. Checkpoints contain them, so `utils.save_state` must be able to save them.

        Raises:
            TypeError: they are not a dict with strings as keys, or cannot be pickled.
            RuntimeError: `recv` is due first, or the vectorizer is closed.
        """
        return self._reset_options

    @reset_options.setter
    def reset_options(self, options: dict[str, Any] | None) -> None:
        options, backend = checked_options(options), self._idle_backend()
        self._guarded(lambda: backend.set_reset_options(options))
        self._reset_options = options

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call a method of every environment, or read an attribute; wrappers are searched from the outside in.

        Args:
            name: of the method or attribute.
            args: of the method; they must be picklable if there are other processes.
            kwargs: of the method.

        Returns:
            N results, in index order.

        Raises:
            EnvError: an environment raised, has no such attribute, or gave a result that cannot be pickled; or the
                backend is `vector`, whose environments are one object.
            RuntimeError: `recv` is due first, or the vectorizer is closed.
        """
        return self._apply(partial(apply.call, name=name, args=args, kwargs=kwargs))

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Return an attribute of every environment; as in Gymnasium, a method is called. Errors are those of `call`."""
        return self._apply(partial(apply.call, name=name, args=(), kwargs={}, what="get_attr"))

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of every environment, in the outermost wrapper that has it, otherwise in the outermost.

        Args:
            name: of the attribute.
            values: a list or tuple of one value for each environment, or one value for all.

        Raises:
            ValueError: the number of values is not N.
            EnvError, RuntimeError: as for `call`.
        """
        values = list(values) if isinstance(values, list | tuple) else [values] * self.num_envs
        if len(values) != self.num_envs:
            raise ValueError(f"there are {len(values)} values of {name!r} for {self.num_envs} environments")
        self._apply(partial(apply.set_attr, name=name, values=values))

    def render(self) -> tuple[Any, ...]:
        """Return what every environment renders in its `render_mode`. Errors are those of `call`."""
        return self.call("render")

    def _apply(self, function: Callable[..., apply.Outcomes]) -> tuple[Any, ...]:
        """Apply a function to all blocks; return its results in index order."""
        backend = self._idle_backend()
        outcomes = self._guarded(lambda: backend.apply(function))
        for index in sorted(outcomes):
            if outcomes[index].fault:
                raise EnvError(outcomes[index].fault)
        return tuple(outcomes[index].result for index in sorted(outcomes))

    def state(self) -> State:
        """Return the state of the environments, for `utils.save_state`.

        For environments that cannot be saved (docs/resuming.md) it has only the random streams.

        Raises:
            RuntimeError: `recv` is due first, or the vectorizer is closed.
            EnvError: as for `step`.
        """
        backend = self._idle_backend()
        snapshots = self._guarded(backend.snapshots)
        return {
            "environments": [snapshots[index] for index in sorted(snapshots)],
            "obs": backend.arrays.obs.copy(),
            "finished": self._finished.copy(),
            "next_seeds": self._seeds.state(),
            "reset_options": self.reset_options,
        }

    def load_state(self, state: State) -> np.ndarray | None:
        """Restore what `state` returned.

        Returns:
            Observations `(n, ...)` of the running environments; None if `reset` must start new episodes, since
            environments could not be saved or restored, or have all finished.

        Raises:
            ValueError: it is of other environments, or of another number of them; then nothing is changed.
            EnvError: as for `step`.
        """
        backend = self._open_backend()
        check_saved(state, self._finished, backend.arrays.obs)
        self.reset_options = state.get("reset_options", self.reset_options)
        snapshots = dict(enumerate(state["environments"]))
        self._finished[:] = True
        self._seeds.load_state(state["next_seeds"], used=False)
        if not snapshots:
            return None
        failed = self._guarded(lambda: backend.restore(snapshots))
        self._seeds.load_state(state["next_seeds"], used=True)
        for info in failed.values():
            logger.warning("%s; a new episode begins", info[ENV_ERROR])
        if failed or any(snapshot["layers"] is None for snapshot in snapshots.values()):
            return None
        obs = backend.arrays.obs
        obs[:] = state["obs"]
        self._finished[:] = state["finished"]
        return None if self._finished.all() else obs[~self._finished]

    def take_lost(self) -> np.ndarray:
        """Return the environments `(n,)` whose worker died outside of a step, and which have begun new episodes.

        The next step does not report them any more.
        """
        lost = self._open_backend().lost
        if lost is None:
            return np.empty(0, dtype=np.int64)
        env_ids = np.flatnonzero(lost)
        lost[:] = False
        return env_ids

    def new_episodes(self, steps: int) -> State:
        """Return a state for `begin_after`, of environments that come into a run after so many steps."""
        return {"next_seeds": [(self._seeds.first or 0) + steps], "reset_options": self.reset_options}

    def begin_after(self, state: State) -> None:
        """Let the next reset begin new episodes, with seeds and options that follow from a `state`.

        The state may have another number of environments. Seeds that were given as a list are used again.
        """
        self._finished[:] = True
        self.reset_options = state.get("reset_options", self.reset_options)
        self._seeds.begin_after(state["next_seeds"])

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
        """Close if a call is interrupted, since half a step must not count as a whole one later."""
        try:
            return call()
        except BaseException:
            self.close()
            raise

    def _awaited(self, call: Callable[[], Result]) -> Result:
        """Do the same for a reset or step; warn if the first ones take long, since an environment may hang."""
        if self._settled:
            return self._guarded(call)
        with warn_if_long(self._open_backend().describe_wait):
            return self._guarded(call)
