"""PPO: its actions, its learning, its saved weights."""

import copy
import math
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv
from torch.nn.utils import parameters_to_vector

from parallel_rl.networks import Adam
from parallel_rl.utils import Trajectory, torch_threads
from PPO import PPO, ActorCritic, Memory, losses, update
from PPO.fast.gradient import AnalyticGradient
from PPO.memory import Rows
from PPO.objective import Objective


def discrete(**kwargs: Any) -> PPO:
    return PPO(False, 4, 3, **({"batch_size": 8, "mini_batch_size": 4, "seed": 0} | kwargs))


def continuous(**kwargs: Any) -> PPO:
    return PPO(True, 4, 2, [2.0, 0.5], **({"batch_size": 8, "mini_batch_size": 4, "seed": 0} | kwargs))


def states(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, 4)).astype(np.float32)


def trajectory(ppo: PPO, rows: int, seed: int = 0, *, stored: bool = True, **fields: Any) -> Trajectory:
    """Return a trajectory that stops within an episode, with actions that the agent sampled itself."""
    obs = states(rows, seed)
    action, extras = ppo.act(obs)
    defaults: dict[str, Any] = {
        "env_id": 0,
        "reward": np.random.default_rng(seed).normal(size=rows).astype(np.float32),
        "terminated": np.zeros(rows, bool),
        "truncated": np.zeros(rows, bool),
        "final_obs": states(1, seed + 1),
    }
    return Trajectory(obs=obs, action=action, extras=extras if stored else {}, **(defaults | fields))


BOTH = pytest.mark.parametrize("make", [discrete, continuous])
Make = Callable[..., PPO]


def test_defaults_and_order_are_the_public_contract() -> None:
    ppo = PPO(False, 4, 2, None, 0.001, 7, 0.2, 0.95, 0.995, 1024, 64, False, 0.001)
    expected = {
        "is_continuous": False, "observ_dim": 4, "action_dim": 2, "action_scaling": None, "lr": 0.001, "k_epochs": 7,
        "policy_clip": 0.2, "GAE_lambda": 0.95, "gamma": 0.995, "batch_size": 1024, "mini_batch_size": 64,
        "use_RND": False, "beta": 0.001,
    }  # fmt: skip
    assert {name: getattr(ppo, name) for name in expected} == expected
    default = PPO(False, 4, 2)
    assert {name: getattr(default, name) for name in expected} == expected
    assert isinstance(ppo.memory, Memory)
    assert isinstance(ppo.policy, ActorCritic)


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_actions_are_numpy_of_the_right_shape(convert: Callable[[np.ndarray], Any]) -> None:
    choice, movement = discrete(), continuous()
    for rows in (1, 5):
        action = choice.get_action(convert(states(rows)))
        assert (action.shape, action.dtype) == ((rows,), np.int64)
        action = movement.get_action(convert(states(rows)))
        assert (action.shape, action.dtype) == ((rows, 2), np.float32)
    assert choice.get_action(convert(states(1)[0])).shape == ()
    assert movement.get_action(convert(states(1)[0])).shape == (2,)


def test_images_are_flattened() -> None:
    ppo = PPO(False, 24, 3)
    assert ppo.get_action(np.zeros((7, 4, 6), np.uint8)).shape == (7,)
    assert ppo.get_action(np.zeros((1, 4, 6), np.uint8)).shape == (1,)
    assert ppo.get_action(np.zeros(24)).shape == ()


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 8), (8, 3), (2, 2), (4, 1), ()])
def test_states_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    expected = f"states have shape {shape}, but the agent takes (4,), or (M, 4) for M states"
    with pytest.raises(ValueError, match=re.escape(expected)):
        discrete().get_action(np.zeros(shape))


def test_no_states_are_an_error() -> None:
    with pytest.raises(ValueError, match=re.escape("there are no states: the states have shape (0, 4)")):
        discrete().get_action(np.zeros((0, 4)))


@BOTH
@pytest.mark.filterwarnings("ignore:invalid value encountered in logaddexp:RuntimeWarning")
@pytest.mark.parametrize(
    "kwargs", [{}, {"activation": "relu", "normalize_obs": True}, {"learner": "torch", "core": "gru"}]
)
def test_an_observation_of_nan_is_an_error_that_names_the_row(make: Make, kwargs: dict[str, Any]) -> None:
    ppo = make(**kwargs)
    state = ppo.initial_state(9)
    for rows, said in (([7], "row 7 of 9"), (range(1, 9), "rows 1, 2, 3, 4, 5, ... of 9")):
        obs = states(9)
        obs[rows, 2] = np.nan
        with pytest.raises(ValueError, match=f"the observation is NaN or infinite in {said}"):
            ppo.get_action(obs, deterministic=True, state=state)
        with pytest.raises(ValueError, match="the observation is NaN"):
            ppo.act(obs, state=state)
    with torch.no_grad():
        next(ppo.policy.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match="though the observations are finite: the weights are not"):
        ppo.act(states(9), state=ppo.initial_state(9))


def test_actions_are_stochastic_by_default() -> None:
    same = np.zeros((200, 4), np.float32)
    assert len(np.unique(discrete().get_action(same))) == 3
    assert len(np.unique(continuous().get_action(same), axis=0)) == 200
    for make in (discrete, continuous):
        assert len(np.unique(make().get_action(same, deterministic=True), axis=0)) == 1


def test_continuous_actions_stay_inside_any_bounds() -> None:
    ppo = PPO(True, 4, 2, [2.0, 0.5], action_offset=[0.0, 3.5], log_std=5.0, seed=0)
    action = ppo.get_action(states(10_000))
    assert (action >= [-2.0, 3.0]).all()
    assert (action <= [2.0, 4.0]).all()
    assert (action.min(axis=0) < [-1.9, 3.05]).all()
    assert (action.max(axis=0) > [1.9, 3.95]).all()


