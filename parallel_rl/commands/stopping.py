"""Signals that end a run and its child processes."""

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Protocol

from AsyncPPO.workers.processes import SIGNALS
from parallel_rl.commands.output import EXPECTED, note, say, silence

Handler = Callable[[int, FrameType | None], None]
GRACE_SECONDS = 30.0
"""Seconds that the environments may take for their current steps after a signal, before the process exits anyway."""


class Stoppable(Protocol):
    """What signals can stop: an `AsyncTrainer`, a population, or a search."""

    @property
    def collecting_since(self) -> float | None:
        """When the current collection began, by `time.monotonic`; None between collections."""

    def stop(self, why: str, *, skip_slow_work: bool = False) -> None:
        """End it after the current update, as `AsyncTrainer.stop` does."""


@contextmanager
def stopped_by_signals(run: Stoppable, finishing: str = "finishing this update and saving") -> Iterator[list[int]]:
    """Let the first signal end the run after the current update, and a second one end it at once.

    If an environment does not return from a step, the update never ends; then the run ends after `GRACE_SECONDS`, as by
    a second signal. Yields a list of the signals received.

    Args:
        run: what they stop.
        finishing: says what it still does after the first signal.
    """
    over = threading.Event()

    def insist(number: int) -> None:
        received_at = time.monotonic()
        while not over.wait(GRACE_SECONDS / 10):
            since = run.collecting_since
            if since is not None and time.monotonic() > max(since, received_at) + GRACE_SECONDS:
                say(f"no environment has come back for {GRACE_SECONDS:g} seconds: leaving")
                os.kill(os.getpid(), number)
                return

    def stop(number: int) -> None:
        name = signal.Signals(number).name
        run.stop(f"by {name}", skip_slow_work=True)
        threading.Thread(target=insist, args=(number,), daemon=True).start()
        try:
            os.write(2, f"\n{name}: {finishing} (once more: leaving at once)\n".encode())
        except OSError:  # the terminal is closed: output to it must not end the run
            silence(1, 2)

    try:
        with _first_signal(stop) as received:
            yield received
    finally:
        over.set()


@contextmanager
def stop_is_told() -> Iterator[None]:
    """Let Ctrl-C in the block, in which a run is made, print that it has stopped."""
    try:
        yield
    except KeyboardInterrupt:
        say("stopped   before the first step")
        raise


def passed_on(processes: Callable[[], list[Any]]) -> AbstractContextManager[list[int]]:
    """Pass the first signal on to processes, which then save and end; a second one ends all at once.

    Yields a list of the signals received.
    """

    def pass_on(number: int) -> None:
        for process in processes():
            if process.is_alive():
                os.kill(process.pid, number)

    return _first_signal(pass_on)


def run_in_child(work: Callable[[], int], log: str | Path | None) -> NoReturn:
    """Do the work of this child process, and exit with the code that it returns.

    Until the work handles signals itself, as a run does while it trains, a signal ends it at once.

    Args:
        work: returns an exit code.
        log: a file for the output; None: it goes where the parent's goes.
    """
    if log is not None:
        sys.stdout = sys.stderr = output = open(log, "a", buffering=1)  # noqa: SIM115
        for descriptor in (1, 2):
            os.dup2(output.fileno(), descriptor)
    try:
        for number in SIGNALS:
            signal.signal(number, _end)
        code = work()
    except KeyboardInterrupt as interrupt:
        code = interrupt.args[0] if interrupt.args else 130
    except EXPECTED as error:
        if sys.flags.dev_mode:
            traceback.print_exc()
        note(f"error: {error}")
        code = 1
    except Exception:
        traceback.print_exc()
        code = 1
    sys.exit(code)


def last_line(log: Path) -> str | None:
    """Return the last line of a log of `run_in_child`; None if there is none."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return lines[-1] if lines else None


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let a signal end the block at once, as an error does, so that it removes what it has not finished."""
    with _handled_by(_end):
        yield


def _end(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(128 + number)


@contextmanager
def _first_signal(react: Callable[[int], None]) -> Iterator[list[int]]:
    """Call a function with the first signal in the block; let a second one end the block at once.

    Yields a list of the signals received.
    """
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if received:  # raised during a step, SystemExit would look like a failure of the environment
            raise KeyboardInterrupt(128 + number)
        received.append(number)
        react(number)

    with _handled_by(handle):
        yield received


@contextmanager
def _handled_by(handle: Handler) -> Iterator[None]:
    """Let a function handle the signals in the block, except those that are ignored, as SIGHUP under nohup."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, handle)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
