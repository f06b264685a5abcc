"""A child process that evaluates policies while another process trains."""

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.util import Finalize
from typing import Any

import cloudpickle

from AsyncPPO.episodes import Episode
from AsyncPPO.workers.processes import free, kill, post, start_child, undisturbed
from parallel_rl.utils import compute_threads

Outcome = tuple[list[Episode] | None, str]
"""The episodes of an evaluation; or None, and why it failed."""
NICENESS = 10
"""Added to the niceness of the process, so that those that train come first."""


class Evaluator:
    """Evaluates the actors that it is sent, one after the other."""

    def __init__(self, evaluate: Callable[[Any], list[Episode]], start_method: str) -> None:
        """Start the process.

        Args:
            evaluate: from an actor to episodes.
            start_method: of `multiprocessing`.

        Raises:
            OSError: the system cannot start a process.
            RuntimeError: this process may not start one.
        """
        context: Any = multiprocessing.get_context(start_method)
        with undisturbed():
            self._pipe, theirs = context.Pipe()
            try:
                process = start_child(context, "evaluation", _serve, theirs, cloudpickle.dumps(evaluate))
            except BaseException:
                self._pipe.close()
                raise
            finally:
                theirs.close()
            self.close = Finalize(self, _end, (process, self._pipe), exitpriority=0)

    def send(self, actor: Any) -> None:
        """Start the evaluation of an actor; if the process is gone, `result` says so."""
        post(self._pipe, cloudpickle.dumps(actor))

    def is_done(self, seconds: float = 0.0) -> bool:
        """Return whether there is a result, within some seconds."""
        return self._pipe.poll(seconds)

    def result(self) -> Outcome:
        """Wait for the outcome of the evaluation, and return it."""
        try:
            return self._pipe.recv()
        except (EOFError, OSError):
            self.close()
            return None, "its process died"

    @property
    def is_gone(self) -> bool:
        """Whether the process has ended."""
        return not self.close.still_active()


def _end(process: Any, pipe: Connection) -> None:
    kill(process)
    free(process)
    pipe.close()


def _serve(pipe: Connection, pickled: bytes) -> None:
    """Run in the child process: receive actors, send outcomes."""
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    evaluate = cloudpickle.loads(pickled)
    with compute_threads(1):
        while True:
            pickled_actor = pipe.recv_bytes()
            outcome: Outcome
            try:
                outcome = evaluate(cloudpickle.loads(pickled_actor)), ""
            except Exception as error:
                outcome = None, f"{type(error).__name__}: {error}"
            pipe.send(outcome)