def test_actions_are_elements_of_their_space_whatever_its_bounds() -> None:
    rng, env = np.random.default_rng(0), gym.Env()
    env.observation_space = spaces.Box(-1, 1, (4,))
    for _ in range(60):
        low = rng.normal(size=3) * 10.0 ** rng.integers(-3, 3)
        env.action_space = spaces.Box(low.astype(np.float32), (low + rng.random(3)).astype(np.float32))
        for learner in ("auto", "torch"):
            ppo = PPO.for_env(env, log_std=5.0, learner=learner)
            assert all(env.action_space.contains(action) for action in ppo.get_action(states(50)))


@pytest.mark.parametrize("learner", ["auto", "torch"])
def test_first_actions_with_one_finite_bound_are_inside(learner: Any) -> None:
    env = gym.Env()
    env.observation_space = spaces.Box(-1, 1, (4,))
    low = np.array([5, -np.inf, 20, -1, -np.finfo(np.float32).max], np.float32)
    high = np.array([np.inf, -5, np.finfo(np.float32).max, 1, np.inf], np.float32)
    env.action_space = spaces.Box(low, high)
    ppo = PPO.for_env(env, learner=learner, seed=0)
    action = ppo.get_action(states(2000))
    assert all(env.action_space.contains(row) for row in action)
    assert (((action > low) & (action < high)).mean(axis=0) > [0.8, 0.8, 0.8, 0.6, 0.99]).all()
    np.testing.assert_allclose(ppo.get_action(states(5), deterministic=True), [[6, -6, 21, 0, 0]] * 5, atol=0.1)


def test_discrete_actions_may_start_anywhere() -> None:
    env = gym.Env()
    env.observation_space, env.action_space = spaces.Box(-1, 1, (4,)), spaces.Discrete(3, start=-1)
    for learner in ("auto", "torch"):
        ppo = PPO.for_env(env, batch_size=20, mini_batch_size=20, k_epochs=1, learner=learner, seed=0)
        assert set(ppo.get_action(states(100)).tolist()) == {-1, 0, 1}
        with torch.no_grad():
            ppo.policy.policy_head.logits.weight.mul_(10)
        ppo.memory.append(trajectory(ppo, 20))
        assert abs(ppo.learn()["approx_kl"]) < 1e-6, "the stored log-probabilities are those of other actions"


def test_for_env_reads_the_spaces() -> None:
    ppo = PPO.for_env(gym.make("CartPole-v1"), lr=0.1)
    assert (ppo.is_continuous, ppo.observ_dim, ppo.action_dim, ppo.lr) == (False, 4, 2, 0.1)
    ppo = PPO.for_env(gym.make("Pendulum-v1"))
    assert (ppo.is_continuous, ppo.observ_dim, ppo.action_dim) == (True, 3, 1)
    assert np.abs(ppo.get_action(np.zeros((1000, 3)))).max() > 1.5
    for env in (gym.make_vec("CartPole-v1", 3), "CartPole-v1", CartPoleEnv):
        ppo = PPO.for_env(env)
        assert (ppo.observ_dim, ppo.action_dim) == (4, 2)


@pytest.mark.parametrize(
    ("obs_space", "action_space", "message"),
    [
        (spaces.Text(3), spaces.Discrete(2), "space Text"),
        (spaces.Box(0, 1, (0,)), spaces.Discrete(2), "has no elements"),
        (spaces.Dict(), spaces.Discrete(2), "has no elements"),
        (spaces.Box(0, 1, (2,)), spaces.Dict(a=spaces.Text(2)), "space Text"),
        (spaces.Box(0, 1, (2,)), spaces.Box(0, 9, (2,), np.int64), "Box of floats"),
        (spaces.Box(0, 1, (2,)), spaces.Box(np.zeros(2), np.array([0.0, 1.0]), dtype=np.float64), "leaves no choice"),
        (spaces.Box(0, 1, (2,)), spaces.Box(0, 1e-300, (2,), np.float64), "leaves no choice in float32"),
        (spaces.Box(0, 1, (2,)), spaces.Box(1e9, 1e9 + 1, (2,), np.float64), "leaves no choice in float32"),
    ],
)
def test_for_env_names_a_space_that_is_not_supported(obs_space: Any, action_space: Any, message: str) -> None:
    env = gym.Env()
    env.observation_space, env.action_space = obs_space, action_space
    with pytest.raises(TypeError, match=message):
        PPO.for_env(env)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"lr": 0.0}, "lr must be positive"),
        ({"observ_dim": 0}, "observ_dim must be at least 1"),
        ({"batch_size": -1}, "batch_size must be positive"),
        ({"k_epochs": 0}, "k_epochs must be positive"),
        ({"mini_batch_size": 9}, r"mini_batch_size \(9\) is larger than batch_size \(8\)"),
        ({"gamma": 1.1}, r"gamma must be in \[0, 1\]"),
        ({"GAE_lambda": float("nan")}, r"GAE_lambda must be in \[0, 1\]"),
        ({"beta": -1.0}, "beta must be finite and not negative"),
        ({"action_scaling": [1.0, 2.0, 3.0]}, "action_scaling must be a finite number or 2"),
        ({"action_scaling": "wide"}, "action_scaling must be a finite number or 2 of them, not 'wide'"),
        ({"action_scaling": 0.0}, "action_scaling must be positive"),
        ({"activation": "gelu"}, "activation must be one of"),
        ({"learner": "numpy"}, "learner must be"),
        ({"normalize_advantage": True}, "normalize_advantage must be"),
        ({"core": "rnn"}, "core must be"),
        ({"use_RND": "yes"}, "use_RND must be one of True, False, not 'yes'"),
        ({"observation_space": spaces.Discrete(3)}, "observ_dim=4, but Discrete.* has 3 features"),
        ({"action_space": spaces.Discrete(2)}, "is_continuous=True does not go with Discrete"),
    ],
)
def test_bad_hyperparameters_are_named(bad: dict[str, Any], message: str) -> None:
    arguments = {"is_continuous": True, "observ_dim": 4, "action_dim": 2, "batch_size": 8, "mini_batch_size": 4}
    with pytest.raises(ValueError, match=message):
        PPO(**(arguments | bad))


