"""An `EnvVectorizer` as a `gymnasium.vector.VectorEnv`, for Gymnasium's wrappers and other libraries."""

from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from AsyncPPO.backends import FINAL_INFO, Actions
from AsyncPPO.resets import RESET_MASK
from parallel_rl.utils import COMPOSITE, element_of, episode_ends

if TYPE_CHECKING:
    from AsyncPPO.vectorizer import EnvVectorizer


class VectorView(VectorEnv):
    """The environments of an `EnvVectorizer`, which `close` closes.

    If the vectorizer has `autoreset`, the mode is `AutoresetMode.SAME_STEP`. Otherwise it is `NEXT_STEP`, which most of
    Gymnasium's wrappers of observations need. As in Gymnasium, a reset with the seed s gives environment i the seed
    s + i.
    """

    def __init__(self, env: "EnvVectorizer") -> None:
        """Store the environments.

        Raises:
            ValueError: they are already one object.
        """
        if env.backend == "vector":
            raise ValueError("environments that are one object need no VectorEnv around them")
        mode = AutoresetMode.SAME_STEP if env.autoreset else AutoresetMode.NEXT_STEP
        self.env, self.spec, self.num_envs = env, env.spec, env.num_envs
        self.metadata = {**env.get_attr("metadata")[0], "autoreset_mode": mode}
        self._actions = Actions(env.single_action_space)
        self.render_mode = env.get_attr("render_mode")[0]
        self.single_observation_space, self.single_action_space = env.single_observation_space, env.single_action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode in every environment, or where the option `reset_mask` is True."""
        if isinstance(seed, int | np.integer):
            super().reset(seed=int(seed))
            seed = [int(seed) + number for number in range(self.num_envs)]
        obs, infos = self.env.reset(seed=seed, options=options)
        return self._batch(obs), self._joined(infos)

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every environment; the errors are those of `EnvVectorizer.step`."""
        if not self.env.autoreset:
            return self._step_or_reset(actions)
        obs, reward, terminated, truncated, infos = self.env.step(actions)
        for index in np.flatnonzero(episode_ends(terminated, truncated)).tolist():
            infos[index].setdefault(FINAL_INFO, {})
            infos[index]["final_obs"] = self._batch(infos[index]["final_obs"])
        return self._batch(obs), reward, terminated, truncated, self._joined(infos)

    def _step_or_reset(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step the environments that run, and reset those that have finished."""
        env, waiting = self.env, self.env.finished.copy()
        reward, (terminated, truncated) = np.zeros(self.num_envs), np.zeros((2, self.num_envs), bool)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if not waiting.all():
            running = np.flatnonzero(~waiting)
            rows = self._actions.rows(np.arange(self.num_envs), actions)
            _, reward[running], terminated[running], truncated[running], news = env.step(rows[running])
            for index, info in zip(running.tolist(), news, strict=True):
                infos[index] = info
        if waiting.any():
            _, news = env.reset(options={RESET_MASK: waiting})
            infos = [new or info for new, info in zip(news, infos, strict=True)]
        env.finished[episode_ends(terminated, truncated)] = True
        return self._batch(env.obs.copy()), reward, terminated, truncated, self._joined(infos)

    def render(self) -> tuple[Any, ...]:
        """Return what every environment renders."""
        return self.env.render()

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call a method of every environment."""
        return self.env.call(name, *args, **kwargs)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Return an attribute of every environment."""
        return self.env.get_attr(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of every environment."""
        self.env.set_attr(name, values)

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environments."""
        self.env.close()

    def _batch(self, rows: Any) -> Any:
        """Return rows as an element of Gymnasium's batched space, or a row as an element of the single space."""
        space = self.single_observation_space
        return element_of(space, rows) if isinstance(space, COMPOSITE) else rows

    def _joined(self, infos: list[dict[str, Any]]) -> dict[str, Any]:
        joined: dict[str, Any] = {}
        for index, info in enumerate(infos):
            joined = self._add_info(joined, info, index)
        return joined
