"""A child process that plays whole episodes, beside the one that trains."""

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.util import Finalize
from typing import Any

import cloudpickle

from AsyncPPO.backends.children import free, kill, post, start_child, undisturbed
from AsyncPPO.episodes import Episode
from parallel_rl.utils import compute_threads

Answer = tuple[list[Episode] | None, str]
"""The episodes of an evaluation; or None, and why there are none."""
NICENESS = 10
"""How much the process stands back behind those that train."""


class Evaluator:
    """Plays with the actors that it is sent, one after the other."""

    def __init__(self, play: Callable[[Any], list[Episode]], start_method: str) -> None:
        """Start the process.

        Args:
            play: from an actor to episodes.
            start_method: of `multiprocessing`.

        Raises:
            OSError: the system gives no process.
            RuntimeError: this process cannot start any.
        """
        context: Any = multiprocessing.get_context(start_method)
        with undisturbed():
            self._pipe, theirs = context.Pipe()
            try:
                process = start_child(context, "evaluation", _serve, theirs, cloudpickle.dumps(play))
            except BaseException:
                self._pipe.close()
                raise
            finally:
                theirs.close()
            self.close = Finalize(self, _end, (process, self._pipe), exitpriority=0)

    def send(self, actor: Any) -> None:
        """Have it play with an actor; if the process is gone, that shows in the answer."""
        post(self._pipe, cloudpickle.dumps(actor))

    def has_answered(self, seconds: float = 0.0) -> bool:
        """Return whether there is an answer, within some seconds."""
        return self._pipe.poll(seconds)

    def answer(self) -> Answer:
        """Return what it has found; wait for it."""
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


def _serve(pipe: Connection, pickled_play: bytes) -> None:
    """Be the process: from actors to episodes."""
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    play = cloudpickle.loads(pickled_play)
    with compute_threads(1):
        while True:
            pickled_actor = pipe.recv_bytes()
            answer: Answer
            try:
                answer = play(cloudpickle.loads(pickled_actor)), ""
            except Exception as error:
                answer = None, f"{type(error).__name__}: {error}"
            pipe.send(answer)
