"""What the fast suite runs of a product."""

from itertools import product

from tests.covering import covering

CASES = [dict(zip("abc", values, strict=True)) for values in product(range(4), range(3), range(2))]


def test_every_value_occurs_in_as_many_cases_as_the_longest_parameter_has() -> None:
    chosen = [CASES[number] for number in covering(CASES)]
    assert len(chosen) == 4
    assert {(name, value) for case in chosen for name, value in case.items()} == {
        (name, value) for case in CASES for name, value in case.items()
    }


def test_every_pair_of_values_occurs() -> None:
    chosen = [CASES[number] for number in covering(CASES, 2)]
    assert len(chosen) < len(CASES) * 2 / 3
    for one, other in ("ab", "ac", "bc"):
        assert len({(case[one], case[other]) for case in chosen}) == len({(case[one], case[other]) for case in CASES})
