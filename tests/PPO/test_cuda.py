"""On a GPU: the same learning."""

import numpy as np
import pytest
import torch

from AsyncPPO import AsyncPPO
from parallel_rl.utils import Trajectory
from PPO import PPO

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.mark.parametrize("options", [{}, {"use_RND": True}, {"bf16": True}, {"normalize_obs": True, "compile": True}])
def test_ppo_on_cuda_acts_and_learns(options: dict[str, bool]) -> None:
    ppo = PPO(False, 4, 2, batch_size=512, mini_batch_size=128, device="cuda", seed=0, **options)
    with AsyncPPO("CartPole-v1", ppo, 16, 10_000, seed=0, progress=False) as trainer:
        history = trainer.run()
        assert trainer.acting == "central"
    assert next(ppo.policy.parameters()).is_cuda
    assert history[-1]["mean_return"] > history[0]["mean_return"]
    assert ppo.get_action(np.zeros((3, 4), np.float32)).shape == (3,)


def test_ppo_on_cuda_learns_as_on_the_cpu() -> None:
    agents = [
        PPO(True, 4, 2, batch_size=256, mini_batch_size=64, learner="torch", device=device, seed=0)
        for device in ("cpu", "cuda")
    ]
    expected, metrics = (_one_update(ppo) for ppo in agents)
    assert metrics == pytest.approx(expected, rel=1e-2, abs=1e-3)


def _one_update(ppo: PPO) -> dict[str, float]:
    rng = np.random.default_rng(0)
    obs, flags = rng.normal(size=(256, 4)).astype(np.float32), np.zeros(256, bool)
    action, extras = ppo.act(obs)
    ppo.memory.append(Trajectory(0, obs, action, rng.normal(size=256), flags, flags, obs[:1], extras))
    return ppo.learn()
