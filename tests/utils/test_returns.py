"""Advantages against numbers worked out by hand, and against a slow loop."""

import numpy as np
import pytest

from utils import discounted_sums, gae


def slow_gae(
    rewards: np.ndarray, values: np.ndarray, next_values: np.ndarray, terminated: np.ndarray, ends: np.ndarray,
    gamma: float, gae_lambda: float,
) -> np.ndarray:  # fmt: skip
    """Equation 16 as it stands: the sum of discounted deltas up to the end of the segment."""
    advantages = np.zeros(len(rewards))
    for t in range(len(rewards)):
        weight = 1.0
        for k in range(t, len(rewards)):
            following = 0.0 if terminated[k] else next_values[k]
            advantages[t] += weight * (rewards[k] + gamma * following - values[k])
            weight *= gamma * gae_lambda
            if ends[k]:
                break
    return advantages


def test_discounted_sums() -> None:
    sums = discounted_sums(np.array([1.0, 2.0, 4.0]), np.array([0.5, 0.5, 0.0]), initial=2.0)
    assert sums.tolist() == [2.0, 3.0, 4.0]


def test_a_termination_bootstraps_zero_and_a_cut_the_next_value() -> None:
    common = {
        "rewards": np.ones(1),
        "values": np.array([2.0]),
        "next_values": np.array([10.0]),
        "ends": np.ones(1, bool),
    }
    assert gae(**common, terminated=np.array([True]), gamma=0.5, gae_lambda=0.9).tolist() == [-1.0]
    assert gae(**common, terminated=np.array([False]), gamma=0.5, gae_lambda=0.9).tolist() == [4.0]


def test_two_stretches_worked_out_by_hand() -> None:
    """Gamma 1/2, lambda 1/2. Stretch one: terminated at its second row. Stretch two: cut at its second row."""
    advantages = gae(
        rewards=np.array([1.0, 2.0, 3.0, 4.0]),
        values=np.array([1.0, 1.0, 2.0, 2.0]),
        next_values=np.array([1.0, 99.0, 2.0, 6.0]),
        terminated=np.array([False, True, False, False]),
        ends=np.array([False, True, False, True]),
        gamma=0.5,
        gae_lambda=0.5,
    )
    # deltas: 1 + .5 - 1 = .5;  2 - 1 = 1;  3 + 1 - 2 = 2;  4 + 3 - 2 = 5
    assert advantages.tolist() == [0.5 + 0.25 * 1, 1.0, 2 + 0.25 * 5, 5.0]


@pytest.mark.parametrize(("gamma", "gae_lambda"), [(0.99, 0.95), (1.0, 1.0), (0.9, 0.0), (0.0, 0.5)])
def test_against_a_slow_loop(gamma: float, gae_lambda: float) -> None:
    rng = np.random.default_rng(0)
    rewards, values, next_values = rng.normal(size=(3, 200))
    terminated = rng.random(200) < 0.05
    ends = terminated | (rng.random(200) < 0.05)
    arguments = (rewards, values, next_values, terminated, ends, gamma, gae_lambda)
    np.testing.assert_allclose(gae(*arguments), slow_gae(*arguments), rtol=1e-12)


def test_lambda_one_without_values_is_the_discounted_return() -> None:
    zeros, rewards = np.zeros(3), np.array([1.0, 1.0, 1.0])
    ends = np.array([False, False, True])
    assert gae(rewards, zeros, zeros, ends, ends, 0.5, 1.0).tolist() == [1.75, 1.5, 1.0]
