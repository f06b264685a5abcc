"""A progress bar that raises no errors and writes lines into files, and a warning about long waits."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

IN_NOTEBOOK = "IPython" in sys.modules
if not IN_NOTEBOOK:
    from tqdm import tqdm
else:  # in a notebook a bar of HTML; elsewhere this import would only cost time
    from tqdm.auto import tqdm

logger = logging.getLogger(__name__)
LONG_SECONDS = 60.0
"""Seconds after which a wait is logged."""
FIRST_LINE, LINES_APART = 1.0, 60.0
"""Seconds until the first line of a bar that is not in a terminal, and at most between two: each pause doubles."""


class Bar(tqdm):
    """A bar of tqdm that ignores a closed terminal or pipe.

    Where standard error is not a terminal (a file, the log of a job), it writes lines now and then, and one at its end.
    """

    monitor_interval = 0  # no thread that watches the bar: with Python 3.12 a process with threads should not fork
    _lock = threading.RLock()  # tqdm's own lock is shared between processes: a killed one would hold it

    _due, _pause = 0.0, 0.0  # when the next line is due, and how long after the last one

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Make a bar that looks at the clock in every update, since nothing watches it."""
        super().__init__(*args, **kwargs | {"miniters": 1})

    def display(self, *args: Any, **kwargs: Any) -> None:
        """Draw the bar, or write a line if one is due."""
        with suppress(OSError):
            if not self._writes_lines():
                super().display(*args, **kwargs)
            elif not self._due:  # the bar is new
                self._due = time.monotonic() + FIRST_LINE
            elif time.monotonic() >= self._due:
                self._pause = min(2 * (self._pause or FIRST_LINE), LINES_APART)
                self._due = time.monotonic() + self._pause
                self.fp.write(f"{self}\n")

    def clear(self, *args: Any, **kwargs: Any) -> None:
        """Clear the bar, to print something else."""
        if not self._writes_lines():
            super().clear(*args, **kwargs)

    def close(self) -> None:
        """Close the bar, and leave it on the screen."""
        with suppress(OSError):
            if not self.disable and self._writes_lines():
                if self.leave:
                    self.fp.write(f"{self}\n")
                self.sp = None  # for tqdm, a bar that draws itself
            super().close()

    def _writes_lines(self) -> bool:
        return not (IN_NOTEBOOK or self.disable or getattr(self.fp, "isatty", bool)())

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
