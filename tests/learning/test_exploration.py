"""DeepSea: a treasure that only deep exploration finds."""

import pytest

from benchmarks.companions import finds_the_treasure


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("explorer", "least", "most"), [("RND", 5, 5), ("count bonus", 3, 5), ("PPO alone", 0, 0)])
def test_only_a_companion_finds_the_treasure(explorer: str, least: int, most: int) -> None:
    """With the count bonus some seeds fail: which do depends on the last bits, and so on the threads of torch."""
    assert least <= sum(finds_the_treasure(explorer, seed) for seed in range(5)) <= most
