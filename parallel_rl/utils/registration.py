"""Environments whose packages do not register them by themselves."""

import gymnasium as gym


def register_minatar(env_id: str) -> None:
    """Register the games of MinAtar if `env_id` is one of them and they are not registered yet.

    Raises:
        ModuleNotFoundError: MinAtar is not installed (requirements-atari.txt).
    """
    if env_id.startswith("MinAtar/") and env_id not in gym.registry:
        from minatar.gym import register_envs

        register_envs()
