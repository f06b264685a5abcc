"""What is shown while one waits: a progress bar that ends nothing, and a word about what takes long."""

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tqdm import tqdm

logger = logging.getLogger(__name__)
LONG_SECONDS = 60.0
"""After how many it is said what is waited for."""


class Bar(tqdm):
    """A bar of tqdm; where nobody can see it any more (a closed terminal or pipe) it is silent."""

    _lock = threading.RLock()  # tqdm's is one between processes, which a process that is killed leaves behind

    def display(self, *args: Any, **kwargs: Any) -> None:
        """Show itself."""
        with suppress(OSError):
            super().display(*args, **kwargs)

    def close(self) -> None:
        """Stay as it is."""
        with suppress(OSError):
            super().close()

    @classmethod
    def note(cls, text: str) -> None:
        """Show a line on standard error, above the bars."""
        if sys.stderr is not None:
            with suppress(OSError):
                cls.write(text, file=sys.stderr)


@contextmanager
def tell_if_long(waits_for: Callable[[], str]) -> Iterator[None]:
    """Warn, once, if the block takes more than a minute; `waits_for` says then what it waits for."""

    def tell() -> None:
        logger.warning("still waiting, after %g seconds, for %s", LONG_SECONDS, waits_for())

    timer = threading.Timer(LONG_SECONDS, tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
