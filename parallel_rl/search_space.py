"""The settings that `tune` searches, and the values that it tries, by agent."""

from typing import Any, NamedTuple

from gymnasium import spaces

from parallel_rl.utils import SettingValues
from parallel_rl.utils.spaces import leaves


class LogRange(NamedTuple):
    """A range of numbers that is searched on a logarithmic scale."""

    low: float
    high: float


Space = dict[str, LogRange | tuple[Any, ...]]
"""By the name of a setting: a range, or the values to choose from."""
GAMMAS = (0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
OFF_POLICY: Space = {
    "lr": LogRange(1e-5, 1e-2),
    "gamma": GAMMAS,
    "batch_size": (64, 128, 256, 512),
    "tau": (0.005, 0.01, 0.02, 0.05),
    "learning_starts": (100, 1_000, 5_000),
}
NOISES: Space = {"action_noise": ("normal_0.1", "normal_0.3", "ou_0.3")}
SEARCH: dict[str, Space] = {
    "ppo": {
        "lr": LogRange(1e-5, 1e-2),
        "gamma": GAMMAS,
        "GAE_lambda": (0.9, 0.95, 0.98, 1.0),
        "batch_size": (512, 1024, 2048, 4096),
        "mini_batch_size": (64, 128, 256, 512),
        "k_epochs": (4, 7, 10, 20),
        "policy_clip": (0.1, 0.2, 0.3),
        "entropy_coef": (0.0, 0.001, 0.01, 0.03),
        "anneal_lr": (False, True),
        "log_std": (-0.5, 0.0, 0.5),
    },
    "dqn": OFF_POLICY | {"epsilon_end": (0.02, 0.05, 0.1), "epsilon_steps": (5_000, 10_000, 20_000)},
    "ddpg": OFF_POLICY | NOISES,
    "td3": OFF_POLICY | NOISES,
    "sac": OFF_POLICY,
}
"""By agent."""
OF_CONTINUOUS_ACTIONS = {"log_std"}
"""Settings without effect on discrete actions."""


def search_space(agent: str, start: SettingValues, actions: spaces.Space) -> Space:
    """Return the settings to search, and their values.

    Args:
        agent: its name.
        start: the settings of the first trial, whose values are among those to try.
        actions: the action space.

    Raises:
        ValueError: the agent has no settings to search.
    """
    if agent not in SEARCH:
        raise ValueError(f"search_space.py has nothing to try for the agent {agent!r}")
    is_discrete = not any(isinstance(leaf, spaces.Box) for _, leaf in leaves(actions))
    return {
        name: _with(values, start[name])
        for name, values in SEARCH[agent].items()
        if not (is_discrete and name in OF_CONTINUOUS_ACTIONS)
    }


def _with(values: LogRange | tuple[Any, ...], one: Any) -> LogRange | tuple[Any, ...]:
    if isinstance(values, LogRange):
        return LogRange(min(values.low, one), max(values.high, one))
    return tuple(dict.fromkeys((*values, one)))
