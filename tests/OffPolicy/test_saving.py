"""An agent that is made of its weights."""

import dataclasses
import math
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from AsyncPPO import AsyncTrainer
from OffPolicy import DQN, SAC, TD3
from parallel_rl.networks.weights import POLICY_FILE, read_weights, write_weights
from parallel_rl.utils import Trajectory, load_state, save_state
from PPO import PPO
from tests.OffPolicy.test_agents import ALL, agent_of, experience, feed


@ALL
def test_an_agent_is_made_of_its_weights(name: str, tmp_path: Any) -> None:
    """Its settings too, with those that were assigned later."""
    agent = agent_of(name, gamma=0.9)
    pieces = experience(agent, 6)
    feed(agent, pieces)
    agent.batch_size = 5
    agent.save_weights(tmp_path)
    functions = {"goal_functions": agent.goal_functions} if "hindsight" in name else {}
    again = type(agent).load(tmp_path, lr=0.1, **functions)
    assert again.config == dataclasses.replace(agent.config, lr=0.1)
    obs = pieces[0][0].obs
    np.testing.assert_array_equal(agent.get_action(obs, deterministic=True), again.get_action(obs, deterministic=True))
    feed(again, pieces)
    assert again.updates


def save_and_load(agent: Any, way: str, directory: Path) -> Any:
    """Return a new agent with the networks of another one."""
    agent.save_weights(directory)
    if way == "load":
        return type(agent).load(directory, seed=9)
    other = agent_of(type(agent).__name__.lower(), seed=9)
    if way == "load_weights":
        other.load_weights(directory)
    else:
        other.load_networks(agent.state())
    return other


def test_networks_of_a_checkpoint_need_the_settings_that_they_depend_on() -> None:
    """Weights of a relu network fit into one with tanh, but mean something else there."""
    agent, other = agent_of("sac"), agent_of("sac", seed=9, activation="tanh")
    obs = experience(agent, 1)[0][0].obs
    before = other.get_action(obs, deterministic=True)
    with pytest.raises(ValueError, match="the saved networks do not fit: activation is 'relu' there and 'tanh' here"):
        other.load_networks(agent.state(), agent.signature())
    np.testing.assert_array_equal(other.get_action(obs, deterministic=True), before)


@pytest.mark.parametrize("way", ["load", "load_weights", "load_networks"])
def test_a_loaded_agent_explores_where_the_saved_one_was(way: str, tmp_path: Path) -> None:
    dqn, sac = agent_of("dqn", epsilon_steps=50), agent_of("sac")
    pieces = experience(dqn, 3)
    for agent in (dqn, sac):
        feed(agent, experience(agent, 3))
    again = save_and_load(dqn, way, tmp_path / "dqn")
    again.epsilon_steps = 50
    assert (again.steps, again.epsilon) == (42, pytest.approx(1 - 0.98 * 42 / 50))
    obs = pieces[0][0].obs
    actions, random_actions = save_and_load(sac, way, tmp_path / "sac").act(obs), agent_of("sac", seed=9).act(obs)
    assert not np.array_equal(actions[0], random_actions[0])
    assert again.steps_wanted() == again.learning_starts
    feed(again, pieces)
    assert again.updates == math.floor(again.utd * (42 - again.learning_starts)), "none makes up for earlier steps"


def test_weights_of_an_older_version_have_no_steps_and_an_agent_with_steps_keeps_them(tmp_path: Path) -> None:
    agent = agent_of("dqn")
    feed(agent, experience(agent, 3))
    agent.save_weights(tmp_path)
    other = agent_of("dqn")
    feed(other, experience(other, 2))
    other.load_weights(tmp_path)
    assert other.steps == 28
    weights, settings = read_weights(tmp_path / POLICY_FILE)
    assert settings is not None
    write_weights(tmp_path / POLICY_FILE, weights, settings | {"steps": -1})
    with pytest.raises(ValueError, match="the saved number of steps should be a whole number, not -1"):
        DQN.load(tmp_path)
    del settings["steps"]
    write_weights(tmp_path / POLICY_FILE, weights, settings)
    assert (DQN.load(tmp_path).steps, DQN.load(tmp_path).epsilon) == (0, 1.0)


