"""Which cases of a test the fast suite runs."""

from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from typing import Any

import pytest


def rest_slow(*cases: Any) -> list[Any]:
    """Return cases for `parametrize` of which all but the first are slow."""
    return [cases[0], *(pytest.param(case, marks=pytest.mark.slow) for case in cases[1:])]


def covering(cases: Sequence[Mapping[str, Hashable]], strength: int = 1) -> set[int]:
    """Return the numbers of few cases in which every value of every parameter occurs, or with strength 2 every pair.

    Where the choice is free it is the first: list what is cheapest, such as the inline backend, first.
    """
    parts = [set(combinations(sorted(case.items()), min(strength, len(case)))) for case in cases]
    missing: set[tuple[tuple[str, Hashable], ...]] = set().union(*parts)
    chosen: set[int] = set()
    while missing:
        gains = [len(part & missing) for part in parts]
        best = gains.index(max(gains))
        chosen.add(best)
        missing -= parts[best]
    return chosen
