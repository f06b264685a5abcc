"""On a GPU: the same learning."""

import copy
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch.distributed import FileStore, HashStore

from AsyncPPO import AsyncPPO, AsyncTrainer
from OffPolicy import DDPG, DQN, SAC, TD3
from parallel_rl.ranks.gloo import Gloo, nccl_group, take_gpu
from parallel_rl.utils import Cluster, Trajectory
from PPO import PPO
from tests.envs import Hybrid, Nested, Pixels
from tests.ranks import on_ranks

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.mark.parametrize("options", [{}, {"use_RND": True}, {"bf16": True}, {"normalize_obs": True, "compile": True}])
def test_ppo_on_cuda_acts_and_learns(options: dict[str, bool]) -> None:
    ppo = PPO(False, 4, 2, batch_size=512, mini_batch_size=128, device="cuda", seed=0, **options)
    with AsyncPPO("CartPole-v1", ppo, 16, 10_000, seed=0, backend="inline", progress=False) as trainer:
        history = trainer.run()
        assert trainer.acting == "central"
    assert next(ppo.policy.parameters()).is_cuda
    assert history[-1]["mean_return"] > history[0]["mean_return"]
    assert ppo.get_action(np.zeros((3, 4), np.float32)).shape == (3,)


@pytest.mark.parametrize(
    ("env", "options"),
    [
        ("CartPole-v1", {"companions": ["rnd", "icm"], "normalize_obs": True}),
        ("CartPole-v1", {"core": "gru", "normalize_advantage": "returns", "target_kl": 0.02}),
        ("Pendulum-v1", {"core": "lstm", "normalize_obs": True}),
        ("Pendulum-v1", {"use_sde": True, "squash_actions": True}),
        (Pixels, {"companions": ["rnd"]}),
        (Nested, {"normalize_obs": True}),
        (Hybrid, {}),
    ],
    ids=str,
)
def test_ppo_on_cuda_updates_with_any_option(env: Any, options: dict[str, Any], tmp_path: Path) -> None:
    def make(steps: int) -> AsyncPPO:
        made = gym.make(env) if isinstance(env, str) else env()
        agent = PPO.for_env(made, batch_size=256, mini_batch_size=64, device="cuda", seed=0, **options)
        return AsyncPPO(env, agent, 4, steps, seed=0, backend="inline", progress=False)

    with make(600) as trainer:
        trainer.run()
        trainer.save_checkpoint(tmp_path / "state")
    with make(1_000) as trainer:
        trainer.load_checkpoint(tmp_path / "state")
        losses = [value for name, value in trainer.run()[-1].items() if "loss" in name]
    assert losses
    assert np.isfinite(losses).all()


def test_ppo_on_cuda_learns_as_on_the_cpu() -> None:
    agents = [
        PPO(True, 4, 2, batch_size=256, mini_batch_size=64, learner="torch", device=device, seed=0)
        for device in ("cpu", "cuda")
    ]
    expected, metrics = (_one_update(ppo) for ppo in agents)
    assert metrics == pytest.approx(expected, rel=1e-2, abs=1e-3)


