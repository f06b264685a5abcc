"""Wrappers for environments."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from parallel_rl.utils import ACTION_MASK, choices_of


class ActionMaskError(ValueError):
    """An environment provides no action mask, or one of another size."""


class ActionMasks(gym.Wrapper):
    """Adds the mask of allowed actions to the observation, where the agents read it.

    The mask is the result of the environment's method `action_masks()`, or else `action_mask` in its infos: one entry
    for each discrete action, true if it is allowed. For a MultiDiscrete it has the entries of all dimensions,
    concatenated; for a Dict or Tuple those of all parts, in the order of the action space. A Dict observation gets a
    further entry `action_mask`; any other observation becomes `{"observation": ..., "action_mask": ...}`.
    """

    def __init__(self, env: gym.Env) -> None:
        """Wrap an environment.

        Raises:
            TypeError: its actions are not discrete.
        """
        super().__init__(env)
        space = env.action_space
        self._choices = 0 if isinstance(space, spaces.Box) else sum(count for count, _ in choices_of(space))
        if not self._choices:
            raise TypeError(f"actions of {space} cannot be masked: they are not discrete")
        inner = env.observation_space
        if isinstance(inner, spaces.Dict) and ACTION_MASK in inner.spaces:
            raise TypeError(f"the observation {inner} has an {ACTION_MASK} already")
        parts = inner.spaces if isinstance(inner, spaces.Dict) else {"observation": inner}
        self.observation_space = spaces.Dict({**parts, ACTION_MASK: spaces.MultiBinary(self._choices)})
        self._is_dict = isinstance(inner, spaces.Dict)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment, and add the mask to the observation."""
        obs, info = self.env.reset(seed=seed, options=options)
        return self._masked(obs, info), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment, and add the mask to the observation."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._masked(obs, info), reward, terminated, truncated, info

    def _masked(self, obs: Any, info: dict[str, Any]) -> dict[str, Any]:
        if self.env.has_wrapper_attr("action_masks"):
            mask = self.env.get_wrapper_attr("action_masks")()
        elif ACTION_MASK in info:
            mask = info[ACTION_MASK]
        else:
            raise ActionMaskError(
                "the environment provides no action mask: neither action_masks() nor its info has one"
            )
        mask = np.asarray(mask, np.int8).reshape(-1)
        if len(mask) != self._choices:
            raise ActionMaskError(f"the action mask has {len(mask)} entries, but there are {self._choices} choices")
        return {**(obs if self._is_dict else {"observation": obs}), ACTION_MASK: mask}
