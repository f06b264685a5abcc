"""Settings have the types of their declarations, whatever gives them: Python, JSON, an assignment."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from gymnasium import spaces

from OffPolicy import DQN
from parallel_rl.utils import Config, Schedule, Trajectory, setting, settings_class
from PPO import PPO


@settings_class
class Settings(Config):
    whole: int = setting(1, "")
    whole_or_none: int | None = setting(None, "")
    number: float = setting(0.0, "")
    scheduled: float | Schedule = setting(0.0, "")
    several: tuple[int, ...] = setting((), "")
    other: int = setting(-1, "", above=0, also=-1)
    switch: bool = setting(False, "")
    switch_or_none: bool | None = setting(None, "")
    choice: Literal[0, 1] = setting(0, "")
    name: str = setting("", "")


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("whole", 2.0, 2),
        ("whole", np.int64(2), 2),
        ("whole_or_none", np.float32(3), 3),
        ("number", -2, -2.0),
        ("number", np.float32(0.5), 0.5),
        ("scheduled", 1, 1.0),
        ("scheduled", round, round),
        ("several", [8.0, np.int64(4)], (8, 4)),
        ("other", 4.0, 4),
        ("other", -1.0, -1),
        ("switch", 1, True),
        ("switch_or_none", np.False_, False),
        ("choice", True, 1),
        ("name", "text", "text"),
        ("name", Path("file"), "file"),
        ("name", torch.device("cpu"), "cpu"),
    ],
)
def test_a_valid_value_is_converted_to_the_type_of_its_setting(name: str, given: Any, expected: Any) -> None:
    value = getattr(Settings(**{name: given}), name)
    assert value == expected
    assert type(value) is type(expected)
    if isinstance(expected, tuple):
        assert {*map(type, value)} == {int}


@pytest.mark.parametrize("value", [5, None, b"text", ["text"]])
def test_a_text_must_be_one(value: Any) -> None:
    with pytest.raises(ValueError, match="name must be a text, not "):
        Settings(name=value)


def test_a_whole_number_beyond_64_bits_is_an_error_also_as_a_float() -> None:
    for value in (2**63, 2.0**63):
        with pytest.raises(ValueError, match=r"whole must be below 2\*\*63"):
            Settings(whole=value)


def collected(agent: Any) -> Any:
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(16, 3)).astype(np.float32)
    action, extras = agent.act(obs)
    reward, never = rng.normal(size=16).astype(np.float32), np.zeros(16, bool)
    agent.observe([Trajectory(0, obs, action, reward, never, never, obs[:1], extras)])
    return agent


def test_ppo_learns_the_same_with_numbers_of_other_types() -> None:
    as_declared = {"batch_size": 16, "mini_batch_size": 8, "k_epochs": 2, "hidden_sizes": (4,), "log_std": -1.0}
    others = {"batch_size": 16.0, "mini_batch_size": 8.0, "k_epochs": 2.0, "hidden_sizes": [4.0], "log_std": -1}
    one = PPO(True, 3, 2, seed=0, **as_declared)
    other = PPO(True, 3.0, 2.0, seed=np.int64(0), **others)
    assert collected(one).learn() == collected(other).learn()
    one.k_epochs, one.mini_batch_size, one.lr = 1, 16, 1.0
    other.k_epochs, other.mini_batch_size, other.lr = 1.0, np.float32(16), 1
    assert collected(one).learn() == collected(other).learn()
    assert one.settings() == other.settings()


def test_an_off_policy_agent_learns_the_same_with_numbers_of_other_types() -> None:
    as_declared = {"batch_size": 8, "buffer_size": 100, "n_step": 2, "learning_starts": 4, "hidden_sizes": (4,)}
    others = {name: [4.0] if name == "hidden_sizes" else float(value) for name, value in as_declared.items()}
    agents = [
        collected(DQN(spaces.Box(-1, 1, (3,)), spaces.Discrete(2), seed=0, utd=1.0, **settings))
        for settings in (as_declared, others)
    ]
    metrics = [agent.update(0.0) for agent in agents]
    assert metrics[0] == metrics[1] != {}
