"""Presets, on the command line and in scripts."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from AsyncPPO import AsyncPPO
from OffPolicy import DQN
from parallel_rl.commands.arguments import parse
from parallel_rl.presets import PRESETS, defaults_for, settings_of
from PPO import PPO
from tests.program import config_from

KNOWN = [
    pytest.param(agent, env_id, marks=pytest.mark.slow if number else ())
    for agent, presets in PRESETS.items()
    for number, env_id in enumerate(presets.by_env)
]


@pytest.mark.parametrize(("agent", "env_id"), [*KNOWN, ("ppo", "ALE/Pong-v5"), ("ppo", "Blackjack-v1")])
def test_a_script_gets_the_settings_of_the_command_line(agent: str, env_id: str) -> None:
    settings, run = settings_of(env_id, agent)
    config = config_from(["--agent", agent, "--env-id", env_id])
    assert settings == vars(config.settings)
    assert run == {name: getattr(config.run, name) for name in ("num_envs", "steps", "mode")}


def test_an_id_with_a_module_has_the_preset_of_the_environment() -> None:
    named, bare = (settings_of(env_id) for env_id in ("gymnasium.envs.classic_control:CartPole-v1", "CartPole-v1"))
    assert named == bare
    assert named[0] != settings_of(gym.make("CartPole-v1"))[0]


def test_those_with_rnd_turn_it_on() -> None:
    settings, _ = settings_of("MountainCar-v0", use_rnd=True)
    assert settings == vars(config_from(["--env-id", "MountainCar-v0", "--use-rnd"]).settings)
    with pytest.raises(ValueError, match="no agent 'pp'; did you mean 'ppo'"):
        settings_of("MountainCar-v0", "pp")


def test_the_docs_list_the_environments_that_have_presets() -> None:
    page = (Path(__file__).parent.parent / "docs" / "runs.md").read_text()
    rows = re.findall(r"^\| (.+) \| (.+) \|$", page.partition("| agent | presets for |")[2].partition("\n\n")[0], re.M)
    listed = {
        agent: re.findall(r"\w+-v\d+|\w+/(?=\.\.\.)", cell) for names, cell in rows for agent in names.split(", ")
    }
    listed["PPO"] += [
        env_id
        for env_id, spec in gym.registry.items()
        if env_id.endswith("-v5") and "mujoco" in str(spec.entry_point) and env_id != "HumanoidStandup-v5"
    ]
    listed.pop("---")
    assert {agent.lower(): sorted(names) for agent, names in listed.items()} == {
        agent: sorted([*presets.by_env, *(f"{namespace}/" for namespace in presets.by_namespace)])
        for agent, presets in PRESETS.items()
    }


FEATURES, BOX = spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (2,))
IMAGE, CHOICE = spaces.Box(0, 255, (16, 16, 3), np.uint8), spaces.Discrete(3)
SUITED = [
    (FEATURES, CHOICE, {"gamma": 0.995, "batch_size": 2048, "anneal_lr": True, "normalize_obs": True}),
    (CHOICE, CHOICE, {"gamma": 0.995, "normalize_obs": False}),
    (FEATURES, BOX, {"num_envs": 64, "lr": 3e-4, "log_std": -0.5, "gamma": 0.995, "anneal_entropy": True}),
    (FEATURES, spaces.Dict(kick=CHOICE, power=BOX), {"num_envs": 64, "normalize_obs": True}),
    (IMAGE, CHOICE, {"policy_clip": 0.1, "hidden_sizes": (), "normalize_obs": False}),
    (IMAGE, BOX, {"policy_clip": 0.1, "num_envs": 8}),
    (spaces.Dict(eye=IMAGE, speed=FEATURES), BOX, {"policy_clip": 0.1, "normalize_obs": True}),
]


@pytest.mark.parametrize(("observation_space", "action_space", "expected"), SUITED)
def test_without_a_preset_the_settings_follow_from_the_spaces(
    observation_space: spaces.Space, action_space: spaces.Space, expected: dict[str, Any]
) -> None:
    env = SimpleNamespace(observation_space=observation_space, action_space=action_space)
    assert defaults_for("ppo", env).items() >= expected.items()
    settings, run = settings_of(env)
    assert {**settings, **run}.items() >= expected.items()
    assert vars(PPO.for_env(env, **settings).config) == settings


def test_a_run_says_where_its_settings_come_from(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text('{"lr": 0.5}')
    file = str(tmp_path / "mine.json")
    for flags, origin, lr in [
        (["--env-id", "Pendulum-v1"], "the preset of Pendulum-v1", 1e-3),
        (["--env-id", "Pendulum-v1", "--preset", "none"], "defaults for the spaces of the environment", 3e-4),
        (["--env-id", "Pendulum-v1", "--preset", file], f"the preset {file}", 0.5),
        (["--env-id", "Blackjack-v1", "--lr", "0.25"], "defaults for the spaces of the environment, and --lr", 0.25),
    ]:
        config, told = parse(flags)
        assert (told.origin, config.settings.lr) == (origin, lr)


def test_dqn_looks_three_steps_ahead_except_with_goals() -> None:
    assert settings_of("Taxi-v4", "dqn")[0]["n_step"] == 3
    goals = spaces.Dict(observation=FEATURES, achieved_goal=FEATURES, desired_goal=FEATURES)
    env = SimpleNamespace(observation_space=goals, action_space=CHOICE)
    assert defaults_for("dqn", env) == defaults_for("sac", env) == {}


def test_recurrent_policies_have_their_own() -> None:
    settings, run = settings_of("LunarLander-v3", core="gru")
    config = config_from(["--env-id", "LunarLander-v3", "--core", "gru"])
    assert settings == vars(config.settings)
    assert run["num_envs"] == config.run.num_envs == 8
    assert (settings["core"], settings["normalize_advantage"]) == ("gru", "returns")
    assert settings["gamma"] == 0.995  # of LunarLander
    assert config_from(["--core", "gru", "--normalize-advantage", "batch"]).settings.normalize_advantage == "batch"


def test_agents_and_trainers_take_them() -> None:
    settings, run = settings_of("CartPole-v1")
    ppo = PPO.for_env("CartPole-v1", **settings)
    assert (ppo.gamma, ppo.k_epochs, ppo.mini_batch_size) == (0.99, 10, 256)
    with AsyncPPO("CartPole-v1", ppo, **run, backend="inline", progress=False) as trainer:
        assert trainer.num_envs == 32
    settings, _ = settings_of("CartPole-v1", "dqn")
    assert DQN.for_env("CartPole-v1", **settings).n_step == 3


def test_a_setting_is_a_flag_by_its_name_in_python_too() -> None:
    config, _ = parse(["--GAE_lambda=0.9", "--use-RND", "--env_id", "CartPole-v1"])
    assert (config.settings.GAE_lambda, config.settings.use_RND, config.run.env_id) == (0.9, True, "CartPole-v1")
