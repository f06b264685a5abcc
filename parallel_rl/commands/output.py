"""What is said on standard output, where somebody may have stopped to listen; and on standard error."""

import os
import select
import sys


def say(text: str) -> None:
    """Print; where nobody listens any more, in silence: that is no reason to stop learning."""
    try:
        print(text, flush=True)
    except OSError:
        silence(1)


def note(text: str) -> None:
    """Print on standard error, where it is in the way of no figures."""
    try:
        if sys.stderr is not None:
            print(text, file=sys.stderr, flush=True)
    except OSError:
        silence(2)


def silence(*descriptors: int) -> None:
    """Let what is written there go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in descriptors:
        os.dup2(nowhere, descriptor)


def nobody_listens() -> bool:
    """Return whether standard output is a pipe that nobody reads any more."""
    if not hasattr(select, "poll"):
        return True
    poll = select.poll()
    poll.register(1, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
