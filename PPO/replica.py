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

    def player(self, weights: np.ndarray) -> "Player":
        """Return what plays by the weights, float32 `(P,)`, that are there at every call."""
        return Player(self, weights)

    def workspace(self, rows: int) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Return shape and type of the arrays of a `Workspace` for that many rows."""
        return Workspace.shapes(self.architecture, rows, self.mini_batch_size)

    def learner(self, workspace: dict[str, np.ndarray]) -> Callable[[int, int, int, int], None]:
        """Return `PieceWorker.compute`."""
        return PieceWorker(self.architecture, Workspace(**workspace)).compute


class Player:
    """Acts as a replica does."""

    def __init__(self, replica: Replica, weights: np.ndarray) -> None:
        """Take views of the weights."""
        networks, statistics = np.split(weights, [replica.architecture.weights])
        self._twin = AnalyticActorCritic(replica.architecture, networks)
        self._features, self._clip = replica.features, replica.obs_clip
        if self._clip is not None:
            self._mean, self._std = statistics.reshape(2, -1)

    def act(self, obs: np.ndarray, noise: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return what environments wait for, by name, and the policy's output `(n, A)`, for observations `(n, ...)`."""
        obs = self._features.flatten(obs)
        if self._clip is not None:
            obs = np.clip((obs - self._mean) / self._std, -self._clip, self._clip)
        output = self._twin.output(obs)
        action, draw = self._twin.choose(output, noise)
        continuous = self._twin.architecture.bounds is not None
        return {"action": action, "draw": draw} if continuous else {"action": action}, output.T

    def complete(self, rows: dict[str, np.ndarray], outputs: np.ndarray) -> dict[str, np.ndarray]:
        """Return the other fields, `(n, T)` by name, of rows `(n, T, ...)` and the outputs `(n, T, A)` behind them."""
        draws = rows["draw"] if "draw" in rows else rows["action"] - self._twin.architecture.first_action
        output = np.ascontiguousarray(outputs.reshape(-1, outputs.shape[-1]).T)
        log_prob = self._twin.log_prob(output, draws.reshape(len(output[0]), *draws.shape[2:]))
        return {"log_prob": log_prob.reshape(outputs.shape[:2])}