@BOTH
def test_learn_waits_for_a_batch_then_learns_from_all_and_clears(make: Make) -> None:
    ppo = make(batch_size=8)
    before = [parameter.clone() for parameter in ppo.policy.parameters()]
    ppo.memory.append(trajectory(ppo, 7))
    assert ppo.learn() == {}
    assert len(ppo.memory) == 7
    ppo.memory.append(trajectory(ppo, 6, seed=5))
    metrics = ppo.learn()
    assert len(ppo.memory) == 0
    assert {
        "policy_loss",
        "value_loss",
        "entropy",
        "approx_kl",
        "clip_fraction",
        "explained_variance",
    } <= metrics.keys()
    assert all(np.isfinite(value) for value in metrics.values())
    assert any(not torch.equal(now, then) for now, then in zip(ppo.policy.parameters(), before, strict=True))


def prepared(ppo: PPO) -> Rows:
    """Return the rows that the first epoch of an update learns from."""
    return update.prepare(ppo, ppo.memory.batch()).rows


@BOTH
@pytest.mark.parametrize("learner", ["auto", "torch"])
@pytest.mark.parametrize("stored", [True, False])
def test_the_first_ratio_is_one(make: Make, learner: str, stored: bool) -> None:
    """Whether or not the loop stored the log-probabilities."""
    ppo = make(normalize_obs=True, learner=learner, k_epochs=1, batch_size=20, mini_batch_size=20)
    for seed in (0, 1):
        ppo.memory.append(trajectory(ppo, 20, seed, stored=stored))
        metrics = ppo.learn()
        assert abs(metrics["approx_kl"]) < 1e-6
        assert metrics["clip_fraction"] == 0


def test_stored_log_probs_are_those_of_the_policy_that_acted() -> None:
    """They are used as stored, even if the policy has changed since then."""
    ppo = discrete()
    ppo.memory.append(trajectory(ppo, 20))
    with torch.no_grad():
        for parameter in ppo.policy.actor.parameters():
            parameter.add_(0.5)
    rows = prepared(ppo)
    assert (ppo.policy.distribution(rows.obs).log_prob(rows.raw_action) - rows.log_prob).abs().max() > 1e-3


def test_actions_at_their_bounds_have_finite_metrics() -> None:
    ppo = continuous()
    action = np.tile(np.array([[2.0, -0.5]], np.float32), (10, 1))
    ppo.memory.append(replace(trajectory(ppo, 10, stored=False), action=action))
    assert all(np.isfinite(value) for value in ppo.learn().values())


def constant_value(ppo: PPO, *values: float) -> None:
    """Make the critic predict `values` for every state."""
    with torch.no_grad():
        ppo.policy.value_head.normal.weight.zero_()
        ppo.policy.value_head.normal.bias.copy_(torch.tensor(values))


def test_termination_bootstraps_zero_and_truncation_the_value_of_the_next_observation() -> None:
    """The mistakes: to treat truncation as termination or to ignore it; the last state's value for the next one's."""
    ppo = discrete(GAE_lambda=0.0, gamma=0.5)
    weight = torch.zeros(1, 4)
    weight[0, 0] = 1.0  # V(s) = first feature
    ppo.policy.critic = torch.nn.Identity()  # type: ignore[assignment]
    ppo.policy.value_head.normal = torch.nn.Linear(4, 1)
    with torch.no_grad():
        ppo.policy.value_head.normal.weight.copy_(weight)
        ppo.policy.value_head.normal.bias.zero_()
    ppo._make_optimizers()  # sees that the networks were replaced
    obs = np.zeros((3, 4), np.float32)
    obs[:, 0] = [1.0, 2.0, 3.0]
    final = np.zeros((3, 4), np.float32)
    final[:, 0] = [10.0, 20.0, 30.0]
    experience = trajectory(
        ppo, 3, reward=np.ones(3, np.float32), terminated=np.array([True, False, False]),
        truncated=np.array([False, True, False]), final_obs=final,
    )  # fmt: skip
    ppo.memory.append(replace(experience, obs=obs))
    # 1 - 1;  1 + 20 / 2 - 2;  1 + 30 / 2 - 3
    assert prepared(ppo).advantage.tolist() == pytest.approx([0.0, 9.0, 13.0])


def test_advantages_do_not_leak_between_trajectories() -> None:
    alone, beside = discrete(), discrete()
    alone.memory.append(trajectory(alone, 10))
    beside.memory.append(trajectory(beside, 10))
    beside.memory.append(trajectory(beside, 10, seed=3, reward=np.full(10, 1e6, np.float32)))
    torch.testing.assert_close(prepared(beside).advantage[:10], prepared(alone).advantage)


def test_intrinsic_return_continues_across_episodes() -> None:
    ppo = discrete(use_RND=True, beta=1.0, rnd_warmup=0, GAE_lambda=1.0, gamma=0.9, intrinsic_gamma=0.5)
    constant_value(ppo, 0.0, 0.0)
    ppo.rnd.reward = lambda *_: np.array([0.0, 0.0, 8.0])  # type: ignore[union-attr, method-assign]
    ends = np.array([True, False, False])
    zero = np.zeros(3, np.float32)
    ppo.memory.append(trajectory(ppo, 3, reward=zero, terminated=ends, final_obs=states(2)))
    assert prepared(ppo).advantage.tolist() == pytest.approx([2.0, 4.0, 8.0])


