"""Replica: a policy that acts, and learns, in a process without torch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from PPO.analytic import AnalyticActorCritic, Architecture
from PPO.pieces import PieceWorker, Workspace
from utils import Features


@dataclass(frozen=True)
class Replica:
    """A policy but for its weights, which lie in a vector: those of the networks, then the statistics of observations.

    `PPO.replica` makes one; `PPO.replica_weights` gives the vector.
    """

    features: Features
    architecture: Architecture
    obs_clip: float | None
    """Limit on standardised observations; None where they are not standardised."""
    mini_batch_size: int

    @property
    def weights(self) -> int:
        """P, how many."""
        statistics = 0 if self.obs_clip is None else 2 * self.architecture.observ_dim
        return self.architecture.weights + statistics

    @property
    def noise(self) -> int:
        """A, how many random numbers an action takes."""
        return self.architecture.outputs

    @property
    def fields(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shape and type of the action of one environment, and of what learning wants to know of it."""
        if self.architecture.bounds is None:
            return {"action": ((), np.int64), "log_prob": ((), np.float32)}
        wide = ((self.architecture.outputs,), np.float32)
        return {"action": wide, "log_prob": ((), np.float32), "draw": wide}

    def actor(self, weights: np.ndarray) -> Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]:
        """Return a function from observations `(n, ...)` and noise `(n, A)` to the `fields`, `(n, ...)` each.

        Args:
            weights: float32 `(P,)`, read at every call.
        """
        twin = AnalyticActorCritic(self.architecture, weights[: self.architecture.weights])
        mean, std = weights[self.architecture.weights :].reshape(2, -1) if self.obs_clip is not None else (0.0, 1.0)
        features, clip, names = self.features, self.obs_clip, tuple(self.fields)

        def act(obs: np.ndarray, noise: np.ndarray) -> dict[str, np.ndarray]:
            obs = features.flatten(obs)
            if clip is not None:
                obs = np.clip((obs - mean) / std, -clip, clip)
            action, draw, log_prob = twin.act(obs, noise)
            return dict(zip(names, (action, log_prob, draw), strict=False))

        return act

    def workspace(self, rows: int) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Return shape and type of the arrays of a `Workspace` for that many rows."""
        return Workspace.shapes(self.architecture, rows, self.mini_batch_size)

    def learner(self, workspace: dict[str, np.ndarray]) -> Callable[[int, int, int, int], None]:
        """Return `PieceWorker.compute`."""
        return PieceWorker(self.architecture, Workspace(**workspace)).compute
