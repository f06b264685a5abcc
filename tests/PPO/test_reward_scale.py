"""Training does not depend on the scale of rewards."""

import warnings
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from parallel_rl.utils import Trajectory, reward_unit
from PPO import PPO

ROWS = 64


def agent(**settings: Any) -> PPO:
    return PPO(
        **(
            {
                "is_continuous": False,
                "observ_dim": 4,
                "action_dim": 3,
                "hidden_sizes": (16,),
                "k_epochs": 3,
                "batch_size": ROWS,
                "seed": 0,
            }
            | settings
        )
    )


def teach(ppo: PPO, scale: float, updates: int = 4, zeros: int = 0) -> list[dict[str, float]]:
    """Let an agent learn from the same experience with scaled rewards; the first updates have no reward."""
    metrics = []
    for update in range(updates):
        rng = np.random.default_rng(update)
        obs = rng.normal(size=(ROWS, 4)).astype(np.float32)
        action, extras = ppo.act(obs)
        reward = np.float32(0 if update < zeros else scale) * (obs[:, 0] + np.float32(0.5))
        over = rng.random(ROWS) < 0.1
        truncated = np.zeros(ROWS, bool)
        final_obs = obs[: over.sum() + (not over[-1])]
        ppo.memory.append(Trajectory(0, obs, action, reward, over, truncated, final_obs, extras))
        metrics.append(ppo.learn())
    return metrics


def weights(ppo: PPO) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in ppo.policy.parameters()])


SETTINGS: dict[str, dict[str, Any]] = {
    "analytic": {},
    "torch": {"learner": "torch"},
    "continuous": {"is_continuous": True},
    "batch": {"normalize_advantage": "batch", "recompute_advantage": True},
    "returns": {"normalize_advantage": "returns", "value_clip": 0.2},
}


@pytest.mark.covering
@pytest.mark.parametrize("exponents", [(-40, -25, -80), (45, 60, 80)])
@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("zeros", [0, 2])
def test_rewards_times_a_power_of_two_train_bit_identical(exponents: tuple[int, ...], kind: str, zeros: int) -> None:
    agents = [agent(**SETTINGS[kind]) for _ in exponents]
    metrics = [teach(ppo, 2.0**exponent, zeros=zeros) for ppo, exponent in zip(agents, exponents, strict=True)]
    assert metrics[1:] == metrics[:-1]
    for ppo, exponent in zip(agents[1:], exponents[1:], strict=True):
        assert torch.equal(weights(ppo), weights(agents[0]))
        factor = 2.0 ** (exponent - exponents[0])
        assert torch.equal(ppo.policy.value_head.stats.mean, factor * agents[0].policy.value_head.stats.mean)


@cache
def taught(kind: str, scale: float, zeros: int) -> tuple[PPO, list[dict[str, float]]]:
    ppo = agent(**SETTINGS[kind], lr=1e-4)  # rounding has no time to grow
    return ppo, teach(ppo, scale, zeros=zeros)


@pytest.mark.covering
@pytest.mark.parametrize("scale", [1e-28, 1e-18, 1e-9, 1e-6, 1e-4, 1e6, 1e12, 1e28])
@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("zeros", [0, 2])
def test_rewards_of_any_scale_train_as_rewards_of_one(scale: float, kind: str, zeros: int) -> None:
    (usual, expected), (other, found) = taught(kind, 1.0, zeros), taught(kind, scale, zeros)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=0.05, abs=5e-3)
    obs = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(other.policy.value(obs) / scale, usual.policy.value(obs), rtol=0.05, atol=0.05)


def test_the_unit_is_one_for_ordinary_rewards_and_a_power_of_two_for_others() -> None:
    assert {reward_unit(size) for size in (0.0, 1e-3, 1.0, 200.0, 1e12, np.inf, np.nan)} == {1.0}
    assert [reward_unit(size) for size in (2.0**-20, 1.9 * 2.0**-20, 2.0**50)] == [2.0**-20, 2.0**-20, 2.0**50]


def test_state_records_whether_there_were_rewards() -> None:
    whole, first = agent(), agent()
    teach(whole, 2.0**-40, zeros=2)
    teach(first, 2.0**-40, updates=2, zeros=2)
    second = agent(seed=1)
    second.load_state(first.state())
    assert not second.rewarded
    earlier = {name: part for name, part in whole.state().items() if name != "rewarded"}
    second.load_state(earlier)
    assert second.rewarded, "an earlier state is that of an agent whose values are in units of its rewards"


def test_an_agent_that_goes_on_from_weights_keeps_their_unit(tmp_path: Any) -> None:
    ppo, other = agent(), agent(seed=1)
    teach(ppo, 1e-12)
    ppo.save_weights(tmp_path)
    other.load_weights(tmp_path)
    before = other.policy.value(torch.zeros(1, 4)).item()
    assert before == ppo.policy.value(torch.zeros(1, 4)).item() != 0
    teach(other, 1e-12, updates=1)
    assert 1e-13 < other.policy.value_head.stats.std.item() < 1e-11


@pytest.mark.parametrize("scale", [np.nan, np.inf])
def test_rewards_that_are_not_finite_are_named(scale: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with pytest.raises(FloatingPointError, match=r"\(then also rewards, "):
            teach(agent(), scale, updates=1)


@pytest.mark.parametrize("scale", [1e-33, 1e33])
def test_rewards_beyond_single_precision_give_a_warning(scale: float) -> None:
    with pytest.warns(UserWarning, match=r"rewards of .* are beyond single precision: scale them to between 1e-30 and"):
        teach(agent(), scale, updates=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        teach(agent(), 1.0, updates=2, zeros=1)
