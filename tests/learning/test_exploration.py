"""DeepSea: a treasure that only deep exploration finds."""

import pytest

from benchmarks.companions import finds_the_treasure


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("explorer", "finds"), [("RND", True), ("count bonus", True), ("PPO alone", False)])
def test_only_a_companion_finds_the_treasure(explorer: str, finds: bool, seed: int) -> None:
    assert finds_the_treasure(explorer, seed) == finds
