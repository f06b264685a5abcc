"""Child processes: how one is started, what it does about signals and the end of its parent, and how it is ended."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any, Literal
from weakref import WeakSet

from parallel_rl.utils import seed_global_streams

StartMethod = Literal["auto", "fork", "spawn", "forkserver"]
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
ORPHAN_SECONDS = 1.0
"""How often a child looks whether it has another parent: the usual sign that its own is gone may be held by others."""
PR_SET_PDEATHSIG = 1
"""Of `prctl` (Linux): which signal a process gets when the thread that started it is gone."""
PIPE_BYTES = 2**14
"""What an empty pipe takes at once on any system."""


def choose_start_method(asked: str | None) -> tuple[str, str | None]:
    """Return how to start child processes, and why another way than usual was chosen, if so.

    Usual is `fork`, where the system can: it is quick. A fork has none of the threads of its parent, so what waits for
    one of them waits for ever.

    Raises:
        ValueError: an unknown way, or one that this system does not have.
    """
    methods = multiprocessing.get_all_start_methods()
    if asked not in (None, "auto", *methods):
        raise ValueError(f"start_method must be one of auto, {', '.join(methods)}, not {asked!r}")
    if asked not in (None, "auto"):
        return str(asked), None
    if "fork" not in methods:
        return "spawn", None
    if _jax_has_threads():
        return "spawn", "JAX runs in this process, whose threads would be missing in a fork"
    return "fork", None


def _jax_has_threads() -> bool:
    """Return whether JAX computes in this process; it was perhaps imported only."""
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bridge is not None and bool(getattr(bridge, "backends_are_initialized", lambda: True)())


def why_no_children() -> str | None:
    """Return why this process cannot have child processes; None if it can."""
    if multiprocessing.current_process().daemon:
        return "this process is a daemon, as those of multiprocessing.Pool are, and daemons cannot start others"
    return None


def start_child(context: Any, name: str, target: Callable[..., None], *arguments: Any) -> Any:
    """Start a process that calls `target` and leaves signals to this one; return it.

    Raises:
        RuntimeError: this process cannot have any.
        OSError: the system gives none.
    """
    reason = why_no_children()
    if reason is not None:
        raise RuntimeError(f"{reason} (those of concurrent.futures.ProcessPoolExecutor can)")
    lasting = threading.current_thread() is threading.main_thread()
    process = context.Process(target=_be_a_child, args=(lasting, target, arguments), name=name)
    process.start()
    return process


def _be_a_child(lasting: bool, target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    _leave_signals_to_parent()
    _leave_with_parent(lasting)
    seed_global_streams(None)  # those of a fork are copies of its parent's
    target(*arguments)


def _leave_signals_to_parent() -> None:
    """Do nothing about signals, since the parent may want to finish something.

    The programs that this process starts are to heed them: they do, since their handlers are the usual ones, as those
    of forks. In a group of its own a terminal's Ctrl-C does not reach them: they, too, go on until the parent ends.
    """
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
        for number in (signal.SIGTTIN, signal.SIGTTOU):  # a program that speaks to the terminal is not to be stopped
            signal.signal(number, signal.SIG_IGN)
    for number in SIGNALS:
        signal.signal(number, _nothing)  # SIG_IGN would be handed down to programs
        if hasattr(signal, "siginterrupt"):
            signal.siginterrupt(number, False)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_heed_signals)


def _nothing(number: int, frame: FrameType | None) -> None:
    """Be a handler."""


def _heed_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def _leave_with_parent(lasting: bool) -> None:
    """End this process when its parent is gone.

    Args:
        lasting: whether the thread that started it lasts as long as the parent. Then Linux ends this process at once,
            whatever it is doing. Otherwise, and behind a fork server (which lasts as long as its children), a thread
            of its own does, as soon as it comes to run.
    """
    parent: Any = multiprocessing.parent_process()
    starter = os.getppid()  # the parent, or its fork server
    if lasting and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def gone(seconds: float) -> bool:
        return bool(wait([parent.sentinel], seconds)) or os.getppid() != starter

    def watch() -> None:
        while not gone(ORPHAN_SECONDS):
            pass
        _kill_programs(os.getpid())
        os._exit(1)

    if gone(0):  # before Linux was told
        os._exit(1)
    threading.Thread(target=watch, daemon=True).start()


_not_in_forks: WeakSet[Connection] = WeakSet()
"""Ends of pipes that belong to this process alone."""


def close_in_forks(pipe: Connection) -> None:
    """Have forks of this process close an end of a pipe, or whoever reads or writes at the other never sees its end."""
    _not_in_forks.add(pipe)


def _close_pipes() -> None:
    for pipe in list(_not_in_forks):
        pipe.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_pipes)


def kill(process: Any) -> None:
    """End a child process, whatever it is doing, and the programs that it started."""
    _kill_programs(process.pid)
    process.kill()
    process.join()


def free(process: Any) -> None:
    """Forget a child process that is gone; one that did not end by itself leaves no programs behind."""
    if process.exitcode != 0:
        _kill_programs(process.pid)
    process.close()


def _kill_programs(pid: int) -> None:
    """End what is left of the group of a child process: itself, its forks and the programs that it started."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def post(pipe: Connection, message: bytes) -> None:
    """Send a message through an empty pipe without waiting for the reader, who may be stopped, hung or gone.

    What is too large for the pipe is sent by a thread, which ends when the reader has all of it, or is gone.
    """

    def send() -> None:
        with suppress(OSError, TypeError):  # the reader is gone, or the pipe was closed meanwhile
            pipe.send_bytes(message)

    if len(message) <= PIPE_BYTES:
        send()
    else:
        threading.Thread(target=send, daemon=True).start()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Hold signals back until the end of the block, so that what is begun in it is finished; but for a second one."""
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers run in the main thread
        return
    handlers: dict[int, Any] = {}
    held: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        if number in held:
            handlers[number](number, frame)
        held.append(number)

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
        for number in dict.fromkeys(held):
            signal.raise_signal(number)
