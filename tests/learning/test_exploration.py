"""DeepSea: a treasure that only deep exploration finds."""

import pytest

from benchmarks.companions import finds_the_treasure


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("explorer", "least", "most"), [("RND", 4, 5), ("count bonus", 4, 5), ("PPO alone", 0, 0)])
def test_only_a_companion_finds_the_treasure(explorer: str, least: int, most: int) -> None:
    """One of five seeds may fail: which one does depends on the last bits, and so on the number of torch's threads."""
    assert least <= sum(finds_the_treasure(explorer, seed) for seed in range(5)) <= most
