"""What all off-policy agents guarantee."""

import copy
import pickle
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv

from benchmarks.bit_flip import BitFlip
from OffPolicy import DDPG, DQN, SAC, TD3, DQNConfig, GoalFunctions, OffPolicyAgent, SACConfig, Transitions
from parallel_rl.networks import found_device
from parallel_rl.utils import Trajectory, load_state, save_state
from PPO import PPO
from tests.OffPolicy.probes import Identity, Loop, OneState
from tests.OffPolicy.test_her import SPACE as GOALS
from tests.OffPolicy.test_her import piece, reached, reward

OBSERVATIONS, CHOICES, BOX = spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(3), spaces.Box(-2, 2, (2,))
SMALL: dict[str, Any] = {"hidden_sizes": (8,), "buffer_size": 300, "batch_size": 16, "learning_starts": 20, "seed": 0}
AGENTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "dqn": (DQN, {"dueling": True, "n_step": 3}),
    "dqn-prioritized": (DQN, {"prioritized": True}),
    "ddpg": (DDPG, {"action_noise": "ou_0.2", "parameter_noise": 0.1}),
    "td3": (TD3, {"normalize_obs": True, "train_freq": 30}),
    "sac": (SAC, {}),
    "sac-prioritized": (SAC, {"prioritized": True, "n_step": 2}),
    "sac-hindsight": (SAC, {"hindsight": "future"}),
}
ALL = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "sac-prioritized" else ()) for name in AGENTS]
)


def agent_of(name: str, **changes: Any) -> Any:
    kind, settings = AGENTS[name]
    if "hindsight" in name:
        functions = GoalFunctions(reward, reached)
        return kind(GOALS, spaces.Box(-1, 1, (1,)), goal_functions=functions, **(SMALL | settings | changes))
    return kind(OBSERVATIONS, CHOICES if kind is DQN else BOX, **(SMALL | settings | changes))


def experience(agent: OffPolicyAgent, pieces: int, seed: int = 0) -> list[list[Trajectory]]:
    """Trajectories of 7 steps of two environments; some steps end an episode."""
    rng = np.random.default_rng(seed)
    result = []
    for number in range(pieces):
        if agent.observation_space == GOALS:
            result.append([piece(7 * number, 7, number % 3 == 2, env_id) for env_id in range(2)])
            continue
        both = []
        for env_id in range(2):
            obs = rng.normal(size=(8, 3)).astype(np.float32)
            actions = rng.integers(3, size=7) if agent.action_space == CHOICES else rng.uniform(-2, 2, (7, 2))
            ends = (np.arange(7) == 6) & (number % 3 == 2)
            over = (ends & bool(env_id), ends & (not env_id))
            both.append(Trajectory(env_id, obs[:7], actions, np.float32(rng.normal(size=7)), *over, obs[1:][[-1]]))
        result.append(both)
    return result


def feed(agent: OffPolicyAgent, pieces: list[list[Trajectory]]) -> list[Any]:
    """Observe, act and update; return all actions and metrics."""
    told = []
    for trajectories in pieces:
        state = agent.initial_state(len(trajectories[0]))
        told.append(agent.act(trajectories[0].obs, state=state)[0].tolist())
        agent.observe(trajectories)
        if agent.steps_wanted() <= 0:
            told.append(agent.update(0.25))
    return told


@ALL
def test_a_saved_agent_continues_bit_identical(name: str, tmp_path: Any) -> None:
    agent = agent_of(name)
    pieces = experience(agent, 8)
    feed(agent, pieces[:4])
    save_state(tmp_path / "state", agent.state())
    other = agent_of(name, seed=99)
    other.load_state(load_state(tmp_path / "state"))
    copied = copy.deepcopy(agent)
    told = feed(agent, pieces[4:])
    assert agent.updates > 20
    for again in (other, copied):
        assert feed(again, pieces[4:]) == told
        for learner, own in agent.learners.items():
            assert torch.equal(again.learners[learner].vector, own.vector)


