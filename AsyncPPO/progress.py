"""A progress bar that raises no errors, and a warning about long waits."""

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

if "IPython" not in sys.modules:
    from tqdm import tqdm
else:  # in a notebook a bar of HTML; elsewhere this import would only cost time
    from tqdm.auto import tqdm

logger = logging.getLogger(__name__)
LONG_SECONDS = 60.0
"""Seconds after which a wait is logged."""


class Bar(tqdm):
    """A bar of tqdm that ignores a closed terminal or pipe."""

    _lock = threading.RLock()  # tqdm's own lock is shared between processes: a killed one would hold it

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
def warn_if_long(describe_wait: Callable[[], str]) -> Iterator[None]:
    """Log a warning if the block takes more than a minute; `describe_wait` says what it waits for."""

    def tell() -> None:
        logger.warning("still waiting, after %g seconds, for %s", LONG_SECONDS, describe_wait())

    timer = threading.Timer(LONG_SECONDS, tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
