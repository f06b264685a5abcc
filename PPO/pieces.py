"""The gradient of a minibatch in pieces, which several processes can compute together; without torch."""

from typing import Any, NamedTuple

import numpy as np

from PPO.analytic import METRICS, AnalyticActorCritic, Architecture, Networks, standardise
from PPO.memory import Rows
from PPO.objective import Objective

PIECE_ROWS = 256
"""Rows whose gradient one process computes at once; their activations stay in its cache."""


class Workspace(NamedTuple):
    """Arrays in which the gradient of a minibatch is computed, by one process or by several that share them.

    A minibatch is cut into pieces of at most `PIECE_ROWS` rows, and its gradient is the sum of theirs, in their order:
    the same to the last bit, however many processes take part.
    """

    weights: np.ndarray
    """float32 `(P,)`."""
    objective: np.ndarray
    """float64 `(5,)`: `Objective.numbers`."""
    gradients: np.ndarray
    """`(K, P)`, one for each piece."""
    metrics: np.ndarray
    """float64 `(K, 4)`, their shares of `METRICS`."""
    obs: np.ndarray
    """`(M, D)`, as the other fields of `Rows` that follow."""
    draw: np.ndarray
    log_prob: np.ndarray
    advantage: np.ndarray
    target: np.ndarray
    value: np.ndarray

    @property
    def rows(self) -> Rows:
        """The rows."""
        nothing = self.obs[:, :0]
        return Rows(*self[4:], next_obs=nothing, state=nothing, starts=nothing)

    @staticmethod
    def shapes(architecture: Architecture, rows: int, mini_batch_size: int) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Return shape and type of each array, for M = `rows`."""
        pieces, continuous = pieces_of(mini_batch_size), architecture.bounds is not None
        return {
            "weights": ((architecture.weights,), np.float32),
            "objective": ((5,), np.float64),
            "gradients": ((pieces, architecture.weights), np.float32),
            "metrics": ((pieces, len(METRICS)), np.float64),
            "obs": ((rows, architecture.observ_dim), np.float32),
            "draw": ((rows, architecture.outputs), np.float32) if continuous else ((rows,), np.int64),
            "log_prob": ((rows,), np.float32),
            "advantage": ((rows,), np.float32),
            "target": ((rows, architecture.values), np.float32),
            "value": ((rows, architecture.values), np.float32),
        }


class PieceWorker:
    """Computes some of the pieces of every minibatch."""

    def __init__(self, architecture: Architecture, workspace: Workspace) -> None:
        """Take views of the workspace."""
        self.workspace = workspace
        self._rows = workspace.rows
        self._twins = [
            AnalyticActorCritic(architecture, workspace.weights, gradient) for gradient in workspace.gradients
        ]

    def compute(self, start: int, stop: int, number: int, processes: int) -> None:
        """Write this process's part of gradients and metrics of the minibatch of rows `start` to `stop`.

        A minibatch of one piece is shared by network: one process takes the actor, another the critic.

        Args:
            start: the first row.
            stop: the one after the last.
            number: of this process.
            processes: how many take part.
        """
        minibatch, count = self._rows.part(start, stop), stop - start
        objective = Objective.of(self.workspace.objective)
        if objective.standardise and count > 1:
            minibatch = minibatch._replace(advantage=standardise(minibatch.advantage))
        pieces, networks = pieces_of(count), Networks.BOTH
        if pieces == 1 and processes > 1:
            number, processes, networks = 0, 1, (Networks.ACTOR, Networks.CRITIC)[number]
        for piece in range(number, pieces, processes):
            rows = minibatch.part(piece * PIECE_ROWS, (piece + 1) * PIECE_ROWS)
            metrics = self.workspace.metrics[piece]
            self._twins[piece].gradient(objective, rows, count, metrics, networks)


def pieces_of(rows: int) -> int:
    """Return how many pieces a minibatch has."""
    return -(-rows // PIECE_ROWS)
