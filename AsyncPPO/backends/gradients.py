"""Gradients that are computed in the processes that step."""

from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np

from AsyncPPO.backends.context import BlockContext

if TYPE_CHECKING:
    from AsyncPPO.vectorizer import EnvVectorizer


class GradientWorkers:
    """The processes of a vectorizer that was made with a plan, for the gradients of its replica."""

    def __init__(self, env: "EnvVectorizer") -> None:
        """Store the pool of a vectorizer.

        Raises:
            RuntimeError: `recv` is due first, or the vectorizer is closed.
        """
        assert env.rollout is not None
        self.workspace: dict[str, np.ndarray] = env.rollout.workspace
        """The arrays that the processes share."""
        self._pool, self._count = env.pool, env.num_workers
        # making a job takes 1% of a minibatch's gradient
        self._job = lru_cache(partial(self._pool.job, "compute", timed=False))

    def compute(self, start: int, stop: int, processes: int) -> None:
        """Compute the gradient of the minibatch of rows `start` to `stop`, in at most `processes` processes.

        Raises:
            RuntimeError: the vectorizer is closed.
            EnvError: a worker died; the vectorizer is closed.
        """
        processes = min(processes, self._count)
        self._pool.begin(self._job(start, stop, processes), processes)
        self._pool.wait()


def compute(context: BlockContext, start: int, stop: int, processes: int) -> None:
    """Compute this process's shard of the gradient of a minibatch."""
    context.gradient_worker(start, stop, context.number, processes)
