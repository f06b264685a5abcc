"""Child processes: how they start, ignore signals, end with their parent, and are killed."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any, Literal
from weakref import WeakSet

from AsyncPPO.workers.contexts import leave_fork_server
from parallel_rl.utils import seed_global_streams

StartMethod = Literal["auto", "fork", "spawn", "forkserver"]
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
ORPHAN_SECONDS = 1.0
"""Seconds between a child's checks that its parent is alive.

The pipe does not always tell: another process may hold the parent's side of it open.
"""
PR_SET_PDEATHSIG = 1
"""Option of `prctl` (Linux): the signal that a process gets when the thread that started it has ended."""
PIPE_BYTES = 2**14
"""Bytes that can be written to an empty pipe without waiting, on any system."""


def choose_start_method(method: str | None) -> tuple[str, str | None]:
    """Return the start method of child processes, and the reason if another one than usual was chosen.

    The usual one is `fork`, where the system supports it, since it is fast. A fork has none of its parent's threads, so
    code in it that waits for such a thread hangs. So it is not used on macOS, nor if JAX runs, nor with Python 3.12 and
    newer if this process has threads.

    Raises:
        ValueError: an unknown method, or one that this system does not support.
    """
    methods = multiprocessing.get_all_start_methods()
    if method not in (None, "auto", *methods):
        raise ValueError(f"start_method must be one of auto, {', '.join(methods)}, not {method!r}")
    if method not in (None, "auto"):
        return str(method), None
    if "fork" not in methods:
        return "spawn", None
    if sys.platform == "darwin":
        return "spawn", "libraries of macOS do not work in a fork"
    if _jax_has_threads():
        return "spawn", "JAX runs in this process, whose threads would be missing in a fork"
    if sys.version_info >= (3, 12) and _threads() > 1:
        return "forkserver", "this process has threads, and Python 3.12 and newer warn if such a process forks"
    return "fork", None


def _threads() -> int:
    """Return the number of threads of this process, with those of libraries if the system reports them."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return threading.active_count()


def _jax_has_threads() -> bool:
    """Return whether JAX has been used in this process, not only imported."""
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bridge is not None and bool(getattr(bridge, "backends_are_initialized", lambda: True)())


def why_no_children() -> str | None:
    """Return why this process cannot have child processes; None if it can."""
    if multiprocessing.current_process().daemon:
        return "this process is a daemon, as those of multiprocessing.Pool are, and daemons cannot start others"
    return None


def start_child(context: Any, name: str, target: Callable[..., None], *arguments: Any) -> Any:
    """Start and return a process that calls `target`; it ignores signals, which this process handles.

    Raises:
        RuntimeError: this process cannot have children.
        OSError: the system cannot start a process.
    """
    reason = why_no_children()
    if reason is not None:
        raise RuntimeError(f"{reason} (those of concurrent.futures.ProcessPoolExecutor can)")
    lasting = threading.current_thread() is threading.main_thread()
    process = context.Process(target=_run_child, args=(lasting, target, arguments), name=name)
    process.start()
    return process


def _run_child(lasting: bool, target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    _leave_signals_to_parent()
    _end_with_parent(lasting)
    seed_global_streams(None)  # a fork starts with copies of its parent's streams
    target(*arguments)


def _leave_signals_to_parent() -> None:
    """Ignore signals, since the parent may want to finish an update.

    This process gets its own process group, so Ctrl-C in a terminal reaches neither it nor the programs and forks that
    it starts. Those have the default handlers, so other signals can end them.
    """
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
        for number in (signal.SIGTTIN, signal.SIGTTOU):  # a program that uses the terminal must not be stopped
            signal.signal(number, signal.SIG_IGN)
    ignore(SIGNALS)


def ignore(signals: Sequence[int]) -> None:
    """Ignore signals in this process; programs and forks that it starts have the default handlers.

    A signal to a new fork is held back until the fork has its handlers.
    """
    for number in signals:
        signal.signal(number, _ignored)  # programs would inherit SIG_IGN
        if hasattr(signal, "siginterrupt"):
            signal.siginterrupt(number, False)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=partial(signal.pthread_sigmask, signal.SIG_BLOCK, signals),
            after_in_parent=partial(signal.pthread_sigmask, signal.SIG_UNBLOCK, signals),
            after_in_child=partial(_restore, signals),
        )


def _ignored(number: int, frame: FrameType | None) -> None:
    """Do nothing."""


def _restore(signals: Sequence[int]) -> None:
    for number in signals:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)


def _end_with_parent(lasting: bool) -> None:
    """End this process when its parent has died.

    Linux can kill a process as soon as the thread that started it has ended; that of a fork server ends with the
    parent. A thread of this process also watches the parent, for other systems, if others hold the fork server, and if
    the thread that started this process may end before the parent.

    Args:
        lasting: whether the thread that started this process lives as long as the parent.
    """
    leave_fork_server()
    parent: Any = multiprocessing.parent_process()
    starter = os.getppid()  # the parent, or its fork server
    if lasting and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def parent_ended(seconds: float) -> bool:
        return bool(wait([parent.sentinel], seconds)) or os.getppid() != starter

    def watch() -> None:
        while not parent_ended(ORPHAN_SECONDS):
            pass
        _kill_programs(os.getpid())
        os._exit(1)

    if parent_ended(0):  # the parent died before `prctl`
        os._exit(1)
    threading.Thread(target=watch, daemon=True).start()


_not_in_forks: WeakSet[Connection] = WeakSet()
"""Ends of pipes that forks of this process must close."""


def close_in_forks(pipe: Connection) -> None:
    """Make forks of this process close an end of a pipe; otherwise the other end never learns that it was closed."""
    _not_in_forks.add(pipe)


def _close_pipes() -> None:
    for pipe in list(_not_in_forks):
        pipe.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_pipes)


def kill(process: Any) -> None:
    """Kill a child process and the programs that it started."""
    _kill_programs(process.pid)
    process.kill()
    process.join()


def free(process: Any) -> None:
    """Clean up after a child process that has ended; if it did not end by itself, kill the programs that it started."""
    if process.exitcode != 0:
        _kill_programs(process.pid)
    process.close()


def _kill_programs(pid: int) -> None:
    """Kill the process group of a child: itself, its forks and the programs that it started."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def post(pipe: Connection, message: bytes) -> None:
    """Send a message through an empty pipe without waiting for the reader, which may be stopped, hung or dead.

    If the message is too large for the pipe, a thread sends it. The thread ends when the reader has received it all, or
    has died.
    """

    def send() -> None:
        with suppress(OSError, TypeError):  # the reader is dead, or the pipe was closed meanwhile
            pipe.send_bytes(message)

    if len(message) <= PIPE_BYTES:
        send()
    else:
        threading.Thread(target=send, daemon=True).start()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Delay the first signal until the end of the block, so that the block is completed; a second one acts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers run in the main thread
        return
    handlers: dict[int, Any] = {}
    received: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        if number in received:
            handlers[number](number, frame)
        received.append(number)

    try:
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler):
                handlers[number] = handler
                signal.signal(number, hold)
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in dict.fromkeys(received):
            signal.raise_signal(number)
