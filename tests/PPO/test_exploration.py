"""gSDE: noise is a function of the state that stays fixed for several steps (Raffin et al. 2021, arXiv:2005.05719)."""

import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from AsyncPPO import AsyncPPO, EnvVectorizer, VecMemory, evaluate
from AsyncPPO.collector import Collector
from parallel_rl import utils
from parallel_rl.networks import GaussianHead
from PPO import PPO
from PPO.export import export_policy
from tests.AsyncPPO.test_checkpoint import check_exact
from tests.envs import Hybrid

BOXES: dict[str, Any] = {"squashed": {}, "clipped": {"squash_actions": False}}
OBS = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


def agent(**kwargs: Any) -> PPO:
    """Return an agent with two actions, within +-2 and 0..10."""
    box = spaces.Box(np.array([-2, 0], np.float32), np.array([2, 10], np.float32))
    settings: dict[str, Any] = {"use_sde": True, "log_std": -1.5, "hidden_sizes": (8,), "seed": 0}
    return PPO(True, 3, 2, action_space=box, **(settings | kwargs))


def parts_of(ppo: PPO, obs: np.ndarray = OBS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features `(n, 8)`, means `(n, 2)` and sigma `(8, 2)`, in double precision."""
    head = ppo.policy.policy_head
    assert isinstance(head, GaussianHead)
    with torch.no_grad():
        head.log_std.copy_(0.3 * torch.randn(head.log_std.shape, generator=torch.Generator().manual_seed(1)) - 1.5)
        features = ppo.policy.actor(torch.from_numpy(obs))
        mean = head.mean(features)
        return features.double().numpy(), mean.double().numpy(), head.log_std.double().exp().numpy()


@pytest.mark.parametrize("kind", BOXES)
def test_sde_density_and_entropy_equal_the_formula(kind: str) -> None:
    """Section 3 of the paper: the variance of an action is the sum of (z sigma)^2; computed here with loops."""
    ppo = agent(**BOXES[kind])
    z, mean, sigma = parts_of(ppo)
    _, extras = ppo.act(OBS)
    ours = ppo.policy.distribution(torch.from_numpy(OBS)).entropy().tolist()
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    for row in range(6):
        log_prob = entropy = 0.0
        for dimension, scale in enumerate([2.0, 5.0]):
            variance = sum((z[row, k] * sigma[k, dimension]) ** 2 for k in range(8)) + 1e-6
            u = float(extras["raw_action"][row, dimension])
            log_prob -= (u - mean[row, dimension]) ** 2 / (2 * variance) + math.log(2 * math.pi * variance) / 2
            entropy += math.log(2 * math.pi * math.e * variance) / 2
            if kind == "squashed":
                log_prob -= math.log(scale * (1 - math.tanh(u) ** 2))
                slopes = np.log(scale / np.cosh(mean[row, dimension] + math.sqrt(variance) * nodes) ** 2)
                entropy += float(weights @ slopes) / math.sqrt(2 * math.pi)
        assert abs(extras["log_prob"][row] - log_prob) < 1e-4
        assert abs(ours[row] - entropy) < 1e-4


def test_sde_noise_is_a_matrix_times_the_features() -> None:
    """Least squares from 40 states of one environment find the matrix; the next environment has another one."""
    obs = np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32)
    ppo, matrices = agent(), []
    z, mean, sigma = parts_of(ppo, obs)
    for env_id in range(100):
        where = np.array([env_id])
        draws = np.concatenate(
            [ppo.act(row[None], env_ids=where)[1]["raw_action"] for row in obs[: 40 if env_id < 2 else 12]]
        )
        matrix, residual, rank, _ = np.linalg.lstsq(z[: len(draws)], draws - mean[: len(draws)])
        assert rank == 8
        assert residual.max() < 1e-8
        matrices.append(matrix / sigma)
    np.testing.assert_allclose(np.mean(matrices, axis=0), 0, atol=0.5)
    np.testing.assert_allclose(np.std(matrices, axis=0), 1, atol=0.35)


def test_sde_actions_have_the_variance_of_the_density() -> None:
    """4,000 environments in the same state have the variances of the formula, and independent noise."""
    ppo = agent()
    z, mean, sigma = parts_of(ppo)
    _, extras = ppo.act(np.repeat(OBS[:1], 4000, axis=0))
    added, variance = extras["raw_action"] - mean[0], z[0] ** 2 @ sigma**2
    np.testing.assert_allclose(np.cov(added.T), np.diag(variance), atol=0.08 * variance.max())
    np.testing.assert_allclose(added.mean(axis=0), 0, atol=0.05)


def test_sde_equal_states_have_equal_actions_until_the_next_update() -> None:
    ppo = agent(batch_size=64, mini_batch_size=64, k_epochs=1, lr=1e-12)
    first, extras = ppo.act(OBS)
    for _ in range(20):
        assert (ppo.act(OBS)[0] == first).all()
    assert (ppo.act(OBS[::-1], env_ids=np.arange(6)[::-1])[0] == first[::-1]).all(), "noise is the environment's"
    assert (ppo.act(OBS[[4, 1]], env_ids=np.array([4, 1]))[0] == first[[4, 1]]).all()
    same = np.repeat(OBS[:1], 6, axis=0)
    assert len(np.unique(ppo.act(same)[0], axis=0)) == 6, "environments explore by noise of their own"
    assert (ppo.act(OBS, deterministic=True)[0] == ppo.act(OBS, deterministic=True)[0]).all()
    assert (ppo.act(OBS)[0] == first).all()
    buffer = VecMemory(6)
    no, everyone = np.zeros(6, bool), np.arange(6)
    for _ in range(11):
        buffer.append(everyone, obs=OBS, action=first, reward=everyone, terminated=no, truncated=no, **extras)
    utils.buffer_to_target_buffer_transfer(buffer, ppo.memory)
    metrics = ppo.learn()
    assert abs(metrics["approx_kl"]) < 1e-6, "the first ratio of an update is 1"
    assert metrics["grad_norm"] > 0
    assert (ppo.act(OBS)[0] != first).all()


def test_sde_sample_freq_is_the_number_of_steps_that_noise_stays() -> None:
    ppo = agent(sde_sample_freq=3)
    actions = np.stack([ppo.act(OBS)[0] for _ in range(9)])
    for start in (0, 3, 6):
        assert (actions[start : start + 3] == actions[start]).all()
    assert (actions[0] != actions[3]).all()
    assert (actions[3] != actions[6]).all()
    halves = agent(sde_sample_freq=3)
    for step in range(9):
        rows = [halves.act(OBS[half], env_ids=half)[0] for half in (np.arange(0, 6, 2), np.arange(1, 6, 2))]
        if step % 3 == 0:
            kept = rows
        assert all((now == then).all() for now, then in zip(rows, kept, strict=True))


@pytest.mark.parametrize("env_ids", [[0, 0, 1], [0, 1], [-1, 0, 1]])
def test_sde_repeated_env_ids_are_refused(env_ids: list[int]) -> None:
    with pytest.raises(ValueError, match="env_ids must be 3 different indexes"):
        agent().act(OBS[:3], env_ids=np.array(env_ids))


@pytest.mark.parametrize("frequency", [0, -2])
def test_sde_sample_freq_out_of_range_is_refused(frequency: int) -> None:
    with pytest.raises(ValueError, match="sde_sample_freq must be positive"):
        agent(sde_sample_freq=frequency)


@pytest.mark.parametrize("env", ["CartPole-v1", Hybrid])
def test_sde_with_discrete_actions_is_refused(env: Any) -> None:
    with pytest.raises(ValueError, match=r"use_sde needs continuous actions \(a Box\), not"):
        PPO.for_env(env if isinstance(env, str) else env(), use_sde=True)


class Still(gym.Env):
    """The state is always the same; each episode ends after another number of steps; the reward is the action."""

    observation_space = spaces.Box(-1, 1, (2,))
    action_space = spaces.Box(-1, 1, (1,))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(3, 12))
        return np.ones(2, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.left -= 1
        return np.ones(2, np.float32), float(action[0]), self.left == 0, False, {}


@pytest.mark.parametrize("autoreset", [False, True])
def test_sde_noise_of_an_environment_does_not_depend_on_finished_ones(autoreset: bool) -> None:
    ppo = PPO.for_env(Still(), use_sde=True, seed=0)
    with EnvVectorizer(Still, 5, backend="inline", seed=0, autoreset=autoreset) as env:
        collector = Collector(env, ppo, VecMemory(5))
        collector.collect(1)
        while not env.finished.all() and len(collector.buffer) < 100:
            collector.collect(1)
        actions = [np.unique(trajectory.action) for trajectory in collector.buffer.take()]
    assert [len(own) for own in actions] == [1] * 5
    assert len(np.unique(actions)) == 5


@pytest.mark.parametrize(
    "loop",
    [{}, *(pytest.param(loop, marks=pytest.mark.slow) for loop in ({"mode": "mask"}, {"backend": "process"}))],
    ids=["streaming", "mask", "process"],
)
def test_resumed_run_equals_uninterrupted_run_to_the_bit(tmp_path: Path, loop: dict[str, Any]) -> None:
    settings = {"use_sde": True, "sde_sample_freq": 7, "core": "none" if "mode" in loop else "gru", "core_size": 8}
    check_exact(
        tmp_path,
        "Pendulum-v1",
        loop,
        backend=loop.get("backend", "inline"),
        k_epochs=1,
        steps=1500 if "mode" in loop else 520,
        **settings,
    )


def test_sde_noise_survives_state_and_load_state(tmp_path: Path) -> None:
    one, other = agent(), agent(seed=5)
    action = one.act(OBS)[0]
    utils.save_state(tmp_path / "one.state", one.state())
    other.load_state(utils.load_state(tmp_path / "one.state"))
    assert (other.act(OBS)[0] == action).all()
    more = np.vstack([OBS, OBS])
    assert (other.act(more)[0] == one.act(more)[0]).all()
    with pytest.raises(ValueError, match="is not that of a PPO"):
        agent(use_sde=False).load_state(one.state())
    for forged in ({}, {"noise": np.zeros((2, 16), np.float32), "ages": np.array([-1, 0])}, {"noise": 1, "ages": "x"}):
        with pytest.raises(ValueError, match="the saved noise is"):
            other.load_state(one.state() | {"exploration": forged})
    assert (other.act(more)[0] == one.act(more)[0]).all(), "nothing was changed"


def test_weights_and_exported_policies_are_deterministic(tmp_path: Path) -> None:
    one, other = agent(), agent(seed=5)
    one.save_weights(tmp_path)
    other.load_weights(tmp_path)
    assert (PPO.load(tmp_path).act(OBS)[0] == agent().act(OBS)[0]).all()
    with pytest.raises(ValueError, match="use_sde is True there and False here"):
        agent(use_sde=False).load_weights(tmp_path)
    assert (one.get_action(OBS, deterministic=True) == other.get_action(OBS, deterministic=True)).all()
    assert export_policy(one, tmp_path / "policy.pt2") <= 1e-5


def test_sde_learns_the_action_of_each_observation() -> None:
    from tests.learning.test_probes import Echo, learn

    def env() -> gym.Env:
        return Echo(continuous=True)

    ppo = learn(env, 3_000, use_sde=True, log_std=-2.0, lr=1e-2, hidden_sizes=(16,))
    assert evaluate(ppo, env, 200, seed=1, backend="inline").mean() > -0.15


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_pendulum_is_swung_up() -> None:
    """RL-Zoo's settings for gSDE, with larger batches; random actions reach a return of about -1200."""
    settings: dict[str, Any] = {"gamma": 0.9, "k_epochs": 10, "batch_size": 2048, "mini_batch_size": 128, "seed": 0}
    ppo = PPO.for_env("Pendulum-v1", use_sde=True, sde_sample_freq=4, log_std=-1.0, **settings)
    with AsyncPPO("Pendulum-v1", ppo, 16, 65_536, backend="inline", seed=0, progress=False) as trainer:
        trainer.run()
    assert evaluate(ppo, "Pendulum-v1", 50, seed=1, backend="inline").mean() > -300
