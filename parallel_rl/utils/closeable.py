"""Closeable: the base of classes with `close`, which a `with` block calls."""

from typing import Self


class Closeable:
    """A context manager that closes itself at the end of the block."""

    def close(self) -> None:
        """Release everything; may be called twice."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        """Return the object."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close it."""
        self.close()
