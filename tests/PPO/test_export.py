"""Exported policies act as the agent does."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from AsyncPPO import ActionMasks
from PPO import PPO
from PPO.export import export_policy
from tests.envs import Grid, Hybrid, Nested, Pixels
from tests.learning.test_probes import Everything

ONNX = pytest.param(
    ".onnx", marks=pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="ONNX is not installed")
)


@pytest.mark.covering
@pytest.mark.parametrize("suffix", [".pt2", ONNX])
@pytest.mark.parametrize(
    ("env", "settings"),
    [
        ("CartPole-v1", {}),
        ("Pendulum-v1", {"normalize_obs": True}),
        ("Pendulum-v1", {"squash_actions": False}),
        ("Pendulum-v1", {"core": "gru"}),
        ("CartPole-v1", {"core": "lstm", "normalize_obs": True}),
        ("Taxi-v4", {}),
        (Nested, {}),
        (Pixels, {}),
        (Grid, {}),
        (Everything, {}),
        (Hybrid, {}),
        (Hybrid, {"core": "gru"}),
    ],
)
def test_exported_policy_acts_as_the_agent(tmp_path: Path, suffix: str, env: Any, settings: dict[str, Any]) -> None:
    ppo = PPO.for_env(env if isinstance(env, str) else env(), seed=0, **settings)
    if ppo.policy.obs_norm is not None:
        ppo.policy.update_statistics(torch.randn(100, ppo.observ_dim) * 5 + 3)
    assert export_policy(ppo, tmp_path / f"policy{suffix}") <= 1e-5


def test_exported_actions_near_a_bound_equal_the_agents(tmp_path: Path) -> None:
    import gymnasium as gym
    from gymnasium import spaces

    env = gym.Env()
    env.observation_space = spaces.Box(-1, 1, (3,))
    env.action_space = spaces.Box(np.float32([5, 1e6]), np.float32([np.inf, np.inf]))
    export_policy(PPO.for_env(env, seed=0), tmp_path / "policy.pt2")
    action = torch.export.load(tmp_path / "policy.pt2").module()(torch.zeros(2, 3))
    np.testing.assert_allclose(action.detach(), [[6, 1e6 + 122]] * 2, rtol=1e-5)


def test_exported_program_runs_without_the_project(tmp_path: Path) -> None:
    ppo = PPO.for_env("CartPole-v1", seed=0)
    export_policy(ppo, tmp_path / "policy.pt2")
    obs = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    act = torch.export.load(tmp_path / "policy.pt2").module()
    assert act(torch.from_numpy(obs)).tolist() == ppo.get_action(obs, deterministic=True).tolist()


def test_exported_policy_obeys_action_masks(tmp_path: Path) -> None:
    import gymnasium as gym

    env = ActionMasks(gym.make("Taxi-v4"))
    assert export_policy(PPO.for_env(env, seed=0), tmp_path / "policy.pt2") == 0.0


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="ONNX is not installed")
def test_exported_composite_actions_have_names(tmp_path: Path) -> None:
    import onnxruntime

    export_policy(PPO.for_env(Hybrid(), seed=0, core="gru"), tmp_path / "policy.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "policy.onnx")
    assert {value.shape[0] for value in (*session.get_inputs(), *session.get_outputs())} == {"batch"}
    results = [result.name for result in session.get_outputs()]
    assert results == ["action.move", "action.aim.0", "action.aim.1", "action.gears", "next_core"]


def test_export_of_bfloat16_as_onnx_is_refused(tmp_path: Path) -> None:
    ppo = PPO(False, 4, 2, bf16=True, seed=0)
    assert export_policy(ppo, tmp_path / "policy.pt2") == 0.0
    with pytest.raises(ValueError, match=r"a policy with bf16 is exported as \.pt2"):
        export_policy(ppo, tmp_path / "policy.onnx")


def test_export_with_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"exported as \.onnx or \.pt2, not as 'policy\.pt'"):
        export_policy(PPO(False, 4, 2), tmp_path / "policy.pt")
