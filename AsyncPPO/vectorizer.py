"""EnvVectorizer: parallel environments behind one step, with a mask of those that have finished."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import ArrayLike

from AsyncPPO.backends import (
    Actions,
    BackendName,
    OnEnvError,
    Plan,
    StartMethod,
    check_finite,
    check_results,
)
from AsyncPPO.factory import EnvLike, number_of_copies
from AsyncPPO.making import Stepping, make_backend
from AsyncPPO.parallel_envs import ParallelEnvs
from AsyncPPO.resets import RESET_MASK, EnvSeeds, check_env_ids, checked_options, take_reset_mask
from AsyncPPO.vector_view import VectorView
from parallel_rl.utils import episode_ends
from parallel_rl.utils.names import names_checked

Step = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]
"""Observations `(n, ...)`, rewards float64 `(n,)`, terminated and truncated bool `(n,)`, infos, of n environments."""


class EnvVectorizer(ParallelEnvs):
    """N parallel environments, stepped together.

    `step` takes one action for each environment that still runs, in index order, and returns rows of just those. The
    caller marks those that have finished, in the mask `finished` (also called `envs_active`, for historical reasons):

        with EnvVectorizer("CartPole-v1", num_envs=8, seed=0) as env:
            obs, _ = env.reset()
            while not env.finished.all():
                actions = np.zeros(len(obs), dtype=np.int64)
                obs, rewards, terminated, truncated, _ = env.step(actions)
                over = terminated | truncated
                obs = obs[~over]
                env.finished[~env.finished] = over

    With `autoreset=True` an environment that finishes is reset in the same step, so that all of them always run. Its
    info then has the last observation of the episode as `final_obs` and the last info as `final_info`, as in Gymnasium.
    A `VectorEnv` in Gymnasium's next-step mode resets an environment one step later. It is `finished` during that step,
    and takes no action; then `obs` has its new observation.

    Args:
        env: an environment (copied, or remade from its spec if it cannot be copied), an id, an `EnvSpec`, or a
            callable that makes one; or a list of N of these. Or a `gymnasium.vector.VectorEnv` of N, which `close`
            leaves open, or a function of `num_envs` that makes one.
        num_envs: N; by default 1, or the length of the list.
        backend: `inline` (this process), `process` (several), `auto` (the faster of the two in a few trial steps;
            `process` with `asynchronous`, `restart` or `step_timeout`), or `vector` (an environment of EnvPool, by id
            or spec).
        num_workers: number of processes that step, by default one for each core. This process is one of them, and
            steps the first block of environments.
        seed: of the environments' random streams; None takes fresh entropy. A list has a seed for each environment.
        reset_options: `options` of every reset, autoresets too.
        autoreset: whether an environment that finishes is reset in the same step.
        start_method: of worker processes: `fork`, `spawn`, `forkserver`, or `auto`: `fork` where it is safe.
        plan: a policy whose replicas act in the processes that step (`backends.Replicas`), and the largest number of
            steps of a rollout. It needs `autoreset`.
        asynchronous: for `send`, and `recv` with `min_envs`: `num_workers` further processes step all environments, and
            this one steps none. If environments mostly wait (a simulator, the network), use more workers than cores.
        on_env_error: `raise`, or `restart` an environment that fails (docs/environments.md). Its row is truncated, with
            a reward of 0, and the error as `env_error` in its info. `send` does not work with `restart`.
        step_timeout: seconds that a step or reset of an environment may take; it needs worker processes.
        close_timeout: seconds that workers may take to close their environments before they are killed.

    Raises:
        ValueError: a size is below 1, the backend or the environment id is unknown, or a list does not have N entries.
        TypeError: an object is not an environment, or a space is not supported.
        EnvError: an environment could not be made.
    """

    @names_checked
    def __init__(
        self,
        env: EnvLike | Sequence[EnvLike],
        num_envs: int | None = None,
        *,
        backend: BackendName = Stepping.backend,
        num_workers: int | None = Stepping.num_workers,
        seed: int | Sequence[int] | EnvSeeds | None = None,
        reset_options: dict[str, Any] | None = None,
        autoreset: bool = False,
        start_method: StartMethod | None = Stepping.start_method,
        plan: Plan | None = Stepping.plan,
        asynchronous: bool = Stepping.asynchronous,
        on_env_error: OnEnvError = Stepping.on_env_error,
        step_timeout: float | None = Stepping.step_timeout,
        close_timeout: float = Stepping.close_timeout,
    ) -> None:
        self.num_envs = number_of_copies(env, num_envs, 1)
        stepping = Stepping(
            backend, num_workers, start_method, plan, asynchronous, on_env_error, step_timeout, close_timeout
        )
        if plan is not None and not autoreset:
            raise ValueError("a plan needs autoreset=True: replicas do not wait for a reset")
        reset_options = checked_options(reset_options)
        self.autoreset, self.on_env_error = autoreset, on_env_error
        self._seeds = seed if isinstance(seed, EnvSeeds) else EnvSeeds(seed, self.num_envs)
        self._finished = np.ones(self.num_envs, dtype=bool)
        made = make_backend(env, self.num_envs, stepping, seed=self._seeds.first, reset_options=reset_options)
        self.backend, self.backend_reason, self.spec = made.name, made.reason, made.spec
        self.single_observation_space, self.single_action_space = made.observation_space, made.action_space
        self._backend, self._actions = made.backend, Actions(made.action_space)
        self.rollout, self.num_workers = made.backend.rollout, made.backend.num_workers
        self._sent = np.zeros(self.num_envs, dtype=bool)
        if reset_options is not None:
            self.reset_options = reset_options

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Start an episode in every environment.

        Args:
            seed: one seed s, from which all random streams restart; or N seeds, with None where the stream continues.
                By default the first reset uses the vectorizer's seed, and later resets continue the streams. The seed
                of environment i derives from s and i, so that s and s + 1 have no episode in common. (The `VectorEnv`
                of `as_vector_env` gives it s + i, as Gymnasium does.)
            options: of this reset; by default `reset_options`. As in Gymnasium, an entry `reset_mask`, bool `(N,)`,
                limits the reset to the environments where it is True.

        Returns:
            Observations `(N, ...)` and N infos.

        Raises:
            TypeError: `options` is not a dict.
            ValueError: the number of seeds or the mask is wrong, or `backend="vector"` has several seeds or a mask.
            RuntimeError: `recv` is due before a reset with a mask, or the vectorizer is closed.
            EnvError: an environment failed; then the vectorizer is closed.
        """
        backend, env_ids = self._open_backend(), np.arange(self.num_envs)
        if not isinstance(options, dict | None):
            raise TypeError(f"options must be a dict, not {options!r}")
        if options is not None and RESET_MASK in options:
            env_ids, options = take_reset_mask(options, self.num_envs)
            if self.backend == "vector":
                raise ValueError(f"{RESET_MASK} does not work with backend='vector'")
            self._idle_backend()
        if self.backend == "vector" and not isinstance(seed, int | np.integer | None):
            raise ValueError("with backend='vector', the environments take one seed, not a list")
        seeds = self._seeds.next() if seed is None else self._seeds.restart(seed)
        if self._outstanding:
            self.recv()
        infos = self._awaited(lambda: backend.reset(env_ids, [seeds[index] for index in env_ids.tolist()], options))
        self._seeds.use(env_ids)
        obs = backend.arrays.obs.copy()
        self._guarded(lambda: check_finite("observation", env_ids, obs[env_ids]))
        self._finished[env_ids] = False
        return obs, [infos.get(index, {}) for index in range(self.num_envs)]

    def step(self, actions: ArrayLike) -> Step:
        """Step every environment that runs.

        Args:
            actions: `(n, ...)` or flat `(n, size)`, for the n running environments in index order. For a Dict or Tuple
                space: the structured array that `PPO.act` returns, a dict or tuple of arrays, or a list of n actions.

        Returns:
            A `Step` of these environments, in index order.

        Raises:
            ValueError: the number or shape of the actions is wrong, or an action is invalid; the message names the
                environment. Then no environment was stepped.
            RuntimeError: nothing is running, `recv` is due first, or the vectorizer is closed.
            EnvError: an environment failed or gave a NaN or infinity, or its worker died; the vectorizer is closed.
        """
        self._idle_backend()
        self._send(actions, np.flatnonzero(~self._finished))
        return self.recv()[:5]

    def send(self, actions: ArrayLike, env_ids: ArrayLike | None = None) -> None:
        """Start a step of some environments without waiting for it; `recv` returns the results.

        Args:
            actions: `(n, ...)`, one for each of the environments, as for `step`.
            env_ids: `(n,)`, the environments; by default all that run and have no action yet, in index order.

        Raises:
            ValueError: the number or shape of the actions is wrong, an action is invalid, or an environment does not
                run or is named twice.
            RuntimeError: no environment runs, all that run have an action, or the vectorizer is closed.
        """
        self._open_backend()
        if self.on_env_error == "restart":
            raise RuntimeError("with on_env_error='restart' all environments are stepped together: call step()")
        free = ~(self._finished | self._sent)
        if self._outstanding and not free.any():
            raise RuntimeError("every environment that runs has been sent an action: recv() first")
        env_ids = np.flatnonzero(free) if env_ids is None else check_env_ids(env_ids, free)
        self._send(actions, env_ids)

    def _send(self, actions: ArrayLike, env_ids: np.ndarray) -> None:
        backend = self._open_backend()
        if not len(env_ids):
            raise RuntimeError("no environment is running: call reset() first")
        backend.arrays.action[env_ids] = self._actions.rows(env_ids, actions)
        self._sent[self._rows(env_ids)] = True
        self._outstanding += len(env_ids)
        self._guarded(lambda: backend.send(env_ids, self.autoreset))

    def recv(self, min_envs: int | None = None) -> tuple[*Step, np.ndarray]:
        """Wait for environments that were sent an action; a slow one does not delay the others.

        Args:
            min_envs: the least number of environments to wait for; by default all. All that are ready are returned.

        Returns:
            The rows that `step` returns, for the environments that are ready, and their indices `(n,)`, ascending.

        Raises:
            ValueError: fewer than `min_envs` have an action.
            RuntimeError: nothing was sent, or the vectorizer is closed.
            EnvError: as for `step`.
        """
        backend, sent = self._open_backend(), self._outstanding
        if not sent:
            raise RuntimeError("no environment was sent an action")
        count = sent if min_envs is None else min_envs
        if not 1 <= count <= sent:
            raise ValueError(f"min_envs must be between 1 and the {sent} environments that were sent, not {min_envs}")
        env_ids, infos = self._awaited(lambda: backend.recv(count))
        self._settled = True
        if self.autoreset and backend.waiting is not None:
            self._finished[:] = backend.waiting
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
                self._guarded(partial(check_finite, "observation", index, arrays.final_obs[index]))
                infos_of_rows[row]["final_obs"] = arrays.final_obs[index[0]].copy()
        return obs, reward, terminated, truncated, infos_of_rows, env_ids

    def as_vector_env(self) -> VectorEnv:
        """Return a Gymnasium `VectorEnv` of these environments, which closes them at its end (`VectorView`)."""
        return VectorView(self)

    def __len__(self) -> int:
        return self.num_envs

    def __repr__(self) -> str:
        name = self.spec.id if self.spec else "environment"
        running = np.count_nonzero(~self._finished)
        return f"EnvVectorizer({name}, num_envs={self.num_envs}, backend={self.backend!r}, running={running})"

    def _rows(self, env_ids: np.ndarray) -> slice | np.ndarray:
        """Return the index of these environments' rows: a slice, which is faster, for all of them."""
        return slice(None) if len(env_ids) == self.num_envs else env_ids
