"""The contexts of `multiprocessing`, and the helper processes of some: a fork server and a tracker of semaphores."""

import multiprocessing
import os
import signal
import sys
from typing import Any

SHIELD = "AsyncPPO.workers.shield"
"""A module that lets a fork server outlive signals; it also imports Gymnasium."""
PRELOADED = ["__main__"]
"""What a fork server imports by default."""


def context_of(start_method: str | None) -> Any:
    """Return the context of a start method (None: the default one), whose helper processes leave signals to this one.

    A signal to the process group reaches them, too, and this process may want to finish an update.
    """
    context = multiprocessing.get_context(start_method)
    method = context.get_start_method()
    if method == "forkserver":
        _set_preload()
    if method != "fork" and hasattr(signal, "SIGHUP"):
        _start_tracker()
    return context


def _set_preload() -> None:
    """Let the fork server import modules once for all children, unless the program has set a list of its own."""
    from multiprocessing import forkserver

    server: Any = forkserver._forkserver  # there is no public way to read the list
    if server._preload_modules == PRELOADED:
        forkserver.set_forkserver_preload([SHIELD, *(["torch"] if "torch" in sys.modules else [])])


def _start_tracker() -> None:
    """Start the tracker with SIGHUP blocked; the other signals it blocks itself."""
    from multiprocessing import resource_tracker

    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    try:
        resource_tracker.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_fork_server() -> None:
    """Let go of the fork server of this process's parent.

    The server ends, and kills its children, once nobody holds it. If this process needs one, it starts its own, since
    it cannot wait for a process that is not its child.
    """
    server: Any = getattr(sys.modules.get("multiprocessing.forkserver"), "_forkserver", None)
    if server is not None and server._forkserver_alive_fd is not None:
        os.close(server._forkserver_alive_fd)
        server._forkserver_alive_fd = server._forkserver_address = server._forkserver_pid = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=leave_fork_server)
