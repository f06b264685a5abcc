"""Exported policies act as the agent does."""

import importlib.util
import logging
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from AsyncPPO import ActionMasks
from OffPolicy import DDPG, DQN, SAC, TD3
from parallel_rl.networks.export import export_policy
from PPO import PPO
from tests.covering import rest_slow
from tests.envs import Grid, Hybrid, Nested, Pixels
from tests.learning.test_probes import Everything

ONNX = pytest.param(
    ".onnx", marks=pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="ONNX is not installed")
)


def env_of(observation_space: spaces.Space, action_space: spaces.Space) -> gym.Env:
    env = gym.Env()
    env.observation_space, env.action_space = observation_space, action_space
    return env


IMAGES = partial(env_of, spaces.Box(0, 255, (10, 10, 2), np.uint8), spaces.Discrete(3, start=2))
OFF_CENTER = partial(env_of, spaces.Box(-1, 1, (3,)), spaces.Box(np.array([[-1.0], [5.0]]), 11.0, dtype=np.float64))
slow = partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.covering
@pytest.mark.parametrize("suffix", [".pt2", ONNX])
@pytest.mark.parametrize(
    ("kind", "env", "settings"),
    [
        (PPO, "CartPole-v1", {}),
        slow(PPO, "Pendulum-v1", {"normalize_obs": True}),
        (PPO, "Pendulum-v1", {"squash_actions": False}),
        slow(PPO, "Pendulum-v1", {"core": "gru"}),
        (PPO, "CartPole-v1", {"core": "lstm", "normalize_obs": True}),
        slow(PPO, "Taxi-v4", {}),
        (PPO, Nested, {}),
        (PPO, Pixels, {}),
        slow(PPO, Grid, {}),
        slow(PPO, Everything, {}),
        (PPO, Hybrid, {}),
        (PPO, Hybrid, {"core": "gru"}),
        slow(DQN, "CartPole-v1", {"dueling": True, "normalize_obs": True}),
        slow(DQN, IMAGES, {"activation": "silu"}),
        slow(DDPG, OFF_CENTER, {"activation": "tanh"}),
        slow(TD3, "Pendulum-v1", {"normalize_obs": True}),
        slow(SAC, OFF_CENTER, {"normalize_obs": True}),
    ],
)
def test_exported_policy_acts_as_the_agent(
    tmp_path: Path, suffix: str, kind: Any, env: Any, settings: dict[str, Any]
) -> None:
    agent = kind.for_env(env if isinstance(env, str) else env(), seed=0, **settings)
    if agent.policy.obs_norm is not None:
        agent.policy.obs_norm.update(torch.randn(100, agent.policy.features.vector) * 5 + 3)
    assert export_policy(agent, tmp_path / f"policy{suffix}") <= 1e-5


@pytest.mark.parametrize("kind", rest_slow(TD3, DDPG))
def test_exploration_with_a_state_is_not_exported(kind: Any, tmp_path: Path) -> None:
    agent = kind.for_env("Pendulum-v1", action_noise="ou_0.2", buffer_size=100, hidden_sizes=(8,), seed=0)
    assert export_policy(agent, tmp_path / "policy.pt2") <= 1e-5
    actions = torch.export.load(tmp_path / "policy.pt2").module()(torch.zeros(2, 3))
    assert actions.shape == (2, 1)


def test_exported_actions_near_a_bound_equal_the_agents(tmp_path: Path) -> None:
    env = env_of(spaces.Box(-1, 1, (3,)), spaces.Box(np.float32([5, 1e6]), np.float32([np.inf, np.inf])))
    export_policy(PPO.for_env(env, seed=0), tmp_path / "policy.pt2")
    action = torch.export.load(tmp_path / "policy.pt2").module()(torch.zeros(2, 3))
    np.testing.assert_allclose(action.detach(), [[6, 1e6 + 122]] * 2, rtol=1e-5)


@pytest.mark.parametrize(("kind", "env"), [(PPO, "CartPole-v1"), (SAC, "Pendulum-v1")])
def test_exported_program_runs_without_the_project(kind: Any, env: str, tmp_path: Path) -> None:
    agent = kind.for_env(env, seed=0)
    export_policy(agent, tmp_path / "policy.pt2")
    obs = np.random.default_rng(0).normal(size=(7, agent.policy.features.columns)).astype(np.float32)
    with torch.no_grad():
        actions = torch.export.load(tmp_path / "policy.pt2").module()(torch.from_numpy(obs))
    np.testing.assert_allclose(actions, agent.get_action(obs, deterministic=True), rtol=1e-5)


@pytest.mark.parametrize("kind", rest_slow(PPO, DQN))
def test_exported_policy_obeys_action_masks(kind: Any, tmp_path: Path) -> None:
    env = ActionMasks(gym.make("Taxi-v4"))
    assert export_policy(kind.for_env(env, seed=0), tmp_path / "policy.pt2") == 0.0


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="ONNX is not installed")
def test_exported_composite_actions_have_names(tmp_path: Path) -> None:
    import onnxruntime

    level = logging.getLogger("torch.onnx").level
    export_policy(PPO.for_env(Hybrid(), seed=0, core="gru"), tmp_path / "policy.onnx")
    assert logging.getLogger("torch.onnx").level == level, "warnings of other exports are left alone"
    session = onnxruntime.InferenceSession(tmp_path / "policy.onnx")
    assert {value.shape[0] for value in (*session.get_inputs(), *session.get_outputs())} == {"batch"}
    results = [result.name for result in session.get_outputs()]
    assert results == ["action.move", "action.aim.0", "action.aim.1", "action.gears", "next_core"]


def test_export_of_bfloat16_as_onnx_is_refused(tmp_path: Path) -> None:
    ppo = PPO(False, 4, 2, bf16=True, seed=0)
    assert export_policy(ppo, tmp_path / "policy.pt2") == 0.0
    with pytest.raises(ValueError, match=r"a policy with bf16 is exported as \.pt2"):
        export_policy(ppo, tmp_path / "policy.onnx")


def test_without_onnx_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        ImportError, match=r"onnxruntime.*\(pip install 'parallel-rl\[export\]', or -r requirements-export"
    ):
        export_policy(PPO(False, 4, 2), tmp_path / "policy.onnx")


def test_export_with_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"exported as \.onnx or \.pt2, not as 'policy\.pt'"):
        export_policy(PPO(False, 4, 2), tmp_path / "policy.pt")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no forks")
def test_a_fork_computes_gradients_after_an_export(tmp_path: Path) -> None:
    """As the members of a population do. Only a process that has computed no gradient before can show it."""
    script = f"""
import os
import torch
from parallel_rl.networks.export import export_policy
from PPO import PPO

export_policy(PPO(False, 4, 2, seed=0), {str(tmp_path / "policy.pt2")!r})
torch.ones((), requires_grad=True).backward()
if not (child := os.fork()):
    torch.ones((), requires_grad=True).backward()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2], timeout=120)
