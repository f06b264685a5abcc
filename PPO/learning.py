"""How PPO learns: `learn`, and the steps of `learn` for a custom loop."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise

import numpy as np
import torch

from parallel_rl.utils import ALONE, Batch, Metrics, Ranks, compute_threads, linear, scheduled
from parallel_rl.utils.names import names_checked
from PPO.fast.shards import GradientWorkers
from PPO.losses import LossMetrics
from PPO.minibatches import Minibatch, companion_losses, loss_name, minibatch_count, select_rows, shuffled, standardize
from PPO.objective import Objective
from PPO.saving import Savable, clone
from PPO.update import Prepared, optimize, prepare

REWARDS_IN_RANGE = 1e-30, 1e30
"""The range of rewards for which they and their sums fit in single precision."""
NO_FRACTION = 2.0
"""From here on `progress` must be a number of steps, not a fraction: a loop exceeds its end by a batch at most."""


class Learning(Savable):
    """The part of `PPO` that learns."""

    @property
    def learner_reason(self) -> str:
        """How gradients are computed, and why."""
        if self._has_own_loss:
            return f"autograd of {type(self).__name__}.loss"
        if self.config.learner == "torch":
            words = "autograd, as learner='torch' asks for"
        elif self.numpy_policy is None:
            words = "autograd: there is no analytic gradient for these networks"
        else:
            words = "analytic gradients"
        losses = [loss_name(companion) for companion in self.companions if companion.learns and companion.shares]
        return words + (f"; {', '.join(losses)} by autograd, added to the policy's gradient" if losses else "")

    @property
    def _has_own_loss(self) -> bool:
        """Whether `loss` is overridden."""
        return getattr(self.loss, "__func__", None) is not Learning.loss

    @property
    def learns_on_ranks(self) -> bool:
        """Whether several ranks can learn together."""
        return not self._has_own_loss

    @names_checked
    def learn(self, progress: float = 0.0, workers: GradientWorkers | None = None, ranks: Ranks = ALONE) -> Metrics:
        """Learn from all of `memory` and clear it, once it holds `batch_size` transitions.

        Args:
            progress: the fraction of the run that is over, from 0 to 1, for annealing; a bit more than 1 counts as 1.
            workers: processes that compute gradients together with this one; the result is the same.
            ranks: learn from the memories of all ranks together, whose agents are alike.

        Returns:
            Means over all gradient steps: `policy_loss`, `value_loss`, `approx_kl`, `clip_fraction`, `grad_norm`, and
            the loss of each companion (`rnd_loss`). Before the update: `entropy`, estimated as the mean of -log p of
            the actions, `explained_variance`, and the mean reward of each companion (`rnd_reward`). Also `lr` and
            `clip`. It is empty if there are too few transitions.

        Raises:
            ValueError: `progress` is not a fraction, a schedule (`lr`) returned an invalid value, or assigned settings
                exclude each other; nothing is learned then.
            FloatingPointError: a loss or a companion's reward became infinite or NaN; the message names the update, and
                all such tensors. The networks are restored, and Adam is reset.
            RankError: another rank failed or was lost.
        """
        if not 0.0 <= progress < NO_FRACTION:
            raise ValueError(
                f"progress must be the fraction of the run that is over, from 0 to 1, not {progress}: learn() learns "
                "once, from `memory`; AsyncPPO(env, agent, steps=n).run() trains for n steps"
            )
        if sum(ranks.all_gather(len(self.memory))) < self.config.batch_size:
            return {}
        self.config.check_relations()
        lr, objective = self._annealed(progress)
        batch = self._take_memory()
        with self._undone_if_infinite(batch), compute_threads(self.threads):
            prepared = self._prepared(batch, ranks)
            for parameter, gradient in self.gradients:  # an optimizer of torch may have set them to None
                parameter.grad = gradient
            own_loss = partial(self.loss, progress=progress) if self._has_own_loss else None
            metrics = prepared.metrics | optimize(self, prepared, lr, objective, workers, own_loss)
            if infinite := [name for name, value in metrics.items() if not np.isfinite(value)]:
                raise FloatingPointError(f"{', '.join(infinite)} became infinite or NaN")
        self.updates += 1
        return metrics | {"lr": lr, "clip": objective.clip}

    def prepare(self) -> Prepared:
        """Take everything from `memory` and turn it into rows for minibatches: `learn` without its gradient steps.

        This updates the statistics of observations, returns and companions.

        Raises:
            ValueError: `memory` is empty, or a recurrent state is missing.
            FloatingPointError: a companion's reward became infinite or NaN.
        """
        with compute_threads(self.threads):
            return self._prepared(self._take_memory())

    @contextmanager
    def _undone_if_infinite(self, batch: Batch) -> Iterator[None]:
        """Undo an update that raises a `FloatingPointError`, and let its message name all that is infinite or NaN.

        The networks and their statistics are restored, and Adam is reset.
        """
        networks = {file: clone(module.state_dict()) for module, file in self.modules()}
        returns, rewarded = self._intrinsic_returns(), self.rewarded  # these are in no `state_dict`
        try:
            yield
        except FloatingPointError as error:
            culprits = self._infinite_tensors(batch)
            self._take_over(networks)
            self._load_intrinsic_returns(returns)
            self.rewarded = rewarded
            self._make_optimizers()
            raise FloatingPointError(
                f"{error} in update {self.updates + 1} (then also {', '.join(culprits) or 'no weight'}): "
                "try a smaller lr"
            ) from None

    def _take_memory(self) -> Batch:
        batch = self.memory.batch()
        self.memory.clear()
        return batch

    def _prepared(self, batch: Batch, ranks: Ranks = ALONE) -> Prepared:
        _check_rewards(batch.reward)
        prepared = prepare(self, batch, ranks)
        if self.exploration is not None:
            self.exploration.forget()
        return prepared

    def minibatches(self, prepared: Prepared) -> Iterator[Minibatch]:
        """Shuffle the result of `prepare`, and yield the minibatches of one epoch."""
        rows = prepared.rows
        order, bounds = shuffled(rows, minibatch_count(len(rows.obs), self.config.mini_batch_size), self.rng)
        rows = rows.take(torch.from_numpy(order).to(rows.obs.device))
        if self.config.normalize_advantage == "minibatch":
            standardize(ALONE, rows.advantage, bounds)
        for start, stop in pairwise(bounds):
            yield Minibatch(rows.part(start, stop), select_rows(prepared.targets, order[start:stop]))

    def loss(self, minibatch: Minibatch, progress: float = 0.0) -> tuple[torch.Tensor, LossMetrics]:
        """Return the sum of the losses of PPO and of its companions, to be minimized over `parameters`.

        If a subclass overrides this method, `learn` minimizes its loss by autograd.

        Args:
            minibatch: from `minibatches`.
            progress: the fraction of the run that is over, from 0 to 1, for annealing.

        Returns:
            The sum, and tensors by name: the losses, `approx_kl` and `clip_fraction`.
        """
        loss, metrics = self.objective_loss(self._annealed(progress)[1], self.policy, minibatch.rows)
        for companion, own in companion_losses(self, minibatch.targets, self.rng).items():
            loss, metrics = loss + own, metrics | {loss_name(companion): own.detach()}
        return loss, metrics

    def _annealed(self, progress: float) -> tuple[float, Objective]:
        """Return the learning rate and the coefficients of the loss when the fraction `progress` of the run is over.

        Raises:
            ValueError: a schedule returned an invalid value.
        """
        config = self.config
        entropy_coef = linear(config.entropy_coef, progress) if config.anneal_entropy else config.entropy_coef
        objective = Objective(
            clip=scheduled("policy_clip", config.policy_clip, config.anneal_clip, progress),
            value_coef=config.value_coef,
            entropy_coef=entropy_coef if config.entropy_coef else None,
            value_clip=config.value_clip,
        )
        return scheduled("lr", config.lr, config.anneal_lr, progress), objective

    def _infinite_tensors(self, batch: Batch) -> list[str]:
        """Return the names of what is infinite or NaN: observations, rewards and weights."""
        flatten = self.policy.features.flatten
        tensors = {
            "observations": torch.from_numpy(flatten(batch.obs)),
            "final observations": torch.from_numpy(flatten(batch.final_obs)),
            "rewards": torch.from_numpy(np.asarray(batch.reward, np.float64)),
        }
        tensors |= self.policy.state_dict()
        for companion in self.companions:
            tensors |= {f"{companion.name}.{name}": tensor for name, tensor in companion.state_dict().items()}
        return [name for name, tensor in tensors.items() if not tensor.isfinite().all()]


def _check_rewards(reward: np.ndarray) -> None:
    size = float(np.abs(reward).max())
    smallest, largest = REWARDS_IN_RANGE
    if size and np.isfinite(size) and not smallest <= size <= largest:
        warnings.warn(
            f"rewards of {size:g} are beyond single precision: scale them to between {smallest:g} and {largest:g}",
            stacklevel=4,
        )
