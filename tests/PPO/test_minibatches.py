"""Advantages in minibatches against numbers worked out by hand."""

from typing import Any

import numpy as np
import pytest
import torch

from parallel_rl.utils import ALONE, Ranks
from PPO.minibatches import standardize
from tests.ranks import on_ranks

KINDS = [torch.tensor, lambda numbers: np.array(numbers, np.float32)]


@pytest.mark.parametrize("kind", KINDS)
def test_each_minibatch_is_standardized_by_its_own_mean_and_deviation(kind: Any) -> None:
    advantage = kind([1.0, 2.0, 3.0, 10.0, 30.0, 5.0, 4.0, 4.0])
    standardize(ALONE, advantage, [0, 3, 5, 6, 8])
    half = 0.5**0.5
    single = 5.0  # has no deviation to divide by
    np.testing.assert_allclose(advantage, [-1.0, 0.0, 1.0, -half, half, single, 0.0, 0.0], rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_on_ranks_a_minibatch_is_that_of_all_ranks(kind: Any) -> None:
    """The rows 1, 2 and 3 are one minibatch of both ranks, and 10 and 30 the other."""

    def body(ranks: Ranks) -> list[float]:
        advantage = kind([[1.0, 3.0, 30.0], [2.0, 10.0]][ranks.rank])
        standardize(ranks, advantage, [[0, 2, 3], [0, 1, 2]][ranks.rank])
        return advantage.tolist()

    half = 0.5**0.5
    assert on_ranks(2, body) == [pytest.approx([-1.0, 1.0, half]), pytest.approx([0.0, -half], abs=1e-6)]
