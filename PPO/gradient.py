"""Gradients of minibatches: by autograd, or written out."""

from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch

from PPO.actor_critic import ActorCritic
from PPO.analytic import METRICS, Architecture, log_slope
from PPO.losses import Metrics, objective_loss
from PPO.memory import Rows
from PPO.objective import Objective
from PPO.pieces import PieceWorker, Workspace, pieces_of


class Crew(Protocol):
    """Several processes that compute the pieces of a minibatch together."""

    @property
    def workspace(self) -> dict[str, np.ndarray]:
        """The fields of `Workspace`, in memory that they share."""

    def compute(self, start: int, stop: int, processes: int) -> None:
        """Compute the gradient of the minibatch of rows `start` to `stop`, by that many processes at most."""


class Alone:
    """A crew of one."""

    def __init__(self, architecture: Architecture, rows: int, mini_batch_size: int) -> None:
        """Make a workspace for up to `rows` rows."""
        shapes = Workspace.shapes(architecture, rows, mini_batch_size)
        self.workspace = {name: np.zeros(shape, dtype) for name, (shape, dtype) in shapes.items()}
        self._worker = PieceWorker(architecture, Workspace(**self.workspace))

    def compute(self, start: int, stop: int, processes: int) -> None:
        """See `Crew.compute`."""
        self._worker.compute(start, stop, 0, 1)


class WrittenOut:
    """Gradients without autograd, by a crew."""

    def __init__(self, architecture: Architecture, weights: np.ndarray, gradient: np.ndarray) -> None:
        """Keep the parts.

        Args:
            architecture: P weights.
            weights: `(P,)`, read.
            gradient: `(P,)`, written.
        """
        self._architecture = architecture
        self._weights, self._gradient = weights, gradient
        self._crew: Crew | None = None

    def begin(self, rows: Rows, mini_batch_size: int, objective: Objective, crew: Crew | None) -> None:
        """Take the rows of an update; a crew without room for them is left out."""
        self._rows = rows.numpy()
        bounds = self._architecture.bounds
        if bounds is not None and bounds.squash:
            before_squashing = self._rows.log_prob + log_slope(self._rows.draw, bounds.scale)
            self._rows = self._rows._replace(log_prob=before_squashing)
        crew = next((one for one in (crew, self._crew) if one and _has_room(one, len(rows.obs), mini_batch_size)), None)
        self._crew = crew or Alone(self._architecture, len(rows.obs), mini_batch_size)
        self._workspace = Workspace(**self._crew.workspace)
        self._workspace.objective[:] = objective.numbers()

    def shuffle(self, order: np.ndarray) -> None:
        """Put the rows into the order `(M,)`."""
        for source, target in zip(self._rows, self._workspace[4:], strict=False):
            np.take(source, order, axis=0, out=target[: len(order)], mode="clip")

    def compute(self, start: int, stop: int) -> Metrics:
        """Write the gradient of the minibatch of rows `start` to `stop`; return its metrics."""
        workspace, pieces = self._workspace, pieces_of(stop - start)
        workspace.weights[:] = self._weights
        assert self._crew is not None
        self._crew.compute(start, stop, max(pieces, 2))
        np.add.reduce(workspace.gradients[:pieces], axis=0, out=self._gradient)
        return dict(zip(METRICS, workspace.metrics[:pieces].sum(axis=0).tolist(), strict=True))


def _has_room(crew: Crew, rows: int, mini_batch_size: int) -> bool:
    workspace = crew.workspace
    return rows <= len(workspace["obs"]) and pieces_of(mini_batch_size) <= len(workspace["gradients"])


class Autograd:
    """Gradients by torch, on any device."""

    def __init__(self, policy: ActorCritic, gradient: torch.Tensor, compiled: bool) -> None:
        """Keep the parts.

        Args:
            policy: whose parameters are differentiated by.
            gradient: `(P,)`, of those parameters; written.
            compiled: whether `torch.compile` makes the loss and its gradient.
        """
        self.policy, self._gradient = policy, gradient
        self._loss = torch.compile(objective_loss) if compiled else objective_loss
        self._has_entropy = False

    def begin(self, rows: Rows, mini_batch_size: int, objective: Objective, crew: Crew | None) -> None:
        """Take the rows of an update."""
        self._rows = rows
        # numbers that change must be tensors: compiled code takes them for what they were
        numbers: dict[str, Any] = {"clip": torch.tensor(objective.clip, device=rows.obs.device)}
        self._has_entropy |= objective.entropy_coef > 0
        if self._has_entropy:
            numbers["entropy_coef"] = torch.tensor(objective.entropy_coef, device=rows.obs.device)
        self._objective = replace(objective, **numbers)

    def shuffle(self, order: np.ndarray) -> None:
        """Put the rows into the order `(M,)`."""
        self._shuffled = self._rows.take(torch.from_numpy(order).to(self._rows.obs.device))

    def compute(self, start: int, stop: int) -> Metrics:
        """Write the gradient of the minibatch of rows `start` to `stop`; return its metrics."""
        self._gradient.zero_()
        loss, metrics = self._loss(self._objective, self.policy, self._shuffled.part(start, stop))
        loss.backward()
        return metrics