def test_beta_scales_the_intrinsic_advantage() -> None:
    advantages = []
    for beta in (0.0, 1.0, 3.0):
        ppo = discrete(use_RND=True, beta=beta, rnd_warmup=0)
        ppo.memory.append(trajectory(ppo, 10))
        advantages.append(prepared(ppo).advantage)
    torch.testing.assert_close(advantages[2] - advantages[0], 3 * (advantages[1] - advantages[0]))
    assert (advantages[1] - advantages[0]).abs().max() > 1e-3


@BOTH
def test_the_entropy_bonus_has_a_gradient(make: Make) -> None:
    """The mistake: a detached entropy. With no advantage at all, only the bonus can move the policy."""
    ppo = make(entropy_coef=1.0, lr=0.01, log_std=-1.0)
    with torch.no_grad():
        for parameter in ppo.policy.policy_head.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4 / parameter.norm())
    obs = torch.from_numpy(states(64))
    before = ppo.policy.distribution(obs).entropy().mean()
    constant_value(ppo, 0.0)
    ppo.memory.append(trajectory(ppo, 64, reward=np.zeros(64, np.float32)))
    assert not prepared(ppo).advantage.any()
    ppo.learn()
    assert ppo.policy.distribution(obs).entropy().mean() > before + 0.1


def test_minibatches_are_shuffled_and_cover_the_batch_in_equal_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    ppo = discrete(k_epochs=2, mini_batch_size=4)
    ppo.memory.append(trajectory(ppo, 22))
    seen: list[list[list[float]]] = []
    compute = AnalyticGradient.compute

    def spy(self: AnalyticGradient, objective: Objective, rows: Rows, *arguments: Any) -> None:
        seen.append(rows.obs.tolist())
        compute(self, objective, rows, *arguments)

    monkeypatch.setattr(AnalyticGradient, "compute", spy)
    ppo.learn()
    half = len(seen) // 2
    epochs = [[row for part in seen[:half] for row in part], [row for part in seen[half:] for row in part]]
    everything = sorted(states(22).tolist())
    assert sorted(epochs[0]) == sorted(epochs[1]) == everything
    assert epochs[0] != epochs[1] != states(22).tolist() != epochs[0]
    assert {len(part) for part in seen} <= {3, 4}


