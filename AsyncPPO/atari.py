"""Atari games with the usual preprocessing."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation, TransformReward

from parallel_rl.utils import register_games

FRAMES = 4


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
        training: whether to clip rewards to their signs and to end an episode when a life is lost.
        kwargs: of `gymnasium.make`.

    Raises:
        ModuleNotFoundError: `ale-py` or OpenCV is not installed (requirements-atari.txt).
    """
    register_games(env_id)
    env: gym.Env = gym.make(env_id, frameskip=1, disable_env_checker=True, **kwargs)
    env = FireReset(AtariPreprocessing(env, noop_max=30, frame_skip=4, terminal_on_life_loss=training))
    if training:
        env = TransformReward(env, lambda reward: float(np.sign(float(reward))))
    return FrameStackObservation(env, FRAMES)
