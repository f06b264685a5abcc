"""The metrics of a run, row by row, in little memory."""

from array import array
from collections.abc import Iterable, Sequence
from typing import overload

Metrics = dict[str, float]


class History(Sequence[Metrics]):
    """A list of dicts of numbers with the same keys; eight bytes for each number, so that it may go on for days."""

    def __init__(self, rows: Iterable[Metrics] = ()) -> None:
        """Begin with some rows."""
        self._columns: dict[str, array[float]] = {}
        self._types: dict[str, type] = {}
        self._length = 0
        for row in rows:
            self.append(row)

    def append(self, row: Metrics) -> None:
        """Add a row.

        Raises:
            ValueError: its keys are others than those of the first one.
        """
        if not self._length:
            self._types = {name: type(value) for name, value in row.items()}
            self._columns = {name: array("d") for name in row}
        if row.keys() != self._columns.keys():
            gone, new = self._columns.keys() - row.keys(), row.keys() - self._columns.keys()
            raise ValueError(f"the metrics changed: {sorted(gone)} went, {sorted(new)} came")
        for name, column in self._columns.items():
            column.append(row[name])
        self._length += 1

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._length

    @overload
    def __getitem__(self, index: int) -> Metrics: ...
    @overload
    def __getitem__(self, index: slice) -> list[Metrics]: ...
    def __getitem__(self, index: int | slice) -> Metrics | list[Metrics]:
        """Return a row, or the list of some."""
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(self._length))]
        if not -self._length <= index < self._length:
            raise IndexError("history index out of range")
        return {name: self._types[name](column[index]) for name, column in self._columns.items()}