def arguments_of(name: str, ppo: PPO, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Learn once, and return what the loss `name` was called with in each gradient step."""
    seen, loss = [], getattr(losses, name)

    def spy(*arguments: Any) -> Any:
        seen.append(arguments)
        return loss(*arguments)

    monkeypatch.setattr(losses, name, spy)
    ppo.memory.append(trajectory(ppo, 64, reward=np.linspace(0, 9, 64, dtype=np.float32)))
    ppo.learn()
    return seen


def test_normalize_advantage_minibatch_standardizes_each_minibatch(monkeypatch: pytest.MonkeyPatch) -> None:
    ppo = discrete(learner="torch", mini_batch_size=8, batch_size=64)
    for _, _, advantage, _ in arguments_of("clipped_surrogate", ppo, monkeypatch):
        assert abs(advantage.mean().item()) < 1e-5
        assert advantage.std().item() == pytest.approx(1, abs=1e-4)
    ppo = discrete(learner="torch", mini_batch_size=8, batch_size=64, normalize_advantage="none")
    raw = [advantage.mean().item() for _, _, advantage, _ in arguments_of("clipped_surrogate", ppo, monkeypatch)]
    assert max(raw) > 1


def test_policy_clip_and_value_clip_are_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    ppo = discrete(learner="torch", policy_clip=0.07)
    clips = [float(clip) for *_, clip in arguments_of("clipped_surrogate", ppo, monkeypatch)]
    assert clips == pytest.approx([0.07] * len(clips))
    ppo = discrete(learner="torch", value_clip=0.3, mini_batch_size=8, batch_size=64)
    calls = arguments_of("value_loss", ppo, monkeypatch)
    assert {clip for *_, clip in calls} == {0.3}
    first_value, _, first_old, _ = calls[0]
    torch.testing.assert_close(first_value, first_old, rtol=1e-4, atol=1e-4)


def test_the_value_coefficient_weighs_the_critic() -> None:
    def critic_moved(value_coef: float) -> bool:
        ppo = discrete(value_coef=value_coef)
        before = ppo.policy.critic[0].weight.clone()
        ppo.memory.append(trajectory(ppo, 8))
        ppo.learn()
        return not torch.equal(before, ppo.policy.critic[0].weight)

    assert critic_moved(0.5)
    assert not critic_moved(0.0)


def test_the_gradient_norm_is_limited() -> None:
    ppo = discrete(max_grad_norm=1e-6, lr=1.0, k_epochs=1)
    ppo.memory.append(trajectory(ppo, 8, reward=np.full(8, 1e3, np.float32)))
    ppo.learn()
    norms = [parameter.grad.norm() for parameter in ppo.policy.parameters() if parameter.grad is not None]
    assert 0 < torch.stack(norms).norm() <= 1.01e-6


@pytest.mark.parametrize("learner", ["auto", "torch"])
def test_metrics_equal_their_definitions(learner: str) -> None:
    """With gamma 0 the returns are the rewards, and in the first step the ratio is 1."""
    ppo = discrete(
        gamma=0.0, k_epochs=1, batch_size=64, mini_batch_size=64, normalize_advantage="none", learner=learner,
        max_grad_norm=0.4,
    )  # fmt: skip
    own = trajectory(ppo, 64)
    with torch.no_grad():
        value = ppo.policy.value(torch.from_numpy(own.obs))[:, 0].numpy()
    advantage, target = own.reward - value, (own.reward - own.reward.mean()) / own.reward.std()
    ppo.memory.append(own)
    metrics = ppo.learn()
    assert metrics["policy_loss"] == pytest.approx(-advantage.mean(), rel=1e-4)
    assert metrics["value_loss"] == pytest.approx(((value - target) ** 2).mean(), rel=1e-4)
    explained = 1 - advantage.var(dtype=np.float64) / own.reward.var(dtype=np.float64)
    assert metrics["explained_variance"] == pytest.approx(explained, rel=1e-4)
    assert metrics["entropy"] == pytest.approx(-own.extras["log_prob"].mean(), rel=1e-4)
    norm = torch.linalg.vector_norm(torch.cat([gradient.flatten() for _, gradient in ppo.gradients]))
    assert metrics["grad_norm"] > 0.41
    assert norm.item() == pytest.approx(0.4, rel=1e-4)


def test_target_kl_ends_an_update_where_the_divergence_is_one_and_a_half_times_as_large() -> None:
    def update(k_epochs: int, target_kl: float | None = None) -> tuple[float, list[float]]:
        ppo = discrete(lr=0.01, k_epochs=k_epochs, target_kl=target_kl, batch_size=64, mini_batch_size=64)
        ppo.memory.append(trajectory(ppo, 64))
        return ppo.learn()["approx_kl"], parameters_to_vector(ppo.policy.parameters()).tolist()

    (two, after_two), (three, after_three) = update(2), update(3)
    divergence = 3 * three - 2 * two
    """Before the third step."""
    assert update(3, divergence / 1.51)[1] == after_two
    assert update(3, divergence / 1.49)[1] == after_three


def test_target_kl_ends_an_update() -> None:
    def moved(**kwargs: Any) -> float:
        ppo = discrete(lr=0.05, k_epochs=50, seed=1, **kwargs)
        before = [parameter.clone() for parameter in ppo.policy.parameters()]
        ppo.memory.append(trajectory(ppo, 64))
        ppo.learn()
        return sum((now - then).norm().item() for now, then in zip(ppo.policy.parameters(), before, strict=True))

    assert moved(target_kl=0.01) < 0.2 * moved()


def test_annealing_follows_progress() -> None:
    """Adam's first step moves the weights with the largest gradients by lr."""
    ppo = discrete(anneal_lr=True, anneal_clip=True, k_epochs=1, mini_batch_size=8)
    before = parameters_to_vector(ppo.policy.parameters()).detach()
    ppo.memory.append(trajectory(ppo, 8))
    metrics = ppo.learn(progress=0.75)
    assert metrics["lr"] == pytest.approx(0.001 * 0.25)
    assert metrics["clip"] == pytest.approx(0.2 * 0.25)
    moved = (parameters_to_vector(ppo.policy.parameters()) - before).abs().max().item()
    assert moved == pytest.approx(metrics["lr"], rel=0.01)


def test_adam_equals_torch() -> None:
    rng = torch.Generator().manual_seed(0)
    ours = torch.nn.Parameter(torch.randn(100, generator=rng))
    theirs = torch.nn.Parameter(ours.detach().clone())
    adam, reference = Adam([ours]), torch.optim.Adam([theirs], eps=1e-5)
    for step in range(1, 20):
        adam.gradient.copy_(torch.randn(100, generator=rng))
        theirs.grad = adam.gradient.clone()
        reference.param_groups[0]["lr"] = 0.1 / step
        reference.step()
        adam.step(0.1 / step)
    torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_loss_that_is_not_finite_is_an_error_that_names_it() -> None:
    ppo = discrete()
    ppo.memory.append(trajectory(ppo, 8, reward=np.full(8, np.inf, np.float32)))
    before = {name: tensor.clone() for name, tensor in ppo.policy.state_dict().items()}
    with pytest.raises(FloatingPointError, match=r"value_loss.* became infinite or NaN"):
        ppo.learn()
    assert all(torch.equal(before[name], tensor) for name, tensor in ppo.policy.state_dict().items())
    ppo.memory.append(trajectory(ppo, 8))
    assert np.isfinite(ppo.learn()["policy_loss"]), "Adam still holds what was not finite"
    assert not all(torch.equal(before[name], tensor) for name, tensor in ppo.policy.state_dict().items())


def test_a_small_network_takes_one_thread_and_leaves_the_hosts_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """With several threads beside busy processes, torch's threads wait for each other, which is many times slower."""
    ppo, seen = discrete(learner="torch"), []
    forward = ppo.policy.policy_head.forward

    def spy(*inputs: torch.Tensor) -> Any:
        seen.append(torch.get_num_threads())
        return forward(*inputs)

    monkeypatch.setattr(ppo.policy.policy_head, "forward", spy)
    ppo.memory.append(trajectory(ppo, 8))
    with torch_threads(2):
        ppo.learn()
        assert torch.get_num_threads() == 2
    assert set(seen) == {1}


@pytest.mark.parametrize(("make", "head", "gain"), [(discrete, "logits", 0.1), (continuous, "mean", 0.01)])
def test_initial_weights_are_orthogonal_so_that_first_actions_hardly_depend_on_observations(
    make: Make, head: str, gain: float
) -> None:
    policy = make(normalize_obs=True).policy
    layers = {policy.actor[0]: 2**0.5, policy.critic[2]: 2**0.5, policy.value_head.normal: 0.01}
    for layer, expected in (layers | {getattr(policy.policy_head, head): gain}).items():
        sizes = torch.linalg.svdvals(layer.weight)
        torch.testing.assert_close(sizes, torch.full_like(sizes, expected))
        assert not layer.bias.any()
    assert policy.normalize(torch.full((1, 4), 99.0)).tolist() == [[10.0] * 4], "and outliers are clipped"


def test_observation_statistics_freeze_while_acting_and_evaluating() -> None:
    ppo = discrete(normalize_obs=True)
    assert ppo.policy.obs_norm is not None
    ppo.memory.append(trajectory(ppo, 8))
    ppo.get_action(states(8))
    assert ppo.policy.obs_norm.count == 0
    ppo.learn()
    assert ppo.policy.obs_norm.count == 8
    ppo.get_action(states(8))
    assert ppo.policy.obs_norm.count == 8


@BOTH
def test_equal_seeds_give_equal_results_without_global_random_state(make: Make) -> None:
    outcomes = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        np.random.seed(global_seed)  # noqa: NPY002
        state = torch.get_rng_state()
        ppo = make(use_RND=True, rnd_warmup=0)
        ppo.memory.append(trajectory(ppo, 20))
        outcomes.append(ppo.learn())
        make(core="gru")
        ActorCritic(spaces.Box(-1, 1, (4,)), spaces.Discrete(2))
        assert torch.equal(torch.get_rng_state(), state)
    assert outcomes[0] == outcomes[1]
    assert make(seed=1).get_action(states(50)).tolist() != make(seed=2).get_action(states(50)).tolist()


@BOTH
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda ppo: pickle.loads(pickle.dumps(ppo))])
def test_a_copied_agent_learns_independently(make: Make, duplicate: Callable[[PPO], PPO]) -> None:
    ppo = make(use_RND=True, rnd_warmup=0)
    ppo.memory.append(trajectory(ppo, 20))
    ppo.learn()
    other = duplicate(ppo)
    before = ppo.get_action(states(50), deterministic=True)
    other.memory.append(trajectory(ppo, 20, seed=3))
    metrics = other.learn()
    np.testing.assert_array_equal(ppo.get_action(states(50), deterministic=True), before)
    ppo.memory.append(trajectory(ppo, 20, seed=3))
    assert ppo.learn().keys() == metrics.keys()
    other.policy.load_state_dict(ppo.policy.state_dict())
    np.testing.assert_array_equal(
        other.get_action(states(50), deterministic=True), ppo.get_action(states(50), deterministic=True)
    )


