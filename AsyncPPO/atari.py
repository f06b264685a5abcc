"""Atari games with the usual preprocessing."""

from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation, TransformReward

from parallel_rl.utils import register_games

FRAMES = 4


class EpisodicLife(gym.Wrapper):
    """Ends an episode when a life is lost; the next one goes on with the next life (Mnih et al. 2015, Methods)."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self._lives, self._goes_on = 0, False

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take a step; it terminates an episode if a life is lost."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        lives = self._count_lives()
        lost = 0 < lives < self._lives  # some games go on for a few frames after the last life
        self._lives, self._goes_on = lives, lost and not (terminated or truncated)
        return obs, reward, terminated or lost, truncated, info

    def reset(self, *, seed: int | None = None, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Go on with the next life by a no-op; reset a game that is over or still in a life, or with a seed."""
        goes_on, self._goes_on = self._goes_on and seed is None, False
        if goes_on:
            obs, _, terminated, truncated, info = self.env.step(0)
        if not goes_on or terminated or truncated:
            obs, info = self.env.reset(seed=seed, **kwargs)
        self._lives = self._count_lives()
        return obs, info

    def _count_lives(self) -> int:
        return int(self.unwrapped.ale.lives())  # type: ignore[attr-defined]


class FireReset(gym.Wrapper):
    """Presses FIRE at the start of each episode, in games that begin only then."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Reset the game, and press FIRE if it needs that."""
        obs, info = self.env.reset(**kwargs)
        if "FIRE" in self.env.unwrapped.get_action_meanings()[1:2]:  # type: ignore[attr-defined]
            obs, _, terminated, truncated, info = self.env.step(1)
            if terminated or truncated:
                obs, info = self.env.reset(**kwargs)
        return obs, info


def make_atari(env_id: str, /, *, training: bool = True, **kwargs: Any) -> gym.Env:
    """Make a game of `ale-py` with the usual preprocessing (Machado et al. 2018, arXiv:1709.06009; Mnih et al. 2015).

    Up to 30 no-op actions after a reset, each action repeated four times, the maximum of the last two frames, grayscale
    84 x 84, the last four frames stacked `(4, 84, 84)`; FIRE at the start if the game needs it.

    Args:
        env_id: such as `ALE/Pong-v5`.
        training: whether to clip rewards to their signs, and to end an episode, but not the game, when a life is lost.
        kwargs: of `gymnasium.make`.

    Raises:
        ModuleNotFoundError: `ale-py` or OpenCV is not installed (requirements-atari.txt).
    """
    register_games(env_id)
    env: gym.Env = gym.make(env_id, frameskip=1, disable_env_checker=True, **kwargs)
    env = AtariPreprocessing(env, noop_max=30, frame_skip=4)
    env = FireReset(EpisodicLife(env) if training else env)
    if training:
        env = TransformReward(env, lambda reward: float(np.sign(float(reward))))
    return FrameStackObservation(env, FRAMES)
