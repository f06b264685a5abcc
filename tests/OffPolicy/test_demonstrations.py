"""Demonstrations: files, the behavior-cloning loss with its Q-filter, and faster learning."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from OffPolicy import DDPG, SAC, TD3, GoalFunctions
from OffPolicy.demonstrations import load_demonstrations
from OffPolicy.learner import WeightedRanks
from OffPolicy.replay import Transitions
from parallel_rl.utils import Trajectory, load_state, save_state
from tests.covering import rest_slow
from tests.OffPolicy.probes import Loop, Reach

BOX, ACTIONS = spaces.Box(-np.inf, np.inf, (1,)), spaces.Box(-2, 2, (1,))
OBS, ACTS, REWARDS = np.zeros((1, 3, 1)), np.zeros((1, 2, 1)), np.zeros((1, 2))
AGENTS = pytest.mark.parametrize("agent_class", [DDPG, TD3, SAC])


def save(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return str(path)


def episodes_of_reach(count: int = 20, steps: int = 10) -> dict[str, np.ndarray]:
    """A script that walks to the goal."""
    rng = np.random.default_rng(0)
    place, goal = rng.uniform(-1, 1, (2, count, 1)).astype(np.float32)
    places, actions = [place], []
    for _ in range(steps):
        actions.append(np.clip((goal - places[-1]) / 0.2, -1, 1))
        places.append(np.clip(places[-1] + 0.2 * actions[-1], -1, 1))
    achieved = np.stack(places, axis=1)
    return {
        "acs": np.stack(actions, axis=1),
        "observation": achieved,
        "achieved_goal": achieved,
        "desired_goal": np.repeat(goal[:, None], steps + 1, axis=1),
    }


def test_a_file_becomes_one_trajectory_for_each_episode(tmp_path: Path) -> None:
    terminated = np.array([[False, False, False], [False, True, False]])
    path = save(
        tmp_path / "demos.npz", obs=np.arange(8.0).reshape(2, 4, 1), acs=np.arange(6.0).reshape(2, 3, 1) / 3,
        rew=np.arange(6.0).reshape(2, 3), terminated=terminated,
    )  # fmt: skip
    whole, ended = load_demonstrations(path, BOX, ACTIONS, None)
    assert (whole.obs.tolist(), whole.final_obs.tolist()) == ([[0], [1], [2]], [[3]])
    assert (whole.terminated.tolist(), whole.truncated.tolist()) == ([False] * 3, [False, False, True])
    assert (ended.obs.tolist(), ended.final_obs.tolist(), ended.reward.tolist()) == ([[4], [5]], [[6]], [3, 4])
    assert (ended.terminated.tolist(), ended.truncated.tolist()) == ([False, True], [False, False])


def test_a_dataset_of_minari(monkeypatch: pytest.MonkeyPatch) -> None:
    episode = SimpleNamespace(
        observations=np.arange(4.0)[:, None], actions=np.zeros((3, 1)), rewards=np.arange(3.0),
        terminations=np.array([False, False, True]), truncations=np.zeros(3, bool),
    )  # fmt: skip
    datasets = {"a/b-v0": SimpleNamespace(iterate_episodes=lambda: [episode, episode])}
    monkeypatch.setitem(sys.modules, "minari", SimpleNamespace(load_dataset=datasets.__getitem__))
    first, _ = load_demonstrations("minari:a/b-v0", BOX, ACTIONS, None)
    assert (first.next_obs.tolist(), first.reward.tolist()) == ([[1], [2], [3]], [0, 1, 2])
    assert (first.terminated.tolist(), first.truncated.tolist()) == ([False, False, True], [False] * 3)
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'minari\[hdf5\]'"):
        load_demonstrations("minari:a/b-v0", BOX, ACTIONS, None)


def test_rewards_of_goals_are_computed(tmp_path: Path) -> None:
    path = save(tmp_path / "demos.npz", **episodes_of_reach(3))
    for episode in load_demonstrations(path, Reach.observation_space, Reach.action_space, GoalFunctions.of(Reach())):
        near = np.abs(episode.next_obs["achieved_goal"] - episode.next_obs["desired_goal"])[:, 0] < 0.1
        assert episode.reward.tolist() == (near - 1.0).tolist()
        assert episode.reward[-1] == 0


def test_terminations_of_goals_are_computed_by_a_function_of_single_goals(tmp_path: Path) -> None:
    path = save(tmp_path / "demos.npz", **episodes_of_reach(3))
    near = GoalFunctions(
        Reach().compute_reward, lambda achieved, desired, info: bool(np.linalg.norm(achieved - desired) < 0.1)
    )
    for episode in load_demonstrations(path, Reach.observation_space, Reach.action_space, near):
        assert episode.terminated.tolist() == [False] * (len(episode) - 1) + [True]
        assert episode.reward.tolist() == [-1] * (len(episode) - 1) + [0]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"obs": OBS, "rew": REWARDS}, "has no array acs; it has obs, rew"),
        ({"obs": OBS, "acs": ACTS}, "has no array rew"),
        ({"obs": OBS[:, :2], "acs": ACTS, "rew": REWARDS}, r"shape \(3, 1\)"),
        ({"acs": ACTS, "rew": REWARDS}, "needs obs"),
        ({"obs": OBS, "acs": np.zeros((1, 2)), "rew": REWARDS}, r"needs acs of the shape \(2, 1\) .* and has \(2,\)"),
        ({"obs": OBS, "acs": np.zeros((1, 2, 2)), "rew": REWARDS}, r"needs acs of the shape \(2, 1\)"),
        ({"obs": OBS, "acs": ACTS, "rew": np.zeros((1, 3))}, r"needs rew of the shape \(2,\) .* and has \(3,\)"),
        ({"obs": OBS, "acs": ACTS, "rew": np.zeros((1, 2, 1))}, r"needs rew of the shape \(2,\)"),
        ({"obs": OBS, "acs": ACTS, "rew": REWARDS, "terminated": np.ones((1, 1))}, r"needs terminated of the shape"),
        ({"obs": OBS, "acs": ACTS, "rew": np.zeros((3, 2))}, r"as many episodes .* obs \(1, 3, 1\), .* rew \(3, 2\)"),
        ({"obs": OBS, "acs": ACTS * np.nan, "rew": REWARDS}, "acs has NaN, infinite or non-numeric values"),
        ({"obs": OBS, "acs": ACTS + 50, "rew": REWARDS}, "acs from 50 to 50, but actions are from -2 to 2: clip or"),
        ({"obs": OBS, "acs": ACTS - 2.01, "rew": REWARDS}, r"acs from -2\.01 to -2\.01, but actions"),
        ({"obs": OBS, "acs": ACTS, "rew": REWARDS + np.inf}, "rew has NaN, infinite or non-numeric values"),
        ({"obs": OBS[:0], "acs": ACTS[:0], "rew": REWARDS[:0]}, "has no episodes"),
        ({"obs": OBS[:, :1], "acs": ACTS[:, :0], "rew": REWARDS[:, :0]}, "has an episode without a step"),
        ({"acs": np.array([{"a": 1}], object)}, "pickled objects, which are not loaded"),
    ],
)
def test_a_file_that_does_not_fit_is_named(arrays: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = save(tmp_path / "demos.npz", **arrays)
    with pytest.raises(ValueError, match=words) as error:
        load_demonstrations(path, BOX, ACTIONS, None)
    assert path in str(error.value)


def test_actions_may_be_outside_by_rounding(tmp_path: Path) -> None:
    path = save(tmp_path / "demos.npz", obs=OBS, acs=ACTS + 2.0001, rew=REWARDS)
    (demonstration,) = load_demonstrations(path, BOX, ACTIONS, None)
    assert demonstration.action.tolist() == [[2.0001]] * 2


def test_other_sources_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("hello")
    np.save(tmp_path / "array.npy", ACTS)
    for name in ("text.npz", "array.npy"):
        with pytest.raises(ValueError, match=rf"{name} is not an \.npz file$"):
            load_demonstrations(tmp_path / name, BOX, ACTIONS, None)
    with pytest.raises(ValueError, match=r"is not an \.npz file \(.*directory"):
        load_demonstrations(tmp_path, BOX, ACTIONS, None)


def test_only_training_needs_the_demonstrations(tmp_path: Path) -> None:
    agent = SAC(BOX, ACTIONS, demo_path=tmp_path / "none.npz", hidden_sizes=(4,), seed=0)
    agent.save_weights(tmp_path)
    loaded = SAC.load(tmp_path)
    assert loaded.get_action(np.ones(1), deterministic=True) == agent.get_action(np.ones(1), deterministic=True)
    with pytest.raises(FileNotFoundError, match=r"no demonstrations at .*none\.npz: .* --override demo_path=PATH"):
        loaded.observe([])


@AGENTS
def test_cloning_loss_against_a_literal_and_its_filter(agent_class: Any) -> None:
    agent = agent_class(BOX, ACTIONS, hidden_sizes=(4,), seed=0)
    obs, shown = torch.tensor([[0.5], [-1.0]]), torch.tensor([[0.9], [-0.3]])
    with torch.no_grad():
        own = agent.policy.choose(obs, deterministic=True)
    zeros = torch.zeros(2)
    with_another = Transitions(*[torch.cat([part[:1], part]) for part in (obs, shown, zeros, obs, zeros, zeros)])
    difference = own - shown

    for q_filter, counts in ((False, torch.ones(2, 1)), (True, torch.tensor([[1.0], [0.0]]))):
        agent.config = replace(agent.config, demo_batch_size=2, demo_weight=3.0, q_filter=q_filter)
        agent.critic_learner.network = lambda obs, actions, count: actions.T[:count]  # prefers greater actions
        gradient = torch.ones(3, 1)
        losses = agent.cloning_loss(with_another, torch.cat([own[:1], own]), gradient, WeightedRanks(demos=2))
        assert losses["cloning_loss"] == pytest.approx(3 * (counts * difference**2).sum().item() / 2)
        torch.testing.assert_close(gradient - 1, torch.cat([torch.zeros(1, 1), 3 * counts * difference]))


@pytest.mark.parametrize("agent_class", rest_slow(TD3, DDPG, SAC))
def test_the_critic_learns_from_demonstrated_transitions_too(agent_class: Any, tmp_path: Path) -> None:
    path = save(
        tmp_path / "demos.npz", obs=np.ones((1, 2, 1)), acs=np.full((1, 1, 1), 2.0), rew=np.full((1, 1), 5.0),
        terminated=np.ones((1, 1), bool),
    )  # fmt: skip
    agent = agent_class(BOX, ACTIONS, hidden_sizes=(8,), seed=0, lr=0.01, learning_starts=1, batch_size=4,
                        demo_path=path, demo_batch_size=4, demo_weight=100.0)  # fmt: skip
    zeros, ends = np.zeros((1, 1), np.float32), np.ones(1, bool)
    agent.observe([Trajectory(0, zeros, zeros, np.zeros(1), ends, ~ends, zeros)])
    agent.steps += 400
    assert agent.update(0.0)["cloning_loss"] > 0
    obs, shown = torch.ones(1, 1), torch.ones(1, 1)
    assert agent.critic_learner.network(obs, shown)[0].item() == pytest.approx(5, abs=0.5)
    assert agent.get_action(np.ones(1), deterministic=True) == pytest.approx(2, abs=0.2), "the demonstrated action"


def test_a_resumed_agent_samples_the_same_demonstrations(tmp_path: Path) -> None:
    path = save(tmp_path / "demos.npz", **episodes_of_reach())
    agent, other = (
        TD3.for_env(Reach(), seed=seed, hidden_sizes=(8,), learning_starts=30, batch_size=8, demo_path=path,
                    hindsight="future")
        for seed in (0, 1)
    )  # fmt: skip
    Loop(agent, lambda: gym_limited(Reach())).run(60)
    save_state(tmp_path / "state", agent.state())
    other.load_state(load_state(tmp_path / "state"))
    for one in (agent, other):
        Loop(one, lambda: gym_limited(Reach()), seed=7).run(40)
    for name, learner in agent.learners.items():
        assert torch.equal(other.learners[name].vector, learner.vector)


def success_rate(agent: Any) -> float:
    env, reached = Reach(), 0
    for seed in range(30):
        obs, _ = env.reset(seed=seed)
        for _ in range(12):
            obs, *_, info = env.step(agent.get_action(obs, deterministic=True))
        reached += info["is_success"]
    return reached / 30


@pytest.mark.parametrize("agent_class", rest_slow(DDPG, TD3, SAC))
def test_demonstrations_make_learning_faster(agent_class: Any, tmp_path: Path) -> None:
    path = save(tmp_path / "demos.npz", **episodes_of_reach())
    rates = {}
    for source in (None, path):
        agent = agent_class.for_env(Reach(), seed=0, hidden_sizes=(32, 32), learning_starts=50, batch_size=32, lr=1e-3,
                                    demo_path=source, demo_weight=10.0, gamma=0.9, clip_return=True,
                                    hindsight="future")  # fmt: skip
        Loop(agent, lambda: gym_limited(Reach()), num_envs=2).run(250)
        rates[source] = success_rate(agent)
    assert rates[path] >= 0.9
    assert rates[path] >= rates[None] + 0.3


def gym_limited(env: Any) -> Any:
    from gymnasium.wrappers import TimeLimit

    return TimeLimit(env, 12)