def test_constant_returns_do_not_inflate_the_gradient() -> None:
    """Without a reward the critic's target is 0; its small unit must not make the critic's gradient too large."""
    ppo = discrete(use_RND=True, beta=1.0, rnd_warmup=0, batch_size=64, mini_batch_size=64)
    every_row = np.ones(64, bool)
    for seed in range(5):
        silent = trajectory(
            ppo, 64, seed, reward=np.zeros(64, np.float32), terminated=every_row, final_obs=states(64, seed)
        )
        ppo.memory.append(silent)
        assert ppo.learn()["grad_norm"] < 20


@BOTH
def test_saved_weights_load_equal(make: Make, tmp_path: Path) -> None:
    ppo = make(use_RND=True, normalize_obs=True)
    ppo.memory.append(trajectory(ppo, 20))
    ppo.learn()
    ppo.save_weights(tmp_path / "new" / "directory")
    assert sorted(file.name for file in (tmp_path / "new" / "directory").iterdir()) == [
        "Policy_weights.pth",
        "RND_weights.pth",
    ]
    other = make(use_RND=True, normalize_obs=True, seed=9)
    other.load_weights(str(tmp_path / "new" / "directory"))
    for module, loaded in ((ppo.policy, other.policy), (ppo.rnd, other.rnd)):
        for name, tensor in module.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor), name
    obs = states(30)
    np.testing.assert_array_equal(other.get_action(obs, deterministic=True), ppo.get_action(obs, deterministic=True))


def test_weights_of_another_network_are_refused_and_nothing_changes(tmp_path: Path) -> None:
    PPO(False, 6, 3, seed=0).save_weights(tmp_path)
    ppo = discrete(use_RND=True)
    before = {name: tensor.clone() for name, tensor in ppo.policy.state_dict().items()}
    with pytest.raises(ValueError, match=r"Policy_weights\.pth do not fit: .*observation_space is .* \(6,\)"):
        ppo.load_weights(tmp_path)
    torch.save(PPO(False, 6, 3, seed=0).policy.state_dict(), tmp_path / "Policy_weights.pth")
    with pytest.raises(ValueError, match=r"Policy_weights\.pth do not fit: actor\.0\.weight is \(64, 6\) in the file"):
        ppo.load_weights(tmp_path)
    torch.save(discrete(use_RND=True, seed=5).policy.state_dict(), tmp_path / "Policy_weights.pth")
    with pytest.raises(FileNotFoundError, match=r"RND_weights\.pth"):
        ppo.load_weights(tmp_path)
    assert all(torch.equal(before[name], tensor) for name, tensor in ppo.policy.state_dict().items())
    with pytest.raises(FileNotFoundError, match=r"no weights at .*nowhere.Policy_weights\.pth"):
        ppo.load_weights(tmp_path / "nowhere")


@pytest.mark.slow
@BOTH
def test_compiling_changes_no_gradient(make: Make) -> None:
    """A changing clip range or batch size does not compile it again every time, either."""
    plain, compiled = (
        make(
            learner="torch",
            compile=value,
            anneal_clip=True,
            anneal_entropy=True,
            entropy_coef=0.01,
            batch_size=32,
            mini_batch_size=16,
        )
        for value in (False, True)
    )
    someone = make()
    torch._dynamo.utils.counters.clear()
    for number in range(9):
        lived = trajectory(someone, 32 + 3 * number, seed=number)
        for ppo in (plain, compiled):
            ppo.memory.append(lived)
        expected, metrics = plain.learn(number / 8), compiled.learn(number / 8)
        assert metrics == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 4


