"""A progress bar that never ends a run, and a warning about long waits."""

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tqdm import tqdm

logger = logging.getLogger(__name__)
LONG_SECONDS = 60.0
"""Seconds after which a wait is logged."""


class Bar(tqdm):
    """A bar of tqdm that is silent once its terminal or pipe is closed."""

    _lock = threading.RLock()  # tqdm's own lock is shared between processes, and a killed process would leave it behind

    def display(self, *args: Any, **kwargs: Any) -> None:
        """Draw the bar."""
        with suppress(OSError):
            super().display(*args, **kwargs)

    def close(self) -> None:
        """Close the bar, and leave it on the screen."""
        with suppress(OSError):
            super().close()

    @classmethod
    def note(cls, text: str) -> None:
        """Print a line on standard error, above the bars."""
        if sys.stderr is not None:
            with suppress(OSError):
                cls.write(text, file=sys.stderr)


@contextmanager
def tell_if_long(waits_for: Callable[[], str]) -> Iterator[None]:
    """Log one warning if the block takes more than a minute; `waits_for` returns the reason for the message."""

    def tell() -> None:
        logger.warning("still waiting, after %g seconds, for %s", LONG_SECONDS, waits_for())

    timer = threading.Timer(LONG_SECONDS, tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