def test_only_training_needs_the_memory_of_the_replay_buffer(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = DQN.for_env("CartPole-v1", buffer_size=10_000, hidden_sizes=(4,), seed=0)
    agent.save_weights(tmp_path)
    monkeypatch.setattr("OffPolicy.rings.free_memory", lambda: 1000)
    loaded = DQN.load(tmp_path)
    assert loaded.get_action(np.zeros(4)) == agent.get_action(np.zeros(4))
    with pytest.raises(ValueError, match=r"buffer_size=10,000 takes .* would fit"):
        AsyncTrainer("CartPole-v1", loaded, num_envs=1, backend="inline")


def test_a_replay_buffer_is_saved_without_a_copy_and_loaded_with_one(tmp_path: Path) -> None:
    wide, path = spaces.Box(-1, 1, (500,)), tmp_path / "state"
    agent, again = (SAC(wide, wide, buffer_size=1000, hidden_sizes=(4,)) for _ in range(2))
    rows, no = np.ones((1000, 500), np.float32), np.zeros(1000, bool)
    trajectory = Trajectory(0, rows, rows, np.zeros(1000, np.float32), no, no, rows[-1:])
    for one in (agent, again):
        one.observe([trajectory])
    saving = most_memory(lambda: save_state(path, agent.state()))
    loading = most_memory(lambda: again.load_state(load_state(path)))
    size = path.stat().st_size
    assert size > 4_000_000
    assert saving < 0.1 * size
    assert loading < 2.1 * size, "the content of the file, and the buffer"


def most_memory(work: Callable[[], object]) -> int:
    """Return the most bytes that work has allocated at a time."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def alpha(agent: Any) -> float:
    return agent.temperature.network.log.exp().item()


def test_the_learned_temperature_is_saved_with_the_weights(tmp_path: Any) -> None:
    agent = agent_of("sac", lr=0.1)
    feed(agent, experience(agent, 6))
    agent.save_weights(tmp_path)
    assert alpha(SAC.load(tmp_path)) == alpha(agent) != 1
    assert alpha(SAC.load(tmp_path, alpha=0.2)) == pytest.approx(0.2)
    weights, settings = read_weights(tmp_path / POLICY_FILE)
    assert settings is not None
    older = {name: tensor for name, tensor in weights.items() if "temperature" not in name}
    write_weights(tmp_path / POLICY_FILE, older, settings)
    assert alpha(SAC.load(tmp_path)) == 1


@pytest.mark.parametrize("saved", [None, 0.5])
@pytest.mark.parametrize("way", ["state", "networks", "shared state"])
def test_a_fixed_temperature_replaces_that_of_a_loaded_state(way: str, saved: float | None) -> None:
    agent, fixed = agent_of("sac", lr=0.1, alpha=saved), agent_of("sac", alpha=0.2)
    pieces = experience(agent, 6)
    feed(agent, pieces)
    if way == "state":
        fixed.load_state(agent.state())
    elif way == "networks":
        fixed.load_networks(agent.state())
    else:
        fixed.load_shared_state(agent.shared_state())
    assert alpha(fixed) == pytest.approx(0.2)
    metrics = [told for told in feed(fixed, pieces) if isinstance(told, dict)]
    assert [row["alpha"] for row in metrics] == pytest.approx([0.2] * len(metrics))
    assert metrics


def test_a_temperature_that_was_fixed_is_learned_from_there_on() -> None:
    fixed, learned = agent_of("sac", alpha=0.2), agent_of("sac", lr=0.1)
    learned.load_state(fixed.state())
    assert alpha(learned) == pytest.approx(0.2)
    feed(learned, experience(learned, 6))
    assert alpha(learned) != pytest.approx(0.2)


def test_parameter_noise_begins_where_a_state_has_none() -> None:
    without, agent = agent_of("ddpg", parameter_noise=0), agent_of("ddpg", action_noise="none")
    pieces = experience(agent, 6)
    feed(without, pieces)
    agent.load_state(without.state())
    obs = pieces[0][0].obs
    np.testing.assert_array_equal(agent.act(obs)[0], without.get_action(obs))
    metrics = [told for told in feed(agent, pieces) if isinstance(told, dict)]
    assert metrics[0]["parameter_noise"] == 0.1
    assert (agent.act(obs)[0] != agent.get_action(obs)).any()


def test_weights_of_another_agent_are_refused(tmp_path: Any) -> None:
    sac, ppo = agent_of("sac"), PPO.for_env("Pendulum-v1", seed=0)
    sac.save_weights(tmp_path / "sac")
    ppo.save_weights(tmp_path / "ppo")
    for load in (TD3.load, agent_of("td3").load_weights):
        with pytest.raises(ValueError, match=r"the weights in .* are of SAC, not of TD3"):
            load(tmp_path / "sac")
    for load in (PPO.load, ppo.load_weights):
        with pytest.raises(ValueError, match=r"the weights in .* are of SAC, not of PPO"):
            load(tmp_path / "sac")
    for load in (SAC.load, sac.load_weights):
        with pytest.raises(ValueError, match=r"the weights in .* are of another agent, not of SAC"):
            load(tmp_path / "ppo")


def test_what_no_file_holds_must_be_given_again(tmp_path: Any) -> None:
    agent_of("sac-hindsight").save_weights(tmp_path / "hindsight")
    with pytest.raises(ValueError, match="goal functions"):
        SAC.load(tmp_path / "hindsight")
    assert SAC.load(tmp_path / "hindsight", hindsight="none").goal_functions is None
    agent_of("sac", lr=lambda remaining: 1e-3 * remaining).save_weights(tmp_path / "schedule")
    loaded = SAC.load(tmp_path / "schedule")
    assert loaded.get_action(loaded.observation_space.sample(), deterministic=True).shape == loaded.action_space.shape
    with pytest.raises(ValueError, match=r"lr was a function, .*lambda.*, which no file holds: .* give lr="):
        feed(loaded, experience(loaded, 6))
    assert SAC.load(tmp_path / "schedule", lr=1e-3).lr == 1e-3
    with pytest.raises(FileNotFoundError, match="no weights at"):
        SAC.load(tmp_path / "nothing")
    with pytest.raises(TypeError, match=r"SAC\.load\(\) takes no environment"):
        SAC.load(tmp_path / "schedule", env="Pendulum-v1")
    with pytest.raises(
        TypeError, match=r"SAC\.load\(\) got an unexpected keyword argument 'learning_rate': did you mean"
    ):
        SAC.load(tmp_path / "schedule", learning_rate=1e-3)
    with pytest.raises(ValueError, match=r"says, with gamma: gamma must be in"):
        SAC.load(tmp_path / "schedule", gamma=2)