def test_recompute_advantage_uses_the_current_critic_in_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The advantages change after the first epoch; the targets stay in the same units."""
    for recompute in (False, True):
        ppo = discrete(
            learner="torch", recompute_advantage=recompute, normalize_advantage="none", lr=0.01, batch_size=64,
            mini_batch_size=64, k_epochs=3,
        )  # fmt: skip
        sums = [float(advantage.sum()) for _, _, advantage, _ in arguments_of("clipped_surrogate", ppo, monkeypatch)]
        assert len(sums) == 3
        assert (abs(sums[1] - sums[0]) > 0.1) == recompute
        assert (abs(sums[2] - sums[1]) > 0.1) == recompute


def test_normalize_advantage_batch_standardizes_over_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    ppo = discrete(learner="torch", mini_batch_size=16, batch_size=64, k_epochs=1, normalize_advantage="batch")
    parts = [advantage for _, _, advantage, _ in arguments_of("clipped_surrogate", ppo, monkeypatch)]
    assert len(parts) == 4
    assert max(abs(part.mean().item()) for part in parts) > 0.01
    whole = torch.cat(parts)
    assert abs(whole.mean().item()) < 1e-5
    assert whole.std().item() == pytest.approx(1, abs=1e-4)


def test_normalize_advantage_returns_divides_by_the_deviation_of_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {}
    for how in ("none", "returns"):
        ppo = discrete(learner="torch", mini_batch_size=64, batch_size=64, k_epochs=1, normalize_advantage=how)
        ((_, _, advantage, _),) = arguments_of("clipped_surrogate", ppo, monkeypatch)
        taken[how] = advantage
    deviation = ppo.policy.value_head.stats.std.item()
    assert abs(deviation - 1) > 0.01
    torch.testing.assert_close(taken["returns"] * deviation, taken["none"])


@pytest.mark.parametrize("learner", ["auto", "torch"])
def test_assigned_coefficients_are_used_by_the_next_update(learner: Any) -> None:
    """An entropy bonus that is annealed or set to zero has no effect; one that is raised later has."""
    weights = []
    for settings, progress, later in [
        ({"entropy_coef": 0.5, "anneal_entropy": True}, 1.0, None),
        ({"entropy_coef": 0.0}, 0.0, None),
        ({"entropy_coef": 0.0}, 0.0, 0.5),
        ({"entropy_coef": 0.5, "anneal_entropy": True}, 0.0, None),
    ]:
        ppo = discrete(learner=learner, **settings)
        if later is not None:
            ppo.entropy_coef = later
        ppo.memory.append(trajectory(ppo, 8))
        ppo.learn(progress)
        weights.append(parameters_to_vector(ppo.policy.parameters()).detach().clone())
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[2], weights[3])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("observation_space", "action_space", "shape"),
    [
        (spaces.Box(-1, 1, (1, 4)), spaces.Discrete(3), ()),
        (spaces.Box(0, 255, (1, 40, 40), np.uint8), spaces.Discrete(3), ()),
        (
            spaces.Dict(a=spaces.Box(-1, 1, (1, 4)), b=spaces.Box(-1, 1, (2,))),
            spaces.MultiDiscrete([[2, 3], [4, 5]]),
            (2, 2),
        ),
        (spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (2, 2)), (2, 2)),
        (spaces.Box(-1, 1, ()), spaces.Box(-1, 1, ()), ()),
        (spaces.Box(-1, 1, (1,)), spaces.MultiBinary((2, 3)), (2, 3)),
        (spaces.Box(0, 255, (6, 1, 6), np.uint8), spaces.Box(-np.inf, np.inf, (3,)), (3,)),
    ],
)
def test_the_action_for_a_single_state_is_of_the_action_space(
    observation_space: spaces.Space, action_space: spaces.Space, shape: tuple[int, ...]
) -> None:
    env = gym.Env()
    env.observation_space, env.action_space = observation_space, action_space
    ppo = PPO.for_env(env, batch_size=2, mini_batch_size=2, seed=0)
    action = ppo.get_action(observation_space.sample())
    assert action.shape == shape
    assert action_space.contains(action.astype(action_space.dtype))


def test_several_choices_need_one_each_that_is_allowed() -> None:
    space = spaces.Dict(x=spaces.Box(0, 1, (1,)), action_mask=spaces.MultiBinary(5))
    ppo = PPO(False, 1, 5, observation_space=space, action_space=spaces.MultiDiscrete([2, 3]), seed=0)
    with pytest.raises(ValueError, match="no action is allowed"):
        ppo.get_action({"x": np.zeros(1), "action_mask": np.array([0, 0, 0, 1, 0])})
    states = {"x": np.zeros((1000, 1)), "action_mask": np.tile([0, 1, 0, 1, 0], (1000, 1))}
    assert np.unique(ppo.get_action(states), axis=0).tolist() == [[1, 1]]


def test_an_update_that_ends_at_once_has_the_same_metrics() -> None:
    ppo = discrete(target_kl=1e-9, use_RND=True, rnd_warmup=0)
    keys = set()
    for seed in range(3):
        ppo.memory.append(trajectory(ppo, 8, seed=seed))
        keys.add(tuple(sorted(ppo.learn())))
    assert len(keys) == 1


def test_lr_and_policy_clip_as_schedules_get_the_remaining_fraction() -> None:
    asked: list[float] = []

    def lr(remaining: float) -> float:
        asked.append(remaining)
        return 0.01 * remaining

    ppo = discrete(lr=lr, policy_clip=lambda remaining: 0.1 + 0.1 * remaining)
    annealed = discrete(lr=0.01, anneal_lr=True)
    for progress in (0.0, 0.25, 1.0, 1.5):
        for one in (ppo, annealed):
            one.memory.append(trajectory(ppo, 8))
        metrics, expected = ppo.learn(progress), annealed.learn(progress)
        assert metrics["lr"] == expected["lr"]
        assert metrics["clip"] == pytest.approx(0.1 + 0.1 * max(0, 1 - progress))
    assert asked[-4:] == [1.0, 0.75, 0.0, 0.0]
    assert copy.deepcopy(ppo).lr is lr
    assert cloudpickle.loads(cloudpickle.dumps(ppo)).lr(0.5) == 0.005


@pytest.mark.parametrize("given", [float("nan"), float("inf"), -1.0, "fast", None])
def test_a_schedule_with_an_invalid_value_is_named_and_nothing_changes(given: Any) -> None:
    with pytest.raises(ValueError, match=r"lr must be finite and not negative, but its function gave .* for 1"):
        discrete(lr=lambda remaining: given)
    ppo = discrete(lr=lambda remaining: 0.1 if remaining == 1 else given)
    ppo.memory.append(trajectory(ppo, 8))
    with pytest.raises(ValueError, match=r"lr must be .*, but its function gave .* for 0\.5"):
        ppo.learn(0.5)
    assert len(ppo.memory) == 8
    assert ppo.learn(0.0)


def test_a_schedule_with_annealing_is_refused() -> None:
    with pytest.raises(ValueError, match="lr is a function of the run: it cannot be annealed as well"):
        discrete(lr=lambda remaining: 0.1, anneal_lr=True)
    with pytest.raises(ValueError, match="policy_clip is a function"):
        discrete(policy_clip=lambda remaining: 0.1, anneal_clip=True)
    with pytest.raises(ValueError, match="lr must be positive"):
        discrete(lr=lambda remaining: 0.0)


@pytest.mark.parametrize("name", ["lr", "policy_clip"])
def test_an_agent_whose_schedule_no_file_holds_acts_and_learns_once_it_has_another(tmp_path: Path, name: str) -> None:
    ppo = discrete(**{name: lambda remaining: 0.01 * remaining})
    ppo.save_weights(tmp_path / "first")
    PPO.load(tmp_path / "first").save_weights(tmp_path / "second")
    again = PPO.load(tmp_path / "second")
    assert np.array_equal(
        again.get_action(states(5), deterministic=True), ppo.get_action(states(5), deterministic=True)
    )
    assert "lambda" in repr(again)
    again.memory.append(trajectory(again, 8))
    with pytest.raises(ValueError, match=rf"{name} was a function, .*lambda.*, which no file holds: .* give {name}="):
        again.learn()
    assert len(again.memory) == 8
    setattr(again, name, 0.1)
    assert again.learn()
    assert getattr(PPO.load(tmp_path / "second", **{name: 0.1}), name) == 0.1


@pytest.mark.parametrize("name", ["action_scaling", "rnd_warmup", "use_RND", "observ_dim", "hidden_sizes", "device"])
def test_settings_of_the_networks_cannot_be_assigned(name: str) -> None:
    ppo = PPO(True, 3, 1, use_RND=True, hidden_sizes=(4,), seed=0)
    with pytest.raises(AttributeError, match=f"{name} cannot be changed once the agent is made"):
        setattr(ppo, name, getattr(ppo, name))


@pytest.mark.parametrize(
    ("name", "value"), [("max_grad_norm", 1e-9), ("target_kl", 1e-12), ("k_epochs", 1), ("lr", 1e-9)]
)
def test_settings_of_the_update_can_be_assigned_and_are_saved(name: str, value: float, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    obs, reward = rng.normal(size=(64, 4)).astype(np.float32), rng.normal(size=64).astype(np.float32)
    flags, weights = np.zeros(64, bool), []
    for settings in ({}, {name: value}):
        ppo = PPO(False, 4, 2, hidden_sizes=(8,), k_epochs=4, batch_size=64, mini_batch_size=32, seed=0)
        for setting, changed in settings.items():
            setattr(ppo, setting, changed)
        action, extras = ppo.act(obs)
        ppo.memory.append(Trajectory(0, obs, action, reward, flags, flags, obs[:1], extras))
        ppo.learn()
        weights.append(parameters_to_vector(ppo.policy.parameters()))
    assert (weights[0] != weights[1]).any()
    ppo.save_weights(tmp_path)
    assert getattr(PPO.load(tmp_path), name) == value


@pytest.mark.parametrize(
    "space", [spaces.Discrete(3, start=2**25), spaces.MultiDiscrete([3], start=[2**25])], ids=["discrete", "multi"]
)
def test_discrete_actions_that_no_float32_holds_are_learned_from_as_they_are(space: Any) -> None:
    ppo = PPO(False, 4, 3, action_space=space, batch_size=8, mini_batch_size=4, seed=0)
    data = trajectory(ppo, 8)
    ppo.memory.append(data)
    assert ppo.prepare().rows.raw_action.flatten().tolist() == (data.action.flatten() - 2**25).tolist()


@pytest.mark.parametrize("progress", [100_000, 1e5, 2.0, -0.1, math.nan])
def test_learn_is_not_told_a_number_of_steps(progress: float) -> None:
    with pytest.raises(ValueError, match=r"progress .* from 0 to 1, not .*AsyncPPO\(env, agent, steps=n\)\.run\(\)"):
        discrete().learn(progress)


def test_learn_with_the_argument_of_stable_baselines3_is_told_how_to_train() -> None:
    learn: Any = discrete().learn
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'total_timesteps': AsyncPPO\(.*\) trains for n"):
        learn(total_timesteps=100_000)