@ALL
def test_an_agent_saved_without_its_replay_buffer_refills_it_before_it_learns(name: str, tmp_path: Any) -> None:
    agent = agent_of(name, replay_in_checkpoint=False)
    pieces = experience(agent, 14)
    feed(agent, pieces[:7])
    save_state(tmp_path / "state", agent.state())
    other = agent_of(name, seed=99, replay_in_checkpoint=False)
    feed(other, pieces[:3])
    with pytest.warns(RuntimeWarning, match="the replay buffer was not saved: 20 steps"):
        other.load_state(load_state(tmp_path / "state"))
    assert (len(other.replay), other.updates, other.steps) == (0, agent.updates, agent.steps)
    before = other.steps_wanted()
    assert before >= 20
    updates = []
    for trajectories in pieces[7:]:
        feed(other, [trajectories])
        updates.append(other.updates - agent.updates)
    assert updates[0] == 0  # 14 steps
    most = other.utd * (7 * 14 - 20)
    assert most - 40 * other.utd <= updates[-1] <= most + 1, "no update makes up for those that were not made"
    assert (tmp_path / "state").stat().st_size < 40_000
    copied = copy.deepcopy(other)
    assert len(copied.replay) == len(other.replay) > 0


@ALL
def test_the_state_of_another_agent_is_refused_and_changes_nothing(name: str) -> None:
    agent, other = agent_of(name), agent_of(name, hidden_sizes=(9,))
    before = pickle.dumps(agent.state())
    with pytest.raises(ValueError, match="parameters of the"):
        agent.load_state(other.state())
    with pytest.raises(ValueError, match="is not that of a"):
        agent.load_state({"something": 1})
    assert pickle.dumps(agent.state()) == before


@pytest.mark.parametrize(("utd", "updates"), [(1.0, 60), (0.25, 15), (2.0, 120)])
def test_the_number_of_updates_does_not_depend_on_the_number_of_environments(utd: float, updates: int) -> None:
    for num_envs in (1, 8):
        agent = DQN.for_env(OneState(False), **(SMALL | {"hidden_sizes": ()}), utd=utd)
        Loop(agent, partial(OneState, False), num_envs).run(80)
        assert agent.updates == updates