@pytest.mark.parametrize("kind", [DQN, DDPG, TD3, SAC])
def test_off_policy_agents_on_cuda_act_and_learn(kind: type[Any], tmp_path: Path) -> None:
    env_id = "CartPole-v1" if kind is DQN else "Pendulum-v1"
    agent = kind.for_env(env_id, device="cuda", normalize_obs=True, learning_starts=200, batch_size=64, seed=0)
    with AsyncTrainer(env_id, agent, 4, 600, seed=0, backend="inline", progress=False) as trainer:
        history = trainer.run()
        trainer.save_checkpoint(tmp_path / "state")
    losses = [value for name, value in history[-1].items() if "loss" in name]
    assert losses
    assert np.isfinite(losses).all()
    with AsyncTrainer(env_id, agent, 4, 800, seed=0, backend="inline", progress=False) as trainer:
        trainer.load_checkpoint(tmp_path / "state")
        trainer.run()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (DQN, {"target_update_interval": 3, "tau": 1.0, "prioritized": True}),
        (DDPG, {"action_l2": 0.1}),
        (TD3, {}),
        (SAC, {"n_step": 3}),
    ],
)
def test_updates_that_a_gpu_replays_are_those_of_the_cpu(kind: type[Any], options: dict[str, Any]) -> None:
    """The learning rate changes from update to update; the first three of each kind are not replayed."""
    env_id, metrics, agents = "CartPole-v1" if kind is DQN else "Pendulum-v1", [], []
    for device in ("cpu", "cuda"):
        agent = kind.for_env(
            env_id, device=device, anneal_lr=True, lr=1e-2, learning_starts=100, batch_size=64, seed=0, **options
        )
        rng = np.random.default_rng(0)
        obs = rng.normal(size=(101, *agent.observation_space.shape)).astype(np.float32)
        actions = rng.integers(2, size=100) if kind is DQN else rng.uniform(-2, 2, (100, 1)).astype(np.float32)
        ends = np.arange(100) == 99
        trajectory = Trajectory(0, obs[:100], actions, rng.normal(size=100), ends, ~ends & False, obs[1:][[-1]])
        agent.observe([trajectory])
        for number in range(1, 21):
            agent.steps += 1
            metrics.append(agent.update(number / 40))
        agents.append(agent)
    one, other = agents
    for name, learner in one.learners.items():
        moved = (learner.vector - kind.for_env(env_id, seed=0, **options).learners[name].vector).abs().max().item()
        torch.testing.assert_close(other.learners[name].vector.cpu(), learner.vector, rtol=0, atol=0.02 * moved)
    for ours, theirs in zip(metrics[:20], metrics[20:], strict=True):
        assert theirs == pytest.approx(ours, rel=1e-2, abs=1e-3)
    obs = np.float32(np.zeros((2, *one.observation_space.shape)))
    assert np.array_equal(
        copy.deepcopy(other).get_action(obs, deterministic=True), other.get_action(obs, deterministic=True)
    )


def test_ranks_that_share_a_gpu_sum_by_the_cpu() -> None:
    parts = [torch.full((5,), 2.0**number, device="cuda") for number in range(3)]
    for total in on_ranks(3, lambda ranks: ranks.all_reduce(parts[ranks.rank])):
        assert total.is_cuda
        assert total.tolist() == [7.0] * 5


def test_two_ranks_on_a_gpu_learn_together() -> None:
    def learn(ranks: Cluster) -> torch.Tensor:
        ppo = PPO.for_env("CartPole-v1", batch_size=256, mini_batch_size=64, device="cuda", seed=0)
        with AsyncPPO("CartPole-v1", ppo, 8, 1_000, seed=0, backend="inline", progress=False, ranks=ranks) as trainer:
            trainer.run()
        return torch.cat([parameter.detach().cpu().ravel() for parameter in ppo.policy.parameters()])

    first, second = on_ranks(2, learn)
    assert torch.equal(first, second)


def test_nccl_sums_on_the_gpu() -> None:
    vector = torch.arange(5.0, device="cuda")
    nccl_group(HashStore(), 0, 1, timedelta(seconds=30)).allreduce([vector]).wait()
    assert vector.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs several GPUs")
def test_ranks_that_have_own_gpus_sum_by_nccl(tmp_path: Path) -> None:
    context = get_context("spawn")
    totals = context.SimpleQueue()
    processes = [context.Process(target=_sum, args=(tmp_path / "store", number, totals)) for number in range(2)]
    for process in processes:
        process.start()
    found = [totals.get() for _ in processes]
    for process in processes:
        process.join()
    assert found == [[3.0] * 5] * 2


def _sum(path: Path, number: int, totals: Any) -> None:
    take_gpu(number)
    with Gloo(FileStore(str(path), 2), number, 2) as ranks:
        totals.put(ranks.all_reduce(torch.full((5,), 1.0 + number, device="cuda")).tolist())


def _one_update(ppo: PPO) -> dict[str, float]:
    rng = np.random.default_rng(0)
    obs, flags = rng.normal(size=(256, 4)).astype(np.float32), np.zeros(256, bool)
    action, extras = ppo.act(obs)
    ppo.memory.append(Trajectory(0, obs, action, rng.normal(size=256), flags, flags, obs[:1], extras))
    return ppo.learn()
