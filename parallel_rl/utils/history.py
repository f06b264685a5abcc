"""The metrics of a run, stored compactly."""

import math
from array import array
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import overload

Metrics = dict[str, float]


class History(Sequence[Metrics]):
    """A list of dicts of numbers with the same keys, stored in eight bytes for each number.

    A later row may have a new key; earlier rows then have NaN. The numbers of a key are ints if all of them are.
    """

    def __init__(self, rows: Iterable[Metrics] = ()) -> None:
        self._columns: dict[str, array[float]] = {}
        self._types: dict[str, type] = {}
        self._length = 0
        for row in rows:
            self.append(row)

    def append(self, row: Metrics) -> None:
        """Add a row.

        Raises:
            ValueError: a key of the earlier rows is missing, or a new one is not a text of one line.
            TypeError: a value is not a number.
        """
        self._check(row)
        for name in [name for name in row if name not in self._columns]:
            self._types[name] = float if self._length else int
            self._columns[name] = array("d", [math.nan]) * self._length
        for name, column in self._columns.items():
            column.append(row[name])
            if not isinstance(row[name], Integral):
                self._types[name] = float
        self._length += 1

    def replace_last(self, row: Metrics) -> None:
        """Replace the last row; the errors are those of `append`, and then nothing is changed."""
        self._check(row)
        for column in self._columns.values():
            column.pop()
        self._length -= 1
        self.append(row)

    def _check(self, row: Metrics) -> None:
        if gone := self._columns.keys() - row.keys():
            raise ValueError(f"metrics are missing that the rows before have: {sorted(gone)}")
        for name, value in row.items():
            if name not in self._columns and not (isinstance(name, str) and name and name.isprintable()):
                raise ValueError(f"the name of a metric must be a text of one line, not {name!r}")
            try:
                value.__float__()  # a text has none
            except (AttributeError, TypeError, ValueError):
                raise TypeError(f"the metric {name!r} must be a number, not {value!r}") from None

    @property
    def columns(self) -> list[str]:
        """The keys of the rows."""
        return [*self._columns]

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Metrics: ...
    @overload
    def __getitem__(self, index: slice) -> list[Metrics]: ...
    def __getitem__(self, index: int | slice) -> Metrics | list[Metrics]:
        """Return a row, or a list of rows for a slice."""
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(self._length))]
        if not -self._length <= index < self._length:
            raise IndexError("history index out of range")
        return {name: self._types[name](column[index]) for name, column in self._columns.items()}