def test_metrics_are_means_over_the_updates_that_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The actor of TD3 is updated, and has a loss, only in every second update."""
    agent = agent_of("td3", policy_delay=2)
    learn_from, seen = agent.learn_from, []

    def noted(*arguments: Any) -> Any:
        seen.append(learn_from(*arguments))
        return seen[-1]

    monkeypatch.setattr(agent, "learn_from", noted)
    (metrics,) = [row for row in feed(agent, experience(agent, 5)) if isinstance(row, dict)]
    assert metrics.pop("lr") == agent.lr
    losses = {name: [row[name] for row, _ in seen if name in row] for name in metrics}
    assert len(losses["critic_loss"]) == 2 * len(losses["actor_loss"]) > 20
    assert metrics == pytest.approx({name: np.mean(values) for name, values in losses.items()})


def test_updates_can_be_done_in_rounds() -> None:
    agent = DQN.for_env(OneState(False), **(SMALL | {"hidden_sizes": ()}), utd=0.5, train_freq=16)
    loop = Loop(agent, partial(OneState, False))
    rounds = loop.run(20 + 16 * 3)
    assert len(rounds) == 3
    assert agent.updates == 24


@ALL
def test_weights_go_into_files_and_back(name: str, tmp_path: Any) -> None:
    agent, other = agent_of(name), agent_of(name, seed=5)
    pieces = experience(agent, 6)
    feed(agent, pieces)
    agent.save_weights(tmp_path / "weights")
    other.load_weights(tmp_path / "weights")
    obs = pieces[0][0].obs
    np.testing.assert_array_equal(agent.get_action(obs, deterministic=True), other.get_action(obs, deterministic=True))
    for learner in other.learners.values():
        assert all(map(torch.equal, learner.target.parameters(), learner.network.parameters()))
    with pytest.raises(ValueError, match="hidden_sizes is"):
        agent_of(name, hidden_sizes=(4,)).load_weights(tmp_path / "weights")


@ALL
def test_an_actor_stays_as_it_is_while_the_agent_learns(name: str, tmp_path: Any) -> None:
    agent = agent_of(name)
    pieces = experience(agent, 7)
    feed(agent, pieces[:5])
    actor, obs = pickle.loads(pickle.dumps(agent.actor())), pieces[0][0].obs
    before = agent.get_action(obs, deterministic=True)
    weights = {key: part.clone() for key, part in actor.state_dict().items()}
    feed(agent, pieces[5:])
    np.testing.assert_array_equal(actor.get_action(obs, deterministic=True), before)
    assert any(not torch.equal(part, weights[key]) for key, part in agent.policy.state_dict().items())
    actor.save_weights(tmp_path)
    agent.load_weights(tmp_path)
    np.testing.assert_array_equal(agent.get_action(obs, deterministic=True), before)
    assert actor.initial_state(3) is None


@pytest.mark.filterwarnings("ignore:invalid value encountered in subtract:RuntimeWarning")
@pytest.mark.parametrize("name", ["dqn", "sac"])
def test_a_loss_that_is_not_finite_is_an_error_that_names_it(name: str) -> None:
    agent = agent_of(name)
    pieces = experience(agent, 4)
    pieces[1][0].reward[:] = np.inf
    with pytest.raises(FloatingPointError, match=r"_loss.*became infinite or NaN by update \d+ \(then also rewards"):
        feed(agent, pieces)


@pytest.mark.parametrize("name", ["dqn", "ddpg", "td3", "sac"])
def test_an_observation_of_nan_is_an_error_that_names_the_row_and_so_are_weights_of_nan(name: str) -> None:
    agent = agent_of(name, learning_starts=0)
    obs, state = np.zeros((9, 3), np.float32), agent.initial_state(9)
    for act in (agent.get_action, agent.actor().get_action, partial(agent.act, state=state)):
        obs[7] = np.nan
        with pytest.raises(ValueError, match="the observation is NaN or infinite in row 7 of 9"):
            act(obs)
        obs[7] = 0
        act(obs)
    for learner in agent.learners.values():
        learner.vector.fill_(torch.nan)
    for act in (agent.get_action, agent.actor().get_action):
        with pytest.raises(ValueError, match="though the observations are finite: the weights are not"):
            act(obs)


@pytest.mark.parametrize("name", ["dqn", "td3", "sac"])
@pytest.mark.parametrize("learning_starts", [0, 20])
def test_for_a_single_observation_there_is_a_single_action(name: str, learning_starts: int) -> None:
    agent = agent_of(name, learning_starts=learning_starts)
    actions = [agent.act(np.zeros(3, np.float32))[0], agent.get_action(np.zeros(3, np.float32))]
    assert [np.shape(action) for action in actions] == [agent.action_space.shape] * 2


@pytest.mark.parametrize("name", ["td3", "sac"])
def test_noise_from_before_learning_starts_gives_random_actions_after_it(name: str) -> None:
    agent, other = agent_of(name), agent_of(name)
    obs, noise = np.zeros((14, 3), np.float32), agent.noise(14)
    before, _ = other.act(obs, noise=other.noise(14))
    for trajectories in experience(agent, 2):
        agent.observe(trajectories)
    assert agent.steps > agent.learning_starts
    np.testing.assert_array_equal(agent.act(obs, noise=noise)[0], before)


@ALL
def test_agents_do_not_use_global_random_streams(name: str) -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    agent = agent_of(name)
    feed(agent, experience(agent, 4))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002


def test_observations_are_normalized_but_stored_as_they_are() -> None:
    agent = agent_of("td3", obs_clip=0.5)
    rows = np.random.default_rng(0).normal(3.0, 2.0, (50, 3)).astype(np.float32)
    no = np.zeros(50, bool)
    agent.observe([Trajectory(0, rows, np.zeros((50, 2)), np.zeros(50), no, no, rows[:1])])
    np.testing.assert_allclose(agent.policy.obs_norm.mean, rows.mean(axis=0), rtol=1e-5)
    seen = agent.policy.columns(rows)
    np.testing.assert_allclose(seen, np.clip((rows - rows.mean(axis=0)) / rows.std(axis=0), -0.5, 0.5), atol=1e-4)
    np.testing.assert_array_equal(agent.replay.obs[:50], rows)


def test_values_of_sparse_rewards_stay_in_their_range() -> None:
    agent = agent_of("td3", gamma=0.9)
    batch = agent._batch(sampled(agent))
    agent.clip_return = True
    clipped = agent.target(batch, torch.tensor([500.0, -500.0]).repeat(8))
    assert clipped.min() == pytest.approx(-10)
    assert clipped.max() == 0


@pytest.mark.parametrize("name", ["dqn", "td3", "sac-prioritized"])
@pytest.mark.parametrize(
    ("rewards", "words"),
    [
        ((-1.0, 0.0), None),
        ((0.5, 0.5), r"rewards from -1 to 0 in all steps, but (one had 0\.5|. of them had .*): leave it out"),
        ((-4.0, 0.0), "rewards from -1 to 0 in all steps, but (one|. of them) had -"),
    ],
)
def test_clipped_returns_need_rewards_from_minus_1_to_0(
    name: str, rewards: tuple[float, ...], words: str | None
) -> None:
    agent = agent_of(name, clip_return=True)
    for trajectories in experience(agent, 4):
        for trajectory in trajectories:
            trajectory.reward[:] = np.tile(rewards, 4)[:7]
        agent.observe(trajectories)
    if words is None:
        assert agent.update(0.0)
        return
    with pytest.raises(ValueError, match=words):
        agent.update(0.0)
    agent.clip_return = False
    assert agent.update(0.0)


def sampled(agent: Any) -> Transitions:
    feed(agent, experience(agent, 2))
    return agent.sampler.sample(agent.config, agent.batch_size, 0.0)[1]


def test_importance_weights_correct_all_of_the_bias_at_the_end_of_the_run() -> None:
    agent = agent_of("dqn-prioritized", priority_beta=0.4)
    feed(agent, experience(agent, 4))
    for progress, beta in ((0.0, 0.4), (0.5, 0.7), (1.0, 1.0)):
        rows, transitions = agent.sampler.sample(agent.config, agent.batch_size, progress)
        assert transitions.weight.min() < 0.9
        np.testing.assert_array_equal(transitions.weight, agent.sampler.priorities.weights(rows, beta))


@pytest.mark.parametrize(("alpha", "uniform"), [(0.0, True), (1.0, False)])
def test_priority_alpha_is_that_of_the_priorities(alpha: float, uniform: bool) -> None:
    agent = agent_of("dqn-prioritized", priority_alpha=alpha)
    feed(agent, experience(agent, 4))
    leaves = agent.sampler.priorities.tree.leaves
    assert ({*leaves.tolist()} == {0.0, 1.0}) == uniform


def test_rewards_are_scaled() -> None:
    agent, scaled = agent_of("td3"), agent_of("td3", reward_scale=0.1)
    batches = [one._batch(sampled(one)) for one in (agent, scaled)]
    torch.testing.assert_close(0.1 * batches[0].reward, batches[1].reward)


@ALL
def test_the_learning_rate_is_annealed_over_the_run(name: str) -> None:
    """The first step of Adam changes a weight by at most the learning rate, and some weight by nearly as much."""
    linear, as_function = {"anneal_lr": True, "lr": 1e-3}, {"lr": lambda remaining: 1e-3 * remaining}
    for progress, expected, settings in ((0.0, 1e-3, linear), (0.75, 0.25e-3, as_function), (1.0, 0.0, linear)):
        agent = agent_of(name, utd=0.05, train_freq=1, **settings)
        for trajectories in experience(agent, 3):
            agent.observe(trajectories)
        before = [learner.vector.clone() for learner in agent.learners.values()]
        agent.update(progress)
        assert agent.updates == 1
        moves = [
            (learner.vector - old).abs().max() for learner, old in zip(agent.learners.values(), before, strict=True)
        ]
        assert float(max(moves)) == pytest.approx(expected, rel=0.02)


def test_signature_has_the_settings_of_a_checkpoint() -> None:
    signature = agent_of("sac").signature()
    assert signature["agent"] == "SAC"
    assert signature["batch_size"] == 16
    assert "device" not in signature
    assert signature != agent_of("sac", gamma=0.5).signature()


def test_an_agent_is_made_for_its_environment() -> None:
    agent = DQN.for_env(Identity(False), **SMALL)
    agent.check_fits(Identity(False))
    with pytest.raises(ValueError, match="the DQN was made for"):
        agent.check_fits(Identity(True))
    assert SAC.for_env("Pendulum-v1", **SMALL).action_dim == 1
    assert DQN.for_env(partial(Identity, False), **SMALL).action_space == Identity(False).action_space


class OneSpace(gym.Env):
    """An environment with an observation space and five actions."""

    action_space = spaces.Discrete(5)

    def __init__(self, observation_space: spaces.Space) -> None:
        self.observation_space = observation_space


def test_only_bounds_of_observations_may_differ_from_those_of_the_agents_environment() -> None:
    bounded = spaces.Box(-1, 1, (2,), np.float32)
    agent = DQN.for_env(OneSpace(spaces.Dict(a=bounded, b=spaces.Discrete(3))), **SMALL)
    for box in (spaces.Box(-np.inf, np.inf, (2,), np.float32), spaces.Box(0, 9, (2,), np.float64)):
        agent.check_fits(OneSpace(spaces.Dict(a=box, b=spaces.Discrete(3))))
    others = [
        spaces.Dict(a=spaces.Box(-1, 1, (1, 2), np.float32), b=spaces.Discrete(3)),
        spaces.Dict(a=spaces.Box(-1, 1, (2,), np.int8), b=spaces.Discrete(3)),
        spaces.Dict(a=bounded, b=spaces.Discrete(3, start=1)),
        spaces.Dict(a=bounded, c=spaces.Discrete(3)),
    ]
    for space in others:
        with pytest.raises(ValueError, match="the DQN was made for"):
            agent.check_fits(OneSpace(space))


@pytest.mark.parametrize("kind", [PPO, DQN])
def test_for_env_closes_the_environment_that_it_makes_and_no_other(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[gym.Env] = []
    monkeypatch.setattr(CartPoleEnv, "close", lambda env: closed.append(env))  # noqa: PLW0108
    own, settings = CartPoleEnv(), {"hidden_sizes": (8,)}
    kind.for_env(own, **settings)
    assert closed == []
    kind.for_env(lambda: own, **settings)
    assert closed == [own]
    kind.for_env("CartPole-v1", **settings)
    assert len(closed) == 2


def test_spaces_without_elements_are_refused() -> None:
    with pytest.raises(TypeError, match=r"the observation space Dict\(\) is not supported: it has no elements"):
        DQN(spaces.Dict(), CHOICES, **SMALL)
    with pytest.raises(TypeError, match="SAC needs a Box of float actions"):
        SAC(OBSERVATIONS, spaces.Box(-1, 1, (0,)), **SMALL)


def test_hindsight_needs_goals() -> None:
    with pytest.raises(ValueError, match="hindsight needs"):
        DQN.for_env(Identity(False), hindsight="future")
    with pytest.raises(ValueError, match="n_step=1"):
        DQN.for_env(BitFlip(3), hindsight="future", n_step=2)


@pytest.mark.parametrize(
    ("kind", "settings", "what"),
    [
        (DQN, {"gamma": 2}, "gamma"),
        (TD3, {"action_noise": "pink_1"}, "action_noise"),
        (SAC, {"tau": 0}, "tau"),
        (SAC, {"clip_return": True, "gamma": 1}, "gamma < 1"),
        (SAC, {"alpha": "auto"}, "alpha must be a number, or be left out, not 'auto'"),
        (TD3, {"action_noise": None}, "action_noise must be a text such as normal_0.1, ou_0.2 or none, not None"),
        (DQN, {"seed": -1}, "seed must be finite and not negative, not -1"),
        (SAC, {"seed": 1.5}, "seed must be a whole number, not 1.5"),
    ],
)
def test_bad_settings_are_named(kind: Any, settings: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        kind.for_env(Identity(kind is not DQN), **settings)


def test_a_setting_that_may_change_counts_from_then_on() -> None:
    agent = agent_of("sac")
    agent.batch_size = 4
    assert len(sampled(agent).reward) == 4
    with pytest.raises(AttributeError, match="buffer_size cannot be changed"):
        agent.buffer_size = 10


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(TypeError, match="did you mean 'batch_size'"):
        DQN.for_env(Identity(False), batchsize=3)
    for kind, theirs, ours in ((SAC, "ent_coef", "alpha"), (DQN, "exploration_final_eps", "epsilon_end")):
        with pytest.raises(TypeError, match=f"'{theirs}': did you mean '{ours}'"):
            kind.for_env("CartPole-v1", **{theirs: 0.1})
    with pytest.raises(AttributeError, match="DQN has no setting 'exploration_rate': epsilon of DQN"):
        agent_of("dqn").exploration_rate = 0.1
    with pytest.raises(AttributeError, match="no attribute 'num_timesteps': steps_done of the trainer"):
        print(agent_of("sac").num_timesteps)
    with pytest.raises(AttributeError, match="SAC has no setting 'gama': did you mean 'gamma'"):
        agent_of("sac").gama = 0.3


@pytest.mark.parametrize(
    ("kind", "theirs", "words"),
    [
        (SAC, "ent_coef", "did you mean 'alpha'?"),
        (DQN, "exploration_final_eps", "did you mean 'epsilon_end'?"),
        (TD3, "n_sampled_goal", "did you mean 'replay_k'?"),
        (SAC, "goal_selection_strategy", "did you mean 'hindsight'?"),
        (SAC, "action_noise", "only DDPG and TD3 add noise to actions"),
        (SAC, "target_update_interval", "only DQN has it; the other agents update their targets by tau"),
        (DQN, "end_e", "did you mean 'epsilon_end'?"),
        (DQN, "target_network_frequency", "did you mean 'target_update_interval'? (in updates)"),
        (TD3, "noise_clip", "did you mean 'target_noise_clip'?"),
        (TD3, "random_steps", "did you mean 'learning_starts'?"),
        (TD3, "parameter_noise", "only DDPG adds noise to parameters"),
        (SAC, "q_lr", "did you mean 'lr'?"),
        (SAC, "autotune", "SAC learns its temperature, unless alpha= sets it"),
    ],
)
def test_a_setting_of_another_library_is_an_error_that_names_ours(kind: Any, theirs: str, words: str) -> None:
    with pytest.raises(TypeError) as caught:
        kind.for_env("CartPole-v1", **{theirs: 0.1})
    assert str(caught.value).endswith(f"'{theirs}': {words}")


def test_a_whole_config_excludes_single_settings_and_other_agents() -> None:
    config = DQNConfig(gamma=0.5, hidden_sizes=(4,), buffer_size=100)
    assert DQN.for_env("CartPole-v1", config=config).config == DQN(OBSERVATIONS, CHOICES, config).config == config
    with pytest.raises(TypeError, match="DQN takes either config= or single settings: gamma"):
        DQN.for_env("CartPole-v1", config=config, gamma=0.9)
    with pytest.raises(TypeError, match="DQN takes either config= or single settings: gamma"):
        DQN(OBSERVATIONS, CHOICES, config, gamma=0.9)
    for make in (partial(DQN, OBSERVATIONS, CHOICES), partial(DQN.for_env, "CartPole-v1")):
        with pytest.raises(TypeError, match="DQN takes a DQNConfig, not a SACConfig"):
            make(config=SACConfig())


def test_dqn_learns_from_images() -> None:
    """An image of bytes is stored as bytes, and the network learns to distinguish a bright one from a dark one."""
    space = spaces.Box(0, 255, (10, 10, 2), np.uint8)
    agent = DQN(space, CHOICES, **(SMALL | {"gamma": 0.0, "lr": 1e-2, "learning_starts": 0, "utd": 1}))
    rng = np.random.default_rng(0)
    for _ in range(10):
        bright = rng.integers(2, size=8)
        obs = (bright[:, None, None, None] * 200 + rng.integers(0, 50, (8, 10, 10, 2))).astype(np.uint8)
        no = np.zeros(8, bool)
        agent.observe([Trajectory(0, obs, rng.integers(3, size=8), np.float32(bright), no, ~no, obs)])
        agent.update(0.0)
    assert agent.replay.obs.dtype == np.uint8
    pictures = np.stack([np.full((10, 10, 2), 20, np.uint8), np.full((10, 10, 2), 220, np.uint8)])
    with torch.no_grad():
        dark, light = agent.q.network(agent.policy.columns(agent.policy.features.rows(pictures)[0])).mean(dim=1)
    assert light > dark + 0.5


@ALL
def test_all_networks_are_on_the_device(name: str) -> None:
    agent = agent_of(name, device="meta", normalize_obs=True)
    assert {tensor.device.type for tensor in agent.policy.state_dict().values()} == {"meta"}


@pytest.mark.parametrize("make", [partial(agent_of, "sac"), partial(PPO, False, 4, 2)], ids=["sac", "ppo"])
def test_device_auto_is_cuda_if_torch_finds_a_gpu(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for there, device in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr("torch.cuda.is_available", lambda there=there: there)
        assert found_device("auto") == device
    agent = make(device="auto")
    assert str(agent.device) == agent.config.device == "cpu"


@pytest.mark.parametrize(("device", "fault"), [("cuda:99", "finds no GPU"), ("gpu", "one that torch knows")])
@pytest.mark.parametrize("make", [partial(agent_of, "dqn"), partial(PPO, False, 4, 2)], ids=["dqn", "ppo"])
def test_a_device_that_is_not_there_is_named(
    make: Any, device: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match=fault):
        make(device=device)
