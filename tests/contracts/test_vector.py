"""Environments of EnvPool, behind the same contract."""

import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from AsyncPPO import AsyncPPO, EnvVectorizer, evaluate
from parallel_rl.utils import inactive_states_dropout, update_active_environments_list
from PPO import PPO
from tests.fake_envpool import INSTALLED, use_fake_envpool

pytestmark = pytest.mark.covering

Step = tuple[np.ndarray, ...]


@pytest.fixture(autouse=True)
def envpool(monkeypatch: pytest.MonkeyPatch) -> None:
    use_fake_envpool(monkeypatch)


def episodes(seed: int, num_envs: int = 5) -> list[Step]:
    """Return the steps of environments until each has finished."""
    steps: list[Step] = []
    with EnvVectorizer("CartPole-v1", num_envs, backend="vector", seed=seed) as env:
        obs, _ = env.reset()
        rng = np.random.default_rng(0)
        while not env.finished.all():
            obs, reward, terminated, truncated, _ = env.step(rng.integers(0, 2, len(obs)))
            steps.append((obs, reward, terminated, truncated))
            over = terminated | truncated
            obs = inactive_states_dropout(obs, over)
            update_active_environments_list(env.finished, over)
    return steps


def test_every_environment_finishes_its_episode() -> None:
    steps = episodes(0)
    rows = [len(obs) for obs, *_ in steps]
    assert rows[0] == 5
    assert rows == sorted(rows, reverse=True)
    assert sum(terminated.sum() for _, _, terminated, _ in steps) == 5
    assert all((reward == 1).all() for _, reward, *_ in steps)


def test_the_same_seed_is_the_same_experience() -> None:
    first, again, other = episodes(0), episodes(0), episodes(1)
    assert all(
        np.array_equal(one, two) for a, b in zip(first, again, strict=True) for one, two in zip(a, b, strict=True)
    )
    assert not np.array_equal(first[0][0], other[0][0])


@pytest.mark.slow
def test_an_agent_learns_from_vectorized_environments() -> None:
    with EnvVectorizer("CartPole-v1", 16, backend="vector") as env:
        ppo = PPO.for_env(env, k_epochs=10, batch_size=1024, mini_batch_size=256, gamma=0.99, seed=0)
    with AsyncPPO("CartPole-v1", ppo, 16, 20_000, mode="mask", backend="vector", seed=0, progress=False) as trainer:
        trainer.run()
        assert trainer.mean_return > 100
    assert evaluate(ppo, "CartPole-v1", 10, backend="vector", seed=1).mean() > 150


@pytest.mark.parametrize(
    ("env", "options", "error", "message"),
    [
        ("Nonsense-v9", {}, ValueError, "EnvPool has no environment Nonsense-v9"),
        (lambda: gym.make("CartPole-v1"), {}, TypeError, "needs an environment's id"),
        ("CartPole-v1", {"asynchronous": True}, ValueError, "cannot be asynchronous"),
    ],
)
def test_wrong_arguments_of_the_vector_backend_are_refused(
    env: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        EnvVectorizer(env, 2, backend="vector", **options)


@pytest.mark.skipif(INSTALLED, reason="EnvPool is installed")
def test_without_envpool_there_is_no_vector_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "envpool")
    with pytest.raises(ValueError, match="needs EnvPool, which is not installed"):
        EnvVectorizer("CartPole-v1", 2, backend="vector")


@pytest.mark.skipif(INSTALLED, reason="EnvPool itself may have none")
def test_spaces_of_several_parts_are_refused() -> None:
    with pytest.raises(TypeError, match=r"Blackjack-v1 cannot be stepped by backend='vector'.* several parts"):
        EnvVectorizer("Blackjack-v1", 2, backend="vector")


def test_vector_backend_refuses_what_needs_single_environments() -> None:
    with EnvVectorizer("CartPole-v1", 2, backend="vector") as env:
        with pytest.raises(ValueError, match="take one seed"):
            env.reset(seed=[1, 2])
        with pytest.raises(ValueError, match="reset_mask does not work with"):
            env.reset(options={"reset_mask": np.array([True, False])})
        env.reset()
        with pytest.raises(ValueError, match=r"environment 1 cannot take the action 0\.7"):
            env.step([0, 0.7])


def test_envpool_autoresets_in_the_same_step() -> None:
    with EnvVectorizer("CartPole-v1", 6, backend="vector", autoreset=True, seed=0) as env:
        obs, _ = env.reset()
        rng, ended = np.random.default_rng(0), 0
        for _ in range(200):
            obs, reward, terminated, truncated, infos = env.step(rng.integers(0, 2, 6))
            assert (reward == 1).all()
            assert (np.abs(obs[terminated]) <= 0.05).all()
            for row in np.flatnonzero(terminated | truncated):
                final = infos[row]["final_obs"]
                assert abs(final[0]) > 2.4 or abs(final[2]) > 0.2
                ended += 1
        assert ended > 20


@pytest.mark.skipif(INSTALLED, reason="EnvPool itself has other infos")
def test_infos_of_envpool_are_those_of_each_environment() -> None:
    with EnvVectorizer("CartPole-v1", 3, backend="vector", seed=0) as env:
        _, first = env.reset()
        env.finished[1] = True
        *_, infos = env.step([0, 0])
    assert [info["lives"] for info in first] == [10, 11, 12]
    assert [info["lives"] for info in infos] == [10, 12]


def test_envpool_steps_some_and_keeps_their_order() -> None:
    with EnvVectorizer("Pendulum-v1", 6, backend="vector", seed=0) as env:
        first, _ = env.reset()
        env.finished[[0, 3]] = True
        obs, *_ = env.step(np.zeros((4, 1), np.float32))
        assert np.abs(obs - first[[1, 2, 4, 5]])[:, :2].max() < 0.2
        again, _ = env.reset(seed=0)
        assert np.array_equal(first, again)
