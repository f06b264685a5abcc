"""Closeable: the base of classes whose `close` a `with` block calls at its end."""

from typing import Self


class Closeable:
    """A context manager that closes itself at the end of the block."""

    def close(self) -> None:
        """Release everything; may be called twice."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
