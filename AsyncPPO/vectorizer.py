"""EnvVectorizer: many copies of an environment behind one step, with a mask of those that have finished."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from AsyncPPO.backends import (
    CLOSE_SECONDS,
    ENV_ERROR,
    Actions,
    Backend,
    BackendName,
    EnvBlock,
    FaultPolicy,
    InlineBackend,
    Layout,
    OnEnvError,
    Plan,
    PoolBlock,
    ProcessBackend,
    StartMethod,
    available_cores,
    check_finite,
    check_results,
    check_saved,
    check_ways,
    choose_backend,
    choose_start_method,
    make_pool,
    why_no_children,
)
from AsyncPPO.copies import Copies
from AsyncPPO.factory import EnvLike, env_factories, like, number_of_copies, sample_env
from AsyncPPO.progress import tell_if_long
from parallel_rl.utils import (
    State,
    env_seeds,
    episode_ends,
    indexes_of_active_environments,
    number_of_active_environments,
    rows_of,
    spawn_seeds,
)

Result = TypeVar("Result")
RESET_MASK = "reset_mask"
"""The option of a reset that says which environments it is for."""
logger = logging.getLogger(__name__)


class EnvVectorizer(Copies):
    """N copies of an environment, stepped together.

    `envs_active` is a bool mask `(N,)` in which True means that the environment has FINISHED (the name is
    historical; `finished` is the same array). `step` takes one action for each environment that still runs, in index
    order, and returns rows of just those. The caller says who has finished:

        with EnvVectorizer("CartPole-v1", num_envs=8, seed=0) as env:
            obs, _ = env.reset()
            while not env.finished.all():
                actions = np.zeros(len(obs), dtype=np.int64)
                obs, rewards, terminated, truncated, _ = env.step(actions)
                over = terminated | truncated
                obs = utils.inactive_states_dropout(obs, over)
                utils.update_active_environments_list(env.finished, over)

    With `autoreset=True` an environment that finishes starts anew in the same step, so that all run for ever; its
    info then holds the true last observation as `final_obs` and the last info as `final_info`, as in Gymnasium. An
    environment may use these names itself, and `env_error`; where an episode has ended or failed, the info says what
    the vectorizer does. What it says is also beside the infos: `final_obs`, `failed`.
    """

    def __init__(
        self,
        env: EnvLike | Sequence[EnvLike],
        num_envs: int | None = None,
        *,
        backend: BackendName = "auto",
        num_workers: int | None = None,
        seed: int | Sequence[int] | None = None,
        reset_options: dict[str, Any] | None = None,
        autoreset: bool = False,
        start_method: StartMethod | None = "auto",
        plan: Plan | None = None,
        asynchronous: bool = False,
        on_env_error: OnEnvError = "raise",
        step_timeout: float | None = None,
        close_timeout: float = CLOSE_SECONDS,
    ) -> None:
        """Make the copies.

        Args:
            env: an environment (copied as it is; remade from its spec if it cannot be copied), an id, an
                `EnvSpec`, or a callable that makes one; or a list of N such, one for each copy.
            num_envs: N; by default 1, or the length of the list.
            backend: `inline` (this process), `process` (several) or `auto`, which times a few steps and picks, and
                takes processes where environments are asynchronous or may fail; or
                `vector`, for an id or spec that comes vectorized: EnvPool's form of it where that is installed, or
                Gymnasium's own, which knows no `autoreset` here and takes one seed for all.
            num_workers: how many processes step in the `process` backend, this one (which takes the first block of
                environments) among them; by default one per available core.
            seed: of the environments' own random streams, one each; None takes fresh entropy. A list has the seeds of
                the copies themselves, for environments that take certain ones only.
            reset_options: handed to every reset as its `options`, autoresets too; may be changed later.
            autoreset: whether an environment that finishes starts anew by itself.
            start_method: of the worker processes: `fork`, `spawn`, `forkserver` or `auto`, which is `fork` where the
                system can and this process holds nothing that does not survive it (`backend_reason` says so).
            plan: a policy that is to play beside the environments, and for how many steps at most: what `play` does.
                It needs `autoreset`.
            asynchronous: for `send` and `recv` with `min_envs`: whether all environments are left to `num_workers`
                further processes, so that this one need not wait for any. Environments that sleep want more of them
                than there are cores.
            on_env_error: `raise`, or `restart`: an environment that raises or returns what does not fit its space, or
                whose process dies or hangs, starts anew, and the run goes on. Its row says truncated, with a reward of
                0, what it saw last as `final_obs`, and why as `env_error` in its info. One that fails
                `backends.base.RESTART_LIMIT` times at once is an error after all. Then `step` only, not `send`.
            step_timeout: seconds that a step or reset of an environment may take; it needs worker processes.
            close_timeout: seconds that workers may take to finish their step and close their environments, before
                they and what they have started are killed.

        Raises:
            ValueError: a size below 1, an unknown backend or an unknown environment id, or a list of another length.
            TypeError: something that is no environment, or a space that is not supported.
            EnvError: a copy could not be made.
        """
        num_envs = number_of_copies(env, num_envs, 1)
        if num_workers is not None and num_workers < 1:
            raise ValueError(f"num_workers must be at least 1, not {num_workers}")
        if plan is not None and not autoreset:
            raise ValueError("a plan needs autoreset=True: replicas play on without asking")
        check_ways(backend, asynchronous, on_env_error, step_timeout, close_timeout, start_method)
        self.num_envs = num_envs
        self.autoreset = autoreset
        self.on_env_error = on_env_error
        self._fault_policy = FaultPolicy(on_env_error == "restart", step_timeout)
        self._seeds: list[int | None] = [*env_seeds(seed, num_envs)]
        self._first_seed, self._seeds_listed = self._seeds[0], not isinstance(seed, int | np.integer | None)
        self._backend: Backend | None = None
        num_workers = num_workers or available_cores()
        self.backend_reason = "as asked"
        self._settled = False  # whether a step has come back

        if backend == "vector":
            pool = make_pool(env, num_envs, autoreset)
            self._backend = InlineBackend(partial(PoolBlock, pool), self._layout(pool), plan)
        else:
            factories = env_factories(env, num_envs)
            with sample_env(factories[0]) as probe:
                layout = self._layout(probe)
                if backend == "auto" and (asynchronous or self._fault_policy != FaultPolicy()):
                    backend, self.backend_reason = "process", "so that environments wait, or fail, for themselves"
                elif backend == "auto" and (alone := why_no_children()):
                    backend, self.backend_reason = "inline", alone
                elif backend == "auto":
                    steps = 1 if plan is None else plan.horizon
                    backend, self.backend_reason = choose_backend(
                        probe, num_envs, num_workers, steps, self._seeds[0], reset_options
                    )
                factories = [like(probe, factory) for factory in factories]
            if backend == "process":
                method, why = choose_start_method(start_method)
                self.backend_reason += f"; {method}ed, since {why}" if why else ""
                self._backend = ProcessBackend(
                    factories, layout, num_workers, method, plan, asynchronous, self._fault_policy, close_timeout
                )
            else:
                block = partial(EnvBlock, factories, 0, fault_policy=self._fault_policy)
                self._backend = InlineBackend(block, layout, plan)
        self.backend = backend
        self.rollout = self._backend.rollout
        self.num_workers = self._backend.num_workers
        logger.info("%s backend: %s", self.backend, self.backend_reason)
        self._finished = np.ones(num_envs, dtype=bool)
        self._sent = np.zeros(num_envs, dtype=bool)
        self._outstanding = 0
        if reset_options is not None:
            self.reset_options = reset_options

    @property
    def envs_active(self) -> np.ndarray:
        """The mask `(N,)`, True for an environment that has FINISHED; may be assigned or written into."""
        return self._finished

    @envs_active.setter
    def envs_active(self, mask: ArrayLike) -> None:
        mask = np.asarray(mask)
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_:
            raise ValueError(
                f"envs_active must be a bool array of shape ({self.num_envs},), not {mask.dtype} of shape {mask.shape}"
            )
        self._finished[:] = mask

    @property
    def finished(self) -> np.ndarray:
        """The same mask as `envs_active`, by the name of what it says."""
        return self._finished

    @property
    def final_obs(self) -> np.ndarray:
        """Observations `(N, ...)`: the last of an episode, where an environment was reset in its last step."""
        return self._open_backend().arrays.final_obs

    @property
    def failed(self) -> np.ndarray:
        """Bool `(N,)`: whose last step only says that they failed and were restarted (`on_env_error="restart"`)."""
        return self._open_backend().arrays.failed

    @property
    def restarts(self) -> int:
        """How many environments were started anew because they, or their process, failed."""
        return self._open_backend().restarts

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Start an episode in every environment.

        Args:
            seed: start all random streams anew from this one; or N seeds, one for each environment, None where the
                stream is to go on. Without it the first reset seeds each environment from the vectorizer's seed, and
                later ones go on where the streams are.
            options: handed to every environment's `reset`, this time; by default `reset_options`. As in Gymnasium,
                `reset_mask` among them, bool `(N,)`, is for the vectorizer: only the environments where it is True are
                reset, the others stay as they are.

        Returns:
            Observations `(N, ...)` and N infos. Those that were reset run.

        Raises:
            ValueError: a wrong number of seeds, a wrong mask, or either where the environments come vectorized.
            RuntimeError: with a mask, some were sent actions; or the vectorizer is closed.
            EnvError: an environment failed; the vectorizer is closed then.
        """
        backend = self._open_backend()
        env_ids, options = self._to_reset(options)
        all_seeds = self._seeds if seed is None else self._given_seeds(seed)
        if self._outstanding:
            self.recv()
        seeds = [all_seeds[index] for index in env_ids.tolist()]
        infos = self._awaited(backend, lambda: backend.reset(env_ids, seeds, options))
        for index in env_ids.tolist():
            self._seeds[index] = None
        obs = backend.arrays.obs.copy()
        self._check_finite("observation", env_ids, obs[env_ids])
        self._finished[env_ids] = False
        return obs, [infos.get(index, {}) for index in range(self.num_envs)]

    def _to_reset(self, options: dict[str, Any] | None) -> tuple[np.ndarray, dict[str, Any] | None]:
        """Return which environments are to be reset, and the options that are for them."""
        if options is None or RESET_MASK not in options:
            return np.arange(self.num_envs), options
        mask = np.asarray(options[RESET_MASK])
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_:
            raise ValueError(
                f"{RESET_MASK} must be a bool array of shape ({self.num_envs},), not {mask.dtype} of shape {mask.shape}"
            )
        if not mask.any():
            raise ValueError(f"{RESET_MASK} is False everywhere: there is nothing to reset")
        if self.backend == "vector":
            raise ValueError(f"{RESET_MASK} does not go with backend='vector'")
        self._idle_backend()
        others = {name: value for name, value in options.items() if name != RESET_MASK}
        return np.flatnonzero(mask), others or None

    def _given_seeds(self, seed: int | Sequence[int | None]) -> list[int | None]:
        seeds: list[int | None]
        if isinstance(seed, int | np.integer):
            seeds = [*spawn_seeds(seed, self.num_envs)]
        elif self.backend == "vector":
            raise ValueError("environments that come vectorized take one seed, not a list")
        else:
            numbers = env_seeds([0 if one is None else one for one in seed], self.num_envs)
            seeds = [None if one is None else number for one, number in zip(seed, numbers, strict=True)]
        self._first_seed = seeds[0]
        return seeds

    def step(self, actions: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Step every environment that runs.

        Args:
            actions: `(n, ...)`, one for each of the n running environments, in index order; each may also
                come flat, `(n, size)`. Of a Dict or Tuple space: the structured array that `PPO.act` returns, a dict or
                tuple of arrays `(n, ...)`, or a list of n elements.

        Returns:
            Observations `(n, ...)`, rewards float64 `(n,)`, terminated bool `(n,)`, truncated bool `(n,)` and n
            infos, of just those environments, in index order.

        Raises:
            ValueError: a wrong number or shape of actions, or one that is none (a NaN, a fraction or a number of no
                choice where there are choices); names its environment, and nothing was stepped.
            RuntimeError: nothing is running, or the vectorizer is closed.
            EnvError: an environment failed or gave a NaN or infinity, or its worker died; the vectorizer is closed.
        """
        self._open_backend()
        if self._outstanding:
            raise RuntimeError("some environments have been sent actions: recv() them first")
        self._send(actions, indexes_of_active_environments(self._finished))
        return self.recv()[:5]

    def send(self, actions: ArrayLike, env_ids: ArrayLike | None = None) -> None:
        """Have some environments take a step, without waiting for it; `recv` gives the results.

        Args:
            actions: `(n, ...)`, one for each of the environments, as for `step`.
            env_ids: `(n,)`, which; by default all that run and have not been sent an action yet, in index order.

        Raises:
            ValueError: a wrong number or shape of actions, one that is none; an environment that does not run, or one
                twice.
            RuntimeError: nothing is running, all that run have been sent an action, or the vectorizer is closed.
        """
        self._open_backend()
        if self.on_env_error == "restart":
            raise RuntimeError("with on_env_error='restart' all environments are stepped together: call step()")
        free = ~(self._finished | self._sent)
        if self._outstanding and not free.any():
            raise RuntimeError("every environment that runs has been sent an action: recv() first")
        env_ids = np.flatnonzero(free) if env_ids is None else np.asarray(env_ids)
        known = env_ids.ndim == 1 and env_ids.dtype.kind in "iu" and ((env_ids >= 0) & (env_ids < self.num_envs)).all()
        if not known or not free[env_ids].all():
            raise ValueError(f"env_ids must be indexes of environments that run and wait for an action, not {env_ids}")
        if len(set(env_ids.tolist())) != len(env_ids):
            raise ValueError(f"env_ids names an environment twice: {env_ids}")
        self._send(actions, env_ids)

    def _send(self, actions: ArrayLike, env_ids: np.ndarray) -> None:
        backend = self._open_backend()
        if not len(env_ids):
            raise RuntimeError("no environment is running: call reset() first")
        rows = backend.arrays.action
        if rows.dtype.names is not None:
            actions = rows_of(self.single_action_space, actions, len(env_ids))
        actions = np.asarray(actions)
        if actions.ndim == 2 and actions.shape[1:] == (rows[0].size,):
            actions = actions.reshape(-1, *rows.shape[1:])
        if actions.shape != (len(env_ids), *rows.shape[1:]):
            raise ValueError(
                f"actions have shape {actions.shape}, but {len(env_ids)} environments are running, each with an action "
                f"of shape {rows.shape[1:]}"
            )
        self._actions.check(env_ids, actions)
        rows[env_ids] = actions
        self._sent[self._rows(env_ids)] = True
        self._outstanding += len(env_ids)
        self._guarded(lambda: backend.send(env_ids, self.autoreset))

    def recv(
        self, min_envs: int | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]], np.ndarray]:
        """Wait for environments that were sent actions; a slow one holds nobody up.

        Args:
            min_envs: for how many at least; by default all. More come along if they are ready.

        Returns:
            What `step` returns, of those that are ready, and `(n,)`, which those are, in index order.

        Raises:
            ValueError: fewer were sent.
            RuntimeError: nothing was sent, or the vectorizer is closed.
            EnvError: as for `step`.
        """
        backend, sent = self._open_backend(), self._outstanding
        if not sent:
            raise RuntimeError("no environment was sent an action")
        count = sent if min_envs is None else min_envs
        if not 1 <= count <= sent:
            raise ValueError(f"min_envs must be between 1 and the {sent} environments that were sent, not {min_envs}")
        env_ids, infos = self._awaited(backend, lambda: backend.recv(count))
        self._settled = True
        self._outstanding -= len(env_ids)
        arrays, rows = backend.arrays, self._rows(env_ids)
        self._sent[rows] = False
        fields = (arrays.obs, arrays.reward, arrays.terminated, arrays.truncated)
        obs, reward, terminated, truncated = (
            [field.copy() for field in fields] if isinstance(rows, slice) else [field[rows] for field in fields]
        )
        self._guarded(lambda: check_results(env_ids, reward, obs))
        infos_of_rows: list[dict[str, Any]] = [infos.get(index, {}) for index in env_ids.tolist()]
        if self.autoreset:
            for row in episode_ends(terminated, truncated).nonzero()[0].tolist():
                index = env_ids[row : row + 1]
                self._check_finite("observation", index, arrays.final_obs[index])
                infos_of_rows[row]["final_obs"] = arrays.final_obs[index[0]].copy()
        return obs, reward, terminated, truncated, infos_of_rows, env_ids

    def play(self, start: int, stop: int) -> np.ndarray:
        """Let the policy of the plan play: step every environment from row `start` to row `stop` of `rollout`.

        It acts by `rollout.weights` and `rollout.noise`, which are to be written before.

        Returns:
            Observations `(N, ...)`, what the next actions answer.

        Raises:
            RuntimeError: nothing is running, or the vectorizer is closed.
            EnvError: as for `step`.
        """
        backend = self._open_backend()
        if self._finished.any() or self._outstanding:
            raise RuntimeError("not all environments are running and waiting: call reset() first")
        try:
            self._awaited(backend, lambda: backend.play(start, stop))
            self._settled = True
        finally:  # what an environment made of the answer to a NaN is not the fault to be told
            self._check_rollout(start, stop)
        obs = backend.arrays.obs.copy()
        self._check_finite("observation", np.arange(self.num_envs), obs)
        return obs

    @property
    def workspace(self) -> dict[str, np.ndarray]:
        """The arrays in which `compute` works."""
        assert self.rollout is not None
        return self.rollout.workspace

    def compute(self, start: int, stop: int, processes: int) -> None:
        """Compute the gradient of a minibatch by the plan's replica, by that many processes at most.

        Raises:
            EnvError: a worker died.
        """
        backend = self._open_backend()
        self._guarded(lambda: backend.compute(start, stop, processes))

    def state(self) -> State:
        """Return what the environments are, for `utils.save_state`; none may be in the middle of a step.

        Environments made of plain values are kept as they are; of others (see docs/resuming.md) the random streams.

        Raises:
            RuntimeError: some were sent actions, or the vectorizer is closed.
            EnvError: as for `step`.
        """
        backend = self._idle_backend()
        snapshots = self._guarded(backend.snapshots)
        return {
            "environments": [snapshots[index] for index in sorted(snapshots)],
            "obs": backend.arrays.obs.copy(),
            "finished": self._finished.copy(),
            "next_seeds": [*spawn_seeds(self._first_seed, self.num_envs)],
            "reset_options": self.reset_options,
        }

    def load_state(self, state: State) -> np.ndarray | None:
        """Make the environments what `state` was; where they could not be kept, new episodes begin at the next reset.

        Returns:
            Observations `(n, ...)` of those that run, what the next actions answer; or None: `reset` is to be called.

        Raises:
            ValueError: it is that of other environments, or of another number of them; nothing is changed then.
            EnvError: as for `step`.
        """
        backend = self._open_backend()
        check_saved(state, self._finished, backend.arrays.obs)
        self.reset_options = state.get("reset_options", self.reset_options)  # states of earlier versions have none
        snapshots = dict(enumerate(state["environments"]))
        self._finished[:] = True
        self._first_seed, self._seeds = state["next_seeds"][0], state["next_seeds"]
        if not snapshots:
            return None
        failed = self._guarded(lambda: backend.restore(snapshots))
        self._seeds = [None] * self.num_envs
        for info in failed.values():
            logger.warning("%s; a new episode begins", info[ENV_ERROR])
        if failed or any(snapshot["layers"] is None for snapshot in snapshots.values()):
            return None
        obs = backend.arrays.obs
        obs[:] = state["obs"]
        self._finished[:] = state["finished"]
        return None if self._finished.all() else obs[~self._finished]

    def begin_after(self, state: State) -> None:
        """Begin new episodes at the next reset, after those of a `state` that may be of another number of environments.

        They are seeded from where the state is, but for environments whose seeds were listed.
        """
        self._finished[:] = True
        self.reset_options = state.get("reset_options", self.reset_options)
        if not self._seeds_listed:
            self._seeds = [*spawn_seeds(state["next_seeds"][0], self.num_envs)]
            self._first_seed = self._seeds[0]

    def close(self) -> None:
        """Close the environments and end their processes; may be called twice."""
        backend, self._backend = self._backend, None
        if backend is not None:
            backend.close()

    def __enter__(self) -> Self:
        """Return the vectorizer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def __len__(self) -> int:
        """Return N."""
        return self.num_envs

    def __repr__(self) -> str:
        """Say what is stepped, and how."""
        name = self.spec.id if self.spec else "environment"
        running = number_of_active_environments(self._finished)
        return f"EnvVectorizer({name}, num_envs={self.num_envs}, backend={self.backend!r}, running={running})"

    def _layout(self, env: Any) -> Layout:
        """Take over the spaces of an environment."""
        self.spec = env.spec
        self.single_observation_space, self.single_action_space = env.observation_space, env.action_space
        self._actions = Actions(env.action_space)
        return Layout.of(self.num_envs, env.observation_space, env.action_space)

    def _open_backend(self) -> Backend:
        if self._backend is None:
            raise RuntimeError("this EnvVectorizer is closed")
        return self._backend

    def _idle_backend(self) -> Backend:
        backend = self._open_backend()
        if self._outstanding:
            raise RuntimeError("some environments have been sent actions: recv() them first")
        return backend

    def _rows(self, env_ids: np.ndarray) -> slice | np.ndarray:
        """Return an index of the rows of environments; a slice, which is faster, where it is all of them."""
        return slice(None) if len(env_ids) == self.num_envs else env_ids

    def _guarded(self, call: Callable[[], Result]) -> Result:
        """Close when a call is cut short: half a step must not be taken for a whole one later."""
        try:
            return call()
        except BaseException:
            self.close()
            raise

    def _awaited(self, backend: Backend, call: Callable[[], Result]) -> Result:
        """Do the same for what environments do; a first reset or step may never come back, which is told."""
        if self._settled:
            return self._guarded(call)
        with tell_if_long(backend.waits_for):
            return self._guarded(call)

    def _check_rollout(self, start: int, stop: int) -> None:
        assert self.rollout is not None
        rows = {name: rows[start:stop] for name, rows in self.rollout.rows.items()}
        env_ids = np.tile(np.arange(self.num_envs), stop - start)
        self._check_finite("observation", env_ids, rows["obs"].reshape(-1, *rows["obs"].shape[2:]))
        ended = episode_ends(rows["terminated"], rows["truncated"])
        self._check_finite("observation", np.nonzero(ended)[1], rows["final_obs"][ended])

    def _check_finite(self, what: str, env_ids: np.ndarray, rows: np.ndarray) -> None:
        self._guarded(lambda: check_finite(what, env_ids, rows))
