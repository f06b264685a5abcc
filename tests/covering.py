"""Which cases of a test the fast suite runs."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from typing import Any

import pytest


def rest_slow(*cases: Any) -> list[Any]:
    """Return cases for `parametrize` of which all but the first are slow."""
    return [cases[0], *(pytest.param(case, marks=pytest.mark.slow) for case in cases[1:])]


def covering(cases: Sequence[Mapping[str, Hashable]], strength: int = 1) -> set[int]:
    """Return the numbers of few cases in which every value of every parameter occurs, or with strength 2 every pair."""
    parts = [set(combinations(sorted(case.items()), min(strength, len(case)))) for case in cases]
    missing: set[tuple[tuple[str, Hashable], ...]] = set().union(*parts)
    chosen: set[int] = set()
    used: Counter[tuple[str, Hashable]] = Counter()
    while missing:
        gains = [
            (len(part & missing), -sum(used[each] for each in case.items()))
            for part, case in zip(parts, cases, strict=True)
        ]
        best = gains.index(max(gains))
        chosen.add(best)
        used.update(cases[best].items())
        missing -= parts[best]
    return chosen
