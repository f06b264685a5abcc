"""The settings of off-policy agents: ranges, and relations between them."""

from typing import Any

import pytest

from OffPolicy.config import DDPGConfig, DQNConfig, SACConfig, TD3Config
from parallel_rl.utils import new_default, settings_class, settings_in
from parallel_rl.utils.settings import hints

CONFIGS = pytest.mark.parametrize("config", [DQNConfig, DDPGConfig, TD3Config, SACConfig])
RANGES: dict[str, tuple[list[Any], list[Any]]] = {
    "gamma": ([-0.1, 1.1], [0, 1]),
    "lr": ([0, float("inf"), "x"], [1e-9]),
    "batch_size": ([0, 1.5], [1]),
    "buffer_size": ([1], [2]),
    "learning_starts": ([-1], [0]),
    "utd": ([0], [1e-3]),
    "train_freq": ([0], [1]),
    "tau": ([0, 1.1], [1]),
    "n_step": ([0], [1]),
    "reward_scale": ([0], [1e-3]),
    "priority_alpha": ([-0.1, 1.1], [0, 1]),
    "priority_beta": ([-0.1, 1.1], [0, 1]),
    "hindsight": (["past"], ["final"]),
    "replay_k": ([-1], [0]),
    "hidden_sizes": ([(0,), 5], [(), (1,)]),
    "activation": (["gelu"], ["silu"]),
    "obs_clip": ([0], [1e-3]),
    "target_update_interval": ([0], [1]),
    "epsilon_start": ([-0.1, 1.1], [0, 1]),
    "epsilon_end": ([-0.1, 1.1], [0, 1]),
    "epsilon_steps": ([-1], [0]),
    "max_grad_norm": ([0], [1e-3]),
    "eps_greedy": ([-0.1, 1.1], [0, 1]),
    "action_l2": ([-1], [0]),
    "action_noise": (["pink_1"], ["none"]),
    "demo_batch_size": ([0], [1]),
    "demo_weight": ([-1], [0]),
    "parameter_noise": ([-1], [0]),
    "policy_delay": ([0], [1]),
    "target_noise": ([-1], [0]),
    "target_noise_clip": ([-1], [0]),
    "alpha": ([0], [None, 1e-3]),
    "initial_alpha": ([0], [1e-3]),
    "target_entropy": ([float("inf")], [None, -5]),
}
"""By setting: values that are refused, and values at the ends of the range."""
FREE = {"device", "demo_path"}
"""Settings that are any text."""


@CONFIGS
def test_every_setting_has_its_range(config: Any) -> None:
    names = [name for name, hint in hints(config).items() if hint is not bool and name not in FREE]
    assert {*names} <= RANGES.keys()
    for name in names:
        refused, allowed = RANGES[name]
        for value in refused:
            with pytest.raises(ValueError, match=f"{name} must be"):
                config(**{name: value})
        for value in allowed:
            assert getattr(config(**{name: value}), name) == value


@CONFIGS
def test_switches_and_functions_are_checked(config: Any) -> None:
    with pytest.raises(ValueError, match="prioritized must be one of True, False, not 'no'"):
        config(prioritized="no")
    with pytest.raises(ValueError, match="gamma must be a number, not <function"):
        config(gamma=lambda remaining: remaining)
    with pytest.raises(ValueError, match="lr is a function of the run: it cannot be annealed"):
        config(lr=lambda remaining: remaining, anneal_lr=True)


@CONFIGS
def test_settings_that_exclude_each_other_are_refused(config: Any) -> None:
    for other in ({"n_step": 2}, {"prioritized": True}):
        with pytest.raises(ValueError, match="hindsight needs n_step=1 and prioritized=False"):
            config(hindsight="future", **other)
        config(hindsight="none", **other)
    with pytest.raises(ValueError, match="clip_return needs gamma < 1"):
        config(clip_return=True, gamma=1)


def test_a_range_is_told_with_both_ends() -> None:
    with pytest.raises(ValueError, match=r"tau must be in \(0, 1\], not 2$"):
        DQNConfig(tau=2)


def test_a_config_with_a_new_default_inherits_the_rest_of_the_setting() -> None:
    @settings_class
    class Slow(DQNConfig):
        tau = new_default(0.001)

    assert (Slow().tau, Slow(tau=0.5).tau, DQNConfig().tau) == (0.001, 0.5, 0.01)
    assert (settings_in(Slow), hints(Slow)) == (settings_in(DQNConfig), hints(DQNConfig))
    with pytest.raises(ValueError, match="tau must be"):
        Slow(tau=2)
