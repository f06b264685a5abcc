"""Environments of a `gymnasium.vector.VectorEnv`, in any autoreset mode."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from AsyncPPO.backends.base import EnvError, Infos
from AsyncPPO.backends.block import FINAL_INFO
from AsyncPPO.backends.elements import misfit
from AsyncPPO.backends.outcomes import copied
from parallel_rl.utils import COMPOSITE, element_of, episode_ends, row_type, rows_of
from parallel_rl.utils.spaces import DiscreteValues

FINAL_OBS = "final_obs"
"""The entry of infos that holds the last observation of the previous episode."""


class VectorEnvPool:
    """The environments of a `VectorEnv`, which steps all of them at once.

    With the mode `SAME_STEP` it resets an environment in the step that ends an episode, with `NEXT_STEP` in the next
    step (`resets_late`). With `DISABLED` this class resets them, as for `SAME_STEP`.
    """

    def __init__(self, env: VectorEnv, *, owned: bool) -> None:
        """Store a vector environment; `close` closes it if it is `owned`.

        Raises:
            ValueError: its metadata do not have an autoreset mode.
        """
        try:
            self._mode = AutoresetMode(env.metadata.get("autoreset_mode"))
        except ValueError:
            raise ValueError(
                f"metadata['autoreset_mode'] of {env} must be an AutoresetMode of gymnasium. If the step after the end "
                'of an episode resets it: env.metadata = {**env.metadata, "autoreset_mode": '
                "gymnasium.vector.AutoresetMode.NEXT_STEP}; if the last step does: SAME_STEP; otherwise: DISABLED"
            ) from None
        self._env, self._owned, self.spec = env, owned, env.spec
        self.observation_space, self.action_space = env.single_observation_space, env.single_action_space
        self.resets_late = self._mode is AutoresetMode.NEXT_STEP
        self.name = type(env.unwrapped).__name__
        self._shape, self._dtype = row_type(self.observation_space)
        self._choices = None
        if not isinstance(self.observation_space, COMPOSITE | spaces.Box):
            self._choices = DiscreteValues(self.observation_space)
        self._listed_seeds = isinstance(env.unwrapped, SyncVectorEnv | AsyncVectorEnv)

    def reset(
        self, env_ids: np.ndarray, seeds: Sequence[int | None], options: dict[str, Any] | None
    ) -> tuple[np.ndarray, Infos]:
        """Reset all environments. Gymnasium's own classes get a seed for each, other classes the first seed."""
        seed: Any = [*seeds] if self._listed_seeds else seeds[0]
        obs, info = self._env.reset(seed=seed, options=options)
        return self._rows(obs), dict(enumerate(infos_by_env(info, len(env_ids))))

    def step(self, env_ids: np.ndarray, actions: np.ndarray) -> tuple[Any, ...]:
        """Step all environments with actions `(N, ...)`; return the rows and infos of `env_ids`.

        For an environment that finishes, they are the last ones of its episode; `begin` returns those of the next one.
        """
        actions = actions.copy()
        idle = np.ones(len(actions), bool)
        idle[env_ids] = False
        actions[idle] = actions[env_ids[0]]  # any valid action: it has no effect
        composite = isinstance(self.action_space, COMPOSITE)
        batch: Any = element_of(self.action_space, actions) if composite else actions
        obs, reward, terminated, truncated, info = self._env.step(batch)
        reward = self._column("rewards", reward, np.float64)
        terminated, truncated = self._column("terminated", terminated, bool), self._column("truncated", truncated, bool)
        self._obs = self._rows(obs).copy()
        infos, over = infos_by_env(info, len(actions)), episode_ends(terminated, truncated)
        last = self._obs
        if over.any() and self._mode is AutoresetMode.SAME_STEP:
            last = last.copy()
            last[over] = self._last_rows(info, over)
            self._infos = infos
            infos = [new.pop(FINAL_INFO, {}) if ended else new for new, ended in zip(infos, over, strict=True)]
        elif over.any() and self._mode is AutoresetMode.DISABLED:
            last = last.copy()
            first, info = self._env.reset(options={"reset_mask": over})
            self._obs[over] = self._rows(first)[over]
            self._infos = infos_by_env(info, len(actions))
        by_env = {index: infos[index] for index in env_ids.tolist() if infos[index]}
        return last[env_ids], reward[env_ids], terminated[env_ids], truncated[env_ids], by_env

    def begin(self, env_ids: np.ndarray) -> tuple[np.ndarray, Infos]:
        """Return the first observations and infos of the episodes that the last step began."""
        infos = {} if self.resets_late else {index: self._infos[index] for index in env_ids.tolist()}
        return self._obs[env_ids], infos

    def close(self) -> None:
        """Close the vector environment if it is owned."""
        if self._owned:
            self._env.close()

    def _rows(self, obs: Any, count: int | None = None) -> np.ndarray:
        """Return observations, by default of all environments, as rows.

        Raises:
            EnvError: they do not fit the space.
        """
        space, count = self.observation_space, count or self._env.num_envs
        if isinstance(space, COMPOSITE):
            return rows_of(space, obs, count, "observation")
        rows, due = np.asarray(obs), (count, *self._shape)
        if rows.shape != due:
            raise EnvError(f"{self.name} returned observations of shape {rows.shape}; its spaces say {due}")
        fault = misfit(rows, self._dtype)
        if fault is None and self._choices is not None and not self._choices.have(rows):
            fault = f"numbers from {rows.min()} to {rows.max()}"
        if fault is not None:
            raise EnvError(f"{self.name} returned observations of {fault}; its space says {space}")
        return rows

    def _column(self, what: str, values: Any, dtype: type) -> np.ndarray:
        """Return a number for each environment.

        Raises:
            EnvError: they have another shape.
        """
        column: np.ndarray = np.asarray(values, dtype)
        if column.shape != (self._env.num_envs,):
            raise EnvError(f"{self.name} returned {what} of shape {column.shape}, not {(self._env.num_envs,)}")
        return column

    def _last_rows(self, info: dict[str, Any], over: np.ndarray) -> np.ndarray:
        """Return the last observations of the episodes that are over."""
        ended = np.flatnonzero(over).tolist()
        if FINAL_OBS not in info:
            raise EnvError(
                f"environment {ended[0]} ended, but the infos have no {FINAL_OBS!r} with its last observation"
            )
        return self._rows([info[FINAL_OBS][index] for index in ended], len(ended))


def infos_by_env(info: dict[str, Any], num_envs: int) -> list[dict[str, Any]]:
    """Split the infos of a `VectorEnv` by environment; in them, `_NAME` is the mask of the rows of `NAME`."""
    by_env: list[dict[str, Any]] = [{} for _ in range(num_envs)]
    for name, values in info.items():
        if name == FINAL_OBS or (name.startswith("_") and name[1:] in info):
            continue
        rows = infos_by_env(values, num_envs) if isinstance(values, dict) else values
        present = info.get(f"_{name}", np.full(num_envs, np.shape(rows)[:1] == (num_envs,)))
        for index in np.flatnonzero(present).tolist():
            by_env[index][name] = copied(rows[index])
    return by_env
