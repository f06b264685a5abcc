"""Recurrent policies."""

from typing import Any

import numpy as np
import pytest
import torch

from AsyncPPO import AsyncPPO, EnvVectorizer, VecMemory
from AsyncPPO.collector import Collector
from parallel_rl.utils import Trajectory, buffer_to_target_buffer_transfer
from PPO import PPO, losses
from PPO.memory import Rows
from tests.covering import rest_slow
from tests.envs import Counter

CORES = pytest.mark.parametrize("core", ["gru", "lstm"])


def agent(core: Any, **kwargs: Any) -> PPO:
    return PPO(False, 2, 3, core=core, core_size=8, seed=0, **({"batch_size": 60, "mini_batch_size": 20} | kwargs))


def collected(ppo: PPO, steps: int = 20, autoreset: bool = True) -> None:
    """Fill the agent's memory with 3 environments of 7-step episodes; trajectories stop inside one."""
    with EnvVectorizer(lambda: Counter(7), 3, backend="inline", seed=0, autoreset=autoreset) as env:
        buffer = VecMemory(3)
        collector = Collector(env, ppo, buffer)
        for _ in range(steps):
            collector.collect(1)
        buffer_to_target_buffer_transfer(buffer, ppo.memory)


@CORES
def test_first_probability_ratio_of_an_update_is_one(core: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Learning rebuilds the recurrent states that the policy acted with, from any start and across ends of episodes."""
    seen = []
    surrogate = losses.clipped_surrogate

    def spy(log_prob: torch.Tensor, old: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append((log_prob - old).abs().max().item())
        return surrogate(log_prob, old, *rest)

    monkeypatch.setattr(losses, "clipped_surrogate", spy)
    ppo = agent(core, mini_batch_size=60, k_epochs=2)
    with torch.no_grad():
        ppo.policy.policy_head.logits.weight.mul_(100)  # type: ignore[operator, union-attr]
    for autoreset in (True, False):
        collected(ppo, autoreset=autoreset)
        seen.clear()
        ppo.learn()
        assert seen[0] < 1e-5
        assert seen[1] > 1e-4


@CORES
def test_recurrent_state_is_zero_at_a_reset_and_carried_otherwise(core: Any) -> None:
    ppo = agent(core)
    collected(ppo)
    batch = ppo.memory.batch()
    states = batch.extras["state"]
    first = batch.obs[:, 1] == 0
    assert first.sum() == 9
    assert not states[first].any()
    assert states[~first].any(axis=1).all()


def test_recurrent_minibatches_keep_sequences_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Rows] = []
    loss = losses.objective_loss

    def spy(objective: Any, policy: Any, rows: Rows) -> Any:
        seen.append(rows)
        return loss(objective, policy, rows)

    ppo = agent("gru", k_epochs=3)
    ppo.objective_loss = spy
    collected(ppo)
    ppo.learn()
    assert len(seen) == 9
    for rows in seen:
        step = rows.obs[:, 1]
        follows = step[1:] == step[:-1] + 1
        assert rows.starts[0]
        assert torch.equal(~rows.starts[1:], follows & ~rows.starts[1:])
        assert (step[rows.starts] % 7 == 0).all(), "each starts where an episode or a trajectory does"
    assert sum(len(rows.obs) for rows in seen) == 180


def test_a_recurrent_policy_needs_its_state() -> None:
    ppo = agent("gru")
    with pytest.raises(ValueError, match=r"pass state=, an array \(2, 8\)"):
        ppo.act(np.zeros((2, 2), np.float32))
    state = ppo.initial_state(2)
    assert state is not None
    ppo.get_action(np.ones((2, 2), np.float32), state=state)
    assert state.any()
    assert PPO(False, 2, 3).initial_state(2) is None
    with pytest.raises(ValueError, match="share_encoder=False"):
        agent("gru", share_encoder=False)


@pytest.mark.parametrize("mode", rest_slow("streaming", "mask"))
def test_recurrent_policy_trains_with_all_other_options(mode: Any) -> None:
    ppo = agent("lstm", use_RND=True, normalize_obs=True, value_clip=0.2, entropy_coef=0.01, target_kl=0.5)
    with AsyncPPO(lambda: Counter(7), ppo, 4, 400, mode=mode, backend="inline", seed=0, progress=False) as trainer:
        history = trainer.run()
    assert len(history) >= 3
    assert trainer.acting == "central"


@CORES
def test_recurrent_bootstrap_after_truncation_is_the_value_if_the_trajectory_continued(core: Any) -> None:
    """Also in the second epoch, where the weights that compute it are not those that acted."""
    ppo = agent(core, batch_size=30, mini_batch_size=30, k_epochs=2, recompute_advantage=True)
    ppo.normalize_advantage = "none"
    whole = collected_trajectory(ppo)
    part = Trajectory(
        0, whole.obs[:10], whole.action[:10], whole.reward[:10], whole.terminated[:10], whole.truncated[:10],
        whole.obs[10:11], {name: rows[:10] for name, rows in whole.extras.items()},
    )  # fmt: skip
    seen = []
    loss = losses.objective_loss

    def spy(objective: Any, policy: Any, rows: Rows) -> Any:
        seen.append(rows.advantage[rows.starts.nonzero()[:, 0] + 9])
        with torch.no_grad():
            policy.core.layer.weight_ih_l0.mul_(2)
        return loss(objective, policy, rows)

    ppo.objective_loss = spy
    for trajectory in (whole, part):
        ppo.memory.append(trajectory)
    ppo.learn()
    for continued, cut in seen:
        torch.testing.assert_close(continued, cut, rtol=0, atol=1e-5)
    assert (seen[0] - seen[1]).abs().min() > 1e-3


@torch.no_grad()
def collected_trajectory(ppo: PPO) -> Trajectory:
    """Return twenty rows of one episode, of an agent with one-step advantages and values that vary."""
    ppo.GAE_lambda = 0.0
    ppo.policy.value_head.normal.weight.mul_(100)
    with EnvVectorizer(lambda: Counter(100), 1, backend="inline", seed=0, autoreset=True) as env:
        buffer = VecMemory(1)
        collector = Collector(env, ppo, buffer)
        for _ in range(20):
            collector.collect(1)
    (whole,) = buffer.take()
    return whole
