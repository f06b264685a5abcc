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


def test_atari_episode_is_a_life_in_training_and_a_game_otherwise() -> None:
    lengths = {}
    for training in (True, False):
        env = make_atari("ALE/Breakout-v5", training=training, repeat_action_probability=0.0)
        env.reset(seed=0)
        lives = []
        while True:
            _, _, terminated, truncated, info = env.step(1)
            lives.append(info["lives"])
            if terminated or truncated:
                break
        lengths[training] = lives
    assert lengths[True][-1] == 4
    assert lengths[False][-1] == 0


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
