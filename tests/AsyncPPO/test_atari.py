"""Atari games with the usual preprocessing, and small ones."""

import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("ale_py")
pytest.importorskip("cv2")
pytest.importorskip("minatar")

from AsyncPPO import EnvVectorizer, make_atari
from parallel_rl import main
from parallel_rl.commands.build import factory_of
from parallel_rl.config import RunConfig
from PPO import PPO
from tests.covering import rest_slow


def test_atari_observations_are_four_grayscale_frames_of_84x84() -> None:
    env = make_atari("ALE/Breakout-v5")
    obs, _ = env.reset(seed=0)
    assert obs.shape == (4, 84, 84)
    assert obs.dtype == np.uint8
    with EnvVectorizer(lambda: make_atari("ALE/Pong-v5"), 2, backend="process", num_workers=2, seed=0) as envs:
        states, _ = envs.reset()
        rewards = [envs.step(np.zeros(2, np.int64))[1] for _ in range(120)]
    assert states.shape == (2, 4, 84, 84)
    assert set(np.unique(rewards)) <= {-1.0, 0.0, 1.0}
    assert np.min(rewards) == -1, "whoever does nothing loses a point"


def lives_of(env: gym.Env) -> list[int]:
    """Play until an episode is over; return the lives that were left after each step."""
    lives = []
    while True:
        _, _, terminated, truncated, info = env.step(1)
        lives.append(info["lives"])
        if terminated or truncated:
            return lives


def test_atari_episode_is_a_life_in_training_and_a_game_otherwise() -> None:
    lives = {}
    for training in (True, False):
        env = make_atari("ALE/Breakout-v5", training=training, repeat_action_probability=0.0)
        env.reset(seed=0)
        lives[training] = lives_of(env)
    assert lives[True][-1] == 4
    assert lives[False][-1] == 0


def test_atari_game_goes_on_with_the_next_life_in_training() -> None:
    env = make_atari("ALE/Breakout-v5", repeat_action_probability=0.0)
    _, info = env.reset(seed=0)
    starts, ends, frames = [], [], []
    for _ in range(6):
        starts.append(info["lives"])
        frames.append(info["episode_frame_number"])
        ends.append(lives_of(env)[-1])
        _, info = env.reset()
    assert (starts, ends) == ([5, 4, 3, 2, 1, 5], [4, 3, 2, 1, 0, 4])
    assert frames[:5] == sorted({*frames[:5]})
    assert frames[5] < frames[1]


def test_atari_game_begins_anew_with_a_seed_and_after_a_reset_within_a_life() -> None:
    env = make_atari("ALE/Breakout-v5", repeat_action_probability=0.0)
    first, _ = env.reset(seed=0)
    lives_of(env)
    again, info = env.reset(seed=0)
    assert info["lives"] == 5
    np.testing.assert_array_equal(first, again)
    lives_of(env)
    assert env.reset()[1]["lives"] == 4
    env.step(0)
    assert env.reset()[1]["lives"] == 5


def test_an_atari_id_with_its_module_has_the_same_wrappers() -> None:
    with factory_of(RunConfig(env_id="ale_py:ALE/Pong-v5"))() as env:
        assert env.observation_space.shape == (4, 84, 84)


@pytest.mark.slow
def test_the_command_line_trains_on_atari(tmp_path: Path) -> None:
    run = tmp_path / "run"
    flags = ["--env-id", "ALE/Pong-v5", "--steps", "2048", "--eval-episodes", "1", "--run-dir", str(run)]
    assert main.main(flags) == 0
    assert json.loads((run / "summary.json").read_text())["evaluation"]["mean"] >= -21


@pytest.mark.parametrize("start_method", rest_slow("fork", "spawn"))
def test_minatar_ids_are_registered(start_method: str) -> None:
    ways = {"backend": "process", "num_workers": 2, "start_method": start_method}
    with EnvVectorizer("MinAtar/Breakout-v1", 2, seed=0, **ways) as envs:  # type: ignore[arg-type]
        states, _ = envs.reset()
        assert states.shape == (2, 10, 10, 4)
        assert PPO.for_env(envs, seed=0).get_action(states).shape == (2,)
    with pytest.raises(ValueError, match="did you mean 'MinAtar/Breakout-v1'"):
        EnvVectorizer("MinAtar/Breakuot-v1", 2)


def test_for_env_registers_a_minatar_id(monkeypatch: pytest.MonkeyPatch) -> None:
    for env_id in [env_id for env_id in gym.registry if env_id.startswith("MinAtar/")]:
        monkeypatch.delitem(gym.registry, env_id)
    assert PPO.for_env("MinAtar/Breakout-v1", hidden_sizes=(8,)).observation_space.shape == (10, 10, 4)
