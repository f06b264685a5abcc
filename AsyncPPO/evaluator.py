"""A child process that evaluates policies while its parent trains."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from AsyncPPO.episodes import Episode
from AsyncPPO.workers import Channel, WorkerError, WorkerPool, WorkerSpec
from parallel_rl.utils import one_torch_thread

Evaluate = Callable[[Any], list[Episode]]
Outcome = tuple[list[Episode] | None, str]
"""The episodes of an evaluation; or None, and the reason why it failed."""
NICENESS = 10
"""Added to the niceness of the process, so that training has priority."""


class Evaluator:
    """Evaluates actors in a worker process, one after the other."""

    def __init__(self, evaluate: Evaluate, start_method: str) -> None:
        """Start the process, without waiting for it.

        Args:
            evaluate: a function from an actor to episodes.
            start_method: of `multiprocessing`.

        Raises:
            OSError: the system cannot start a process.
            RuntimeError: this process must not start one.
        """
        spec = WorkerSpec("its process", partial(_begin, evaluate))
        options: Any = {"start_method": start_method, "wait_for_contexts": False, "close_timeout": None}
        try:
            self._pool = WorkerPool([spec], {"run": _run}, **options)
        except WorkerError as error:
            raise (error.__cause__ or error) from None

    def send(self, actor: Any) -> None:
        """Start the evaluation of an actor; `result` reports it if the process has died."""
        self._pool.begin(self._pool.job("run", actor))

    def is_done(self, seconds: float = 0.0) -> bool:
        """Return whether there is a result; wait for it at most some seconds."""
        return self._pool.ready(seconds)

    def result(self) -> Outcome:
        """Wait for the evaluation and return its outcome."""
        try:
            (outcome,) = self._pool.wait().values()
        except WorkerError as error:
            return None, str(error)
        return outcome

    @property
    def is_gone(self) -> bool:
        """Whether the process has ended."""
        return self._pool.closed

    def close(self) -> None:
        """End the process at once; may be called twice."""
        self._pool.close()


def _begin(evaluate: Evaluate, channel: Channel) -> Evaluate:
    """Lower the priority of the process; return the function as its context."""
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    return evaluate


def _run(evaluate: Evaluate, actor: Any) -> Outcome:
    one_torch_thread()  # unpickling the actor may have imported torch
    try:
        return evaluate(actor), ""
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"
