"""Print on standard output and on standard error, even if their pipes are closed."""

import os
import select
import sys

EXPECTED = ValueError, TypeError, OSError, RuntimeError, ImportError, ArithmeticError, MemoryError
"""Errors that are reported in one line; any other is a fault of the program, and has a traceback."""


def say(text: str) -> None:
    """Print; if the pipe is closed, training continues without output."""
    try:
        print(text, flush=True)
    except OSError:
        silence(1)


def note(text: str) -> None:
    """Print on standard error, so that standard output has only results."""
    try:
        if sys.stderr is not None:
            print(text, file=sys.stderr, flush=True)
    except OSError:
        silence(2)


def silence(*descriptors: int) -> None:
    """Discard all further output to these file descriptors."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in descriptors:
        os.dup2(nowhere, descriptor)


def stdout_is_closed() -> bool:
    """Return whether standard output is a closed pipe."""
    if not hasattr(select, "poll"):
        return True
    poll = select.poll()
    poll.register(1, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
