"""A progress bar that ends nothing."""

from contextlib import suppress
from typing import Any

from tqdm import tqdm


class Bar(tqdm):
    """A bar of tqdm; where nobody can see it any more (a closed terminal or pipe) it is silent."""

    def display(self, *args: Any, **kwargs: Any) -> None:
        """Show itself."""
        with suppress(OSError):
            super().display(*args, **kwargs)

    def close(self) -> None:
        """Stay as it is."""
        with suppress(OSError):
            super().close()
