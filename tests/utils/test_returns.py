"""Advantages against numbers worked out by hand, and against a slow loop."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from parallel_rl.utils import discounted_returns, discounted_sums, gae, n_step_returns, td_errors, v_trace


def slow_gae(
    rewards: np.ndarray, values: np.ndarray, next_values: np.ndarray, terminated: np.ndarray, ends: np.ndarray,
    gamma: float, gae_lambda: float,
) -> np.ndarray:  # fmt: skip
    """Equation 16 literally: the sum of discounted deltas up to the end of the segment."""
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


def test_discounted_sums_by_hand() -> None:
    sums = discounted_sums(np.array([1.0, 2.0, 4.0]), np.array([0.5, 0.5, 0.0]), initial=2.0)
    assert sums.tolist() == [2.0, 3.0, 4.0]


def test_gae_after_termination_bootstraps_zero_and_after_truncation_the_next_value() -> None:
    common = {
        "rewards": np.ones(1),
        "values": np.array([2.0]),
        "next_values": np.array([10.0]),
        "ends": np.ones(1, bool),
    }
    assert gae(**common, terminated=np.array([True]), gamma=0.5, gae_lambda=0.9).tolist() == [-1.0]
    assert gae(**common, terminated=np.array([False]), gamma=0.5, gae_lambda=0.9).tolist() == [4.0]


def test_gae_of_two_trajectories_by_hand() -> None:
    """Gamma 1/2, lambda 1/2. The first is terminated at its second row, the second truncated at its second row."""
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
def test_gae_against_a_slow_loop(gamma: float, gae_lambda: float) -> None:
    rng = np.random.default_rng(0)
    rewards, values, next_values = rng.normal(size=(3, 200))
    terminated = rng.random(200) < 0.05
    ends = terminated | (rng.random(200) < 0.05)
    arguments = (rewards, values, next_values, terminated, ends, gamma, gae_lambda)
    np.testing.assert_allclose(gae(*arguments), slow_gae(*arguments), rtol=1e-12)


def test_gae_with_lambda_one_and_no_values_is_the_discounted_return() -> None:
    zeros, rewards = np.zeros(3), np.array([1.0, 1.0, 1.0])
    ends = np.array([False, False, True])
    assert gae(rewards, zeros, zeros, ends, ends, 0.5, 1.0).tolist() == [1.75, 1.5, 1.0]


def random_rows(seed: int) -> dict[str, np.ndarray]:
    """Return 40 rows of a few episodes, of which some were only truncated."""
    rng = np.random.default_rng(seed)
    terminated = rng.random(40) < 0.1
    ends = terminated | (rng.random(40) < 0.1)
    ends[-1] = True
    values, next_values = rng.normal(size=(2, 40))
    return {
        "rewards": rng.normal(size=40), "values": values, "next_values": next_values, "terminated": terminated,
        "ends": ends,
    }  # fmt: skip


@pytest.mark.parametrize("kind", [bool, int])
def test_n_step_returns_by_hand(kind: type) -> None:
    """An episode of three steps that is truncated; then one that terminates."""
    returns = n_step_returns(
        rewards=np.array([1.0, 2.0, 4.0, 1.0, 1.0]),
        next_values=np.array([10.0, 20.0, 40.0, 8.0, 99.0]),
        terminated=np.array([False, False, False, False, True]),
        ends=np.array([0, 0, 1, 0, 1], kind),
        gamma=0.5,
        n=2,
    )
    assert returns.tolist() == [1 + 1 + 5, 2 + 2 + 10, 4 + 20, 1 + 0.5, 1]


@pytest.mark.parametrize("n", [1, 3, 100])
def test_n_step_returns_against_a_slow_loop(n: int) -> None:
    for seed in range(10):
        rows = random_rows(seed)
        del rows["values"]
        expected = np.zeros(40)
        for t in range(40):
            for k in range(min(n, 40 - t)):
                expected[t] += 0.9**k * rows["rewards"][t + k]
                if rows["ends"][t + k] or k == n - 1:
                    expected[t] += 0.0 if rows["terminated"][t + k] else 0.9 ** (k + 1) * rows["next_values"][t + k]
                    break
        np.testing.assert_allclose(n_step_returns(**rows, gamma=0.9, n=n), expected, rtol=1e-12)


def test_n_step_returns_of_no_step_are_an_error() -> None:
    rows = random_rows(0)
    del rows["values"]
    for n in (0, -3):
        with pytest.raises(ValueError, match="n must be at least 1"):
            n_step_returns(**rows, gamma=0.9, n=n)


def test_v_trace_clips_an_infinite_ratio() -> None:
    rows, log_ratio = random_rows(0), np.zeros(40)
    log_ratio[::3] = 1000.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = v_trace(log_ratio, **rows, gamma=0.9)
    np.testing.assert_array_equal(result, v_trace(np.zeros(40), **rows, gamma=0.9))


def test_v_trace_of_the_behavior_policy_is_gae_with_lambda_one() -> None:
    rows = random_rows(0)
    # where rows are linked, what follows is the next row's value
    rows["next_values"] = np.where(rows["ends"], rows["next_values"], np.roll(rows["values"], -1))
    targets, advantages = v_trace(np.zeros(40), **rows, gamma=0.9)
    expected = gae(**rows, gamma=0.9, gae_lambda=1.0)
    np.testing.assert_allclose(targets - rows["values"], expected, rtol=1e-10)
    np.testing.assert_allclose(advantages, expected, rtol=1e-10)


def test_v_trace_against_a_slow_loop() -> None:
    """Equation 1 literally: the sum over products of the trace coefficients."""
    for seed in range(10):
        rows = random_rows(seed)
        log_ratio = np.random.default_rng(seed + 100).normal(size=40)
        rho, c = np.minimum(np.exp(log_ratio), 1.5), np.minimum(np.exp(log_ratio), 0.8)
        following = np.where(rows["terminated"], 0.0, rows["next_values"])
        delta = rho * (rows["rewards"] + 0.9 * following - rows["values"])
        expected = rows["values"].copy()
        for s in range(40):
            weight = 1.0
            for t in range(s, 40):
                expected[s] += weight * delta[t]
                weight *= 0.9 * c[t]
                if rows["ends"][t]:
                    break
        targets, advantages = v_trace(log_ratio, **rows, gamma=0.9, rho_clip=1.5, c_clip=0.8)
        np.testing.assert_allclose(targets, expected, rtol=1e-10)
        after = np.where(rows["ends"], following, np.roll(expected, -1))
        np.testing.assert_allclose(advantages, rho * (rows["rewards"] + 0.9 * after - rows["values"]), rtol=1e-10)


def test_td_errors_by_hand() -> None:
    ones = np.ones(2)
    assert td_errors(ones, 2 * ones, 10 * ones, np.array([True, False]), 0.5).tolist() == [1 - 2, 1 + 5 - 2]


def test_discounted_returns_by_hand() -> None:
    """An episode of two steps that is truncated; one of one step that terminates; one that stops in the middle."""
    returns = discounted_returns(
        rewards=np.array([1.0, 2.0, 4.0, 1.0, 1.0]),
        next_values=np.array([70.0, 8.0, 70.0, 70.0, 16.0]),
        terminated=np.array([False, False, True, False, False]),
        ends=np.array([False, True, True, False, False]),
        gamma=0.5,
    )
    assert returns.tolist() == [1 + 3, 2 + 4, 4, 1 + 4.5, 1 + 8]


SIDE_BY_SIDE = {
    "rewards": np.array([[1.0, 1.0], [2.0, 1.0], [4.0, 1.0]]),
    "next_values": np.array([[70.0, 4.0], [8.0, 99.0], [16.0, 32.0]]),
    "terminated": np.array([[False, False], [False, True], [False, False]]),
    "ends": np.array([[False, False], [True, True], [False, False]]),
}  # fmt: skip
"""Two environments, three steps: an episode that is truncated after two, and one that terminates after two."""


def test_discounted_returns_time_major_by_hand() -> None:
    assert discounted_returns(**SIDE_BY_SIDE, gamma=0.5).tolist() == [[1 + 3, 1 + 0.5], [2 + 4, 1], [4 + 8, 1 + 16]]


def test_n_step_returns_time_major_by_hand() -> None:
    returns = n_step_returns(**SIDE_BY_SIDE, gamma=0.5, n=2)
    assert returns.tolist() == [[1 + 3, 1 + 0.5], [2 + 4, 1], [4 + 8, 1 + 16]]
    assert n_step_returns(**SIDE_BY_SIDE, gamma=0.5, n=1)[0].tolist() == [1 + 35, 1 + 2]


def test_gae_time_major_by_hand() -> None:
    """Gamma 1/2, lambda 1/2, all values 2."""
    advantages = gae(**SIDE_BY_SIDE, values=np.full((3, 2), 2.0), gamma=0.5, gae_lambda=0.5)
    # deltas: 1 + 35 - 2, 1 + 2 - 2;  2 + 4 - 2, 1 - 2;  4 + 8 - 2, 1 + 16 - 2
    assert advantages.tolist() == [[34 + 0.25 * 4, 1 - 0.25], [4, -1], [10, 15]]


@pytest.mark.parametrize("function", [gae, discounted_returns, n_step_returns, v_trace])
def test_returns_time_major_are_those_of_each_environment(function: Callable[..., Any]) -> None:
    """For random rows of five environments, as arrays and as tensors."""
    columns = [random_rows(seed) for seed in range(5)]
    further: dict[Any, dict[str, Any]] = {gae: {"gae_lambda": 0.95}, n_step_returns: {"n": 3}}
    options = {"gamma": 0.9, **further.get(function, {})}
    for rows in columns:
        if function in (discounted_returns, n_step_returns):
            del rows["values"]
        if function is v_trace:
            rows["log_ratio"] = rows["rewards"] / 2
    expected = np.stack([np.atleast_2d(function(**rows, **options)) for rows in columns], axis=2)
    together = {name: np.stack([rows[name] for rows in columns], axis=1) for name in columns[0]}
    np.testing.assert_allclose(function(**together, **options), expected.squeeze(0) if len(expected) == 1 else expected)
    tensors = {name: torch.from_numpy(each) for name, each in together.items()}
    single = {name: each.float() if each.is_floating_point() else each for name, each in tensors.items()}
    results = function(**single, **options)
    for result, array in zip(results if function is v_trace else [results], expected, strict=True):
        assert result.dtype == torch.float32
        np.testing.assert_allclose(result, array, rtol=2e-6, atol=2e-6)


def test_returns_of_values_with_a_gradient_have_none() -> None:
    values = torch.ones(3, 2, requires_grad=True)
    rows = {name: torch.from_numpy(each) for name, each in SIDE_BY_SIDE.items()}
    advantages = gae(**rows, values=values, gamma=0.5, gae_lambda=0.5)
    assert not advantages.requires_grad
    assert advantages[2].tolist() == [11, 16]
