"""Optimiser: the gradient steps of an update."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from networks import flatten, limit_norm
from PPO.actor_critic import ActorCritic
from PPO.analytic import AnalyticActorCritic
from PPO.gradient import Autograd, Crew, WrittenOut
from PPO.losses import Metrics
from PPO.memory import Rows
from PPO.objective import Objective
from PPO.rnd import RND

LARGE_NETWORK = 1_000_000
"""Weights from which on torch's own calls cost little, and more than one thread pays."""


class Adam:
    """Adam (Kingma & Ba 2015, arXiv:1412.6980) on one vector of parameters.

    The kernel of `torch.optim.Adam(fused=True)`, whose own bookkeeping costs four times as much as the arithmetic of a
    small network.
    """

    def __init__(self, parameters: torch.Tensor, gradient: torch.Tensor, eps: float = 1e-5) -> None:
        """Start with no moments.

        Args:
            parameters: `(P,)`, changed by `step`.
            gradient: `(P,)`, read by it.
            eps: added to the root of the second moment.
        """
        self._vectors = [parameters], [gradient]
        self.eps = eps
        self.state = {
            "mean": torch.zeros_like(parameters),
            "square": torch.zeros_like(parameters),
            "steps": torch.zeros((), device=parameters.device),
        }

    def step(self, lr: float) -> None:
        """Take a step of size `lr`."""
        mean, square, steps = self.state.values()
        steps += 1
        torch._fused_adam_(
            *self._vectors, [mean], [square], [], [steps],
            lr=lr, beta1=0.9, beta2=0.999, weight_decay=0.0, eps=self.eps, amsgrad=False, maximize=False,
        )  # fmt: skip


class Optimiser:
    """Adam on the parameters of a policy and, if there is one, of RND's predictor, each in one vector."""

    def __init__(
        self,
        policy: ActorCritic,
        rnd: RND | None,
        *,
        max_grad_norm: float,
        target_kl: float | None,
        written_out: bool,
        compiled: bool,
    ) -> None:
        """Move the parameters into vectors.

        Args:
            policy: learns by `losses.objective_loss`.
            rnd: its predictor learns by its own loss.
            max_grad_norm: limit on the norm of the policy's gradient.
            target_kl: an update ends when the policy has moved further than 1.5 times this.
            written_out: whether to take the gradient that is written out, where it applies.
            compiled: whether `torch.compile` makes autograd's.
        """
        self.rnd = rnd
        self.recurrent = policy.core is not None
        self.max_grad_norm, self.target_kl = max_grad_norm, target_kl
        architecture = policy.architecture()
        stacked = policy.parameters() if architecture is None else policy.stacked_parameters()
        self.parameters, self._policy_gradient = flatten(stacked)
        self._adams = [Adam(self.parameters, self._policy_gradient)]
        if rnd is not None:
            predictor_parameters, self._rnd_gradient = flatten(rnd.predictor.parameters())
            self._adams.append(Adam(predictor_parameters, self._rnd_gradient))
        small = len(self.parameters) < LARGE_NETWORK
        self.threads = 1 if small else None
        self.twin: AnalyticActorCritic | None = None
        self.gradient: Autograd | WrittenOut = Autograd(policy, self._policy_gradient, compiled)
        if small and architecture is not None and self.parameters.device.type == "cpu":
            weights = self.parameters.numpy()
            self.twin = AnalyticActorCritic(architecture, weights)
            if written_out:
                gradient = self._policy_gradient.numpy()
                self.gradient = WrittenOut(architecture, weights, gradient)

    def update(
        self,
        rows: Rows,
        epochs: int,
        mini_batch_size: int,
        lr: float,
        objective: Objective,
        rng: np.random.Generator,
        crew: Crew | None = None,
        reassess: Callable[[Rows], Rows] | None = None,
    ) -> dict[str, float]:
        """Take a step for each minibatch of each epoch; return the means of their metrics.

        Every epoch goes through all rows in a new order, in equal parts of at most `mini_batch_size`. Where the policy
        has a core, sequences stay whole, and the parts are about equal. `reassess` gives the rows of every further
        epoch.
        """
        count = len(rows.obs)
        parts = -(-count // mini_batch_size)
        bounds = [count * part // parts for part in range(parts + 1)]
        sequences = np.split(np.arange(count), np.flatnonzero(rows.starts.cpu())[1:]) if self.recurrent else None
        steps: list[Metrics] = []
        self.gradient.begin(rows, mini_batch_size, objective, crew)
        lesson = None if self.rnd is None else self.rnd.lesson(rows.next_obs)
        for epoch in range(epochs):
            if reassess is not None and epoch:
                rows = reassess(rows)
                self.gradient.begin(rows, mini_batch_size, objective, crew)
            if sequences is None:
                order = rng.permutation(count)
            else:
                order, bounds = _whole_sequences(sequences, parts, rng)
            self.gradient.shuffle(order)
            for start, stop in pairwise(bounds):
                metrics = self.gradient.compute(start, stop)
                if self.target_kl is not None and metrics["approx_kl"] > 1.5 * self.target_kl:
                    nothing = {"grad_norm": 0.0} | ({} if lesson is None else {"rnd_loss": 0.0})
                    return _means(steps or [metrics | nothing])
                metrics["grad_norm"] = limit_norm(self._policy_gradient, self.max_grad_norm)
                if lesson is not None:
                    metrics["rnd_loss"] = self._predictor_gradient(*lesson, order[start:stop], rng)
                for adam in self._adams:
                    adam.step(lr)
                steps.append(metrics)
        return _means(steps)

    @property
    def state(self) -> list[dict[str, torch.Tensor]]:
        """Adam's moments and step count, by name, for the policy and then for RND's predictor; views."""
        return [adam.state for adam in self._adams]

    def load_state(self, state: list[dict[str, torch.Tensor]]) -> None:
        """Take over what `state` was."""
        for adam, tensors in zip(self._adams, state, strict=True):
            for name, tensor in tensors.items():
                adam.state[name].copy_(tensor)

    def _predictor_gradient(
        self, white: torch.Tensor, features: torch.Tensor, index: np.ndarray, rng: np.random.Generator
    ) -> torch.Tensor:
        """Write the gradient of RND's loss on some rows of a lesson into its predictor's parameters."""
        assert self.rnd is not None
        self._rnd_gradient.zero_()
        loss = self.rnd.loss(white[index], features[index], rng)
        loss.backward()
        return loss.detach()


def _whole_sequences(sequences: list[np.ndarray], parts: int, rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
    """Return the rows `(M,)` of sequences in a new order, and bounds of about equal parts of whole ones."""
    shuffled = [sequences[index] for index in rng.permutation(len(sequences))]
    ends = np.cumsum([0, *map(len, shuffled)])
    nearest = np.abs(ends - np.linspace(0, ends[-1], parts + 1)[:, None]).argmin(axis=1)
    return np.concatenate(shuffled), sorted({*ends[nearest].tolist()})


def _means(steps: Sequence[Metrics]) -> dict[str, float]:
    return {name: _mean([step[name] for step in steps]) for name in steps[0]}


def _mean(values: Sequence[Any]) -> float:
    return (torch.stack(tuple(values)).mean() if torch.is_tensor(values[0]) else np.mean(values)).item()
