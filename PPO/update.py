"""One update of PPO, top to bottom: from a batch of experience to new weights.

    batch -> normalized observations -> rewards (also the intrinsic ones of companions) -> values -> advantages (GAE)
          -> return statistics (PopArt) -> observation statistics
          -> epochs of shuffled minibatches: gradients (PPO's and the companions') -> clip -> Adam

Source: Schulman et al. 2017 (arXiv:1707.06347); docs/ppo.md names the source of each detail.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import add
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from parallel_rl.networks import limit_norm
from parallel_rl.utils import COMPOSITE, Batch, gae, next_rows, reward_unit, split_parts
from PPO.actor_critic import ActorCritic, Past
from PPO.autograd import Autograd
from PPO.companions import Companion, Transitions
from PPO.fast.shards import GradientWorkers, ShardedGradient
from PPO.losses import Metrics, normalize
from PPO.memory import Rows
from PPO.objective import Objective

if TYPE_CHECKING:
    from PPO.learning import Learning

Targets = tuple[torch.Tensor, ...]
"""What a companion's `targets` returns."""


@torch.no_grad()
def prepare(ppo: "Learning", batch: Batch) -> "Prepared":
    """Convert a batch to rows for minibatches; update the statistics of observations, returns and companions.

    Raises:
        ValueError: a recurrent state is missing, or a companion's reward does not have the shape `(M,)`.
        FloatingPointError: a companion's reward is infinite or NaN.
    """
    policy, head = ppo.policy, ppo.policy.value_head

    # observations, normalized by the statistics that the policy acted with
    obs, final_obs = columns(policy, batch.obs), columns(policy, batch.final_obs)
    inputs, final_inputs = network_inputs(policy, batch, policy.normalize(obs), policy.normalize(final_obs))
    raw_action, log_prob = acted(policy, batch, inputs)
    metrics = {"entropy": -log_prob.mean().item()}

    # rewards: the environment's, and those of companions
    rewards = [RewardStream(batch.reward, ppo.gamma, batch.terminated, batch.ends)]
    transitions = Transitions(batch, policy.features, raw_action)
    for companion in ppo.companions:
        if companion.beta is not None:
            rewards.append(intrinsic_stream(companion, transitions))
            metrics[f"{companion.name.lower()}_reward"] = float(rewards[-1].reward.mean())
    targets = [companion.targets(transitions) for companion in ppo.companions]

    # before the first reward the critic's values mean nothing: scale them to the size of the rewards
    if not ppo.rewarded:
        head.stats.rescale(0, reward_unit(float(np.abs(batch.reward).max())))

    # values, advantages (GAE) and returns
    experience = Experience(batch, rewards, inputs, final_inputs)
    values, advantage, returns = estimate(ppo, experience)

    # update the return statistics, and rescale the value head (PopArt)
    old_value = head.update(returns, values)

    target, past = head.stats(returns), inputs.past or ()
    rows = Rows(inputs.obs, raw_action, log_prob, scaled(ppo, experience, advantage), target, old_value, *past)
    policy.update_statistics(obs)  # last, since the rows are normalized by the old statistics
    return Prepared(rows, experience, targets, {"explained_variance": explained_variance(values, returns)} | metrics)


def optimize(
    ppo: "Learning", prepared: "Prepared", lr: float, objective: Objective, workers: GradientWorkers | None
) -> dict[str, float]:
    """Take a gradient step for each minibatch of each epoch; return the means of their metrics.

    With `recompute_advantage`, advantages and targets are estimated again before each further epoch.
    """
    rows, experience, config, optimizers = prepared.rows, prepared.experience, ppo.config, ppo.optimizers
    steps: list[Metrics] = []
    gradient = minibatch_gradients(ppo, len(rows.obs), objective, workers)
    gradient.load(rows)
    for epoch in range(config.k_epochs):
        if epoch and config.recompute_advantage:
            _, advantage, returns = estimate(ppo, experience)
            target = ppo.policy.value_head.stats(returns)
            rows = rows._replace(advantage=scaled(ppo, experience, advantage), target=target)
            gradient.load(rows)
        order, bounds = shuffled(rows, config.mini_batch_size, ppo.rng)
        gradient.shuffle(order)
        for start, stop in pairwise(bounds):
            metrics = gradient.compute(start, stop)
            if config.target_kl is not None and metrics["approx_kl"] > 1.5 * config.target_kl:
                losses = {loss_name(each): 0.0 for each in ppo.companions if each.learns}
                return means(steps or [metrics | losses | {"grad_norm": 0.0}])
            if ppo.companions:
                metrics |= add_gradients(ppo, prepared.targets, order[start:stop])
            metrics["grad_norm"] = limit_norm(optimizers[0].gradient, config.max_grad_norm)
            for optimizer in optimizers:
                optimizer.step(lr)
            steps.append(metrics)
    return means(steps)


class Inputs(NamedTuple):
    """Inputs of the networks."""

    obs: torch.Tensor
    """Normalized observations `(B, D)`."""
    past: Past | None
    """The recurrent states and starts of sequences; None without a core."""


@dataclass(frozen=True)
class RewardStream:
    """A reward for each of M rows, and how its return is computed."""

    reward: np.ndarray
    gamma: float
    terminated: np.ndarray
    """bool `(M,)`: the rows that bootstrap zero."""
    ends: np.ndarray
    """bool `(M,)`: the rows whose return does not continue in the next row."""
    weight: float = 1.0
    """The factor of its advantage in the sum of all."""

    def advantage(self, batch: Batch, value: np.ndarray, final_value: np.ndarray, gae_lambda: float) -> np.ndarray:
        """Return advantages `(M,)`.

        They follow from the values of the M observations, and of the next observations at the E ends of the batch.

        A termination bootstraps zero; any other end bootstraps the value of the next observation.
        """
        next_value = next_rows(value, self.ends, final_value[self.ends[batch.ends]])
        return gae(self.reward, value, next_value, self.terminated, self.ends, self.gamma, gae_lambda)


def intrinsic_stream(companion: Companion, transitions: Transitions) -> RewardStream:
    """Return a companion's reward; unless it is episodic, its return continues across episodes.

    The reason is in Burda et al. 2018 (arXiv:1810.12894), section 2.3.

    Raises:
        ValueError: the reward does not have the shape `(M,)`.
        FloatingPointError: it is infinite or NaN.
    """
    batch = transitions.batch
    reward = np.asarray(companion.reward(transitions), dtype=np.float64)
    if reward.shape != batch.reward.shape:
        raise ValueError(f"the reward of {companion.name} is {reward.shape}, not {batch.reward.shape}")
    if not np.isfinite(reward).all():
        raise FloatingPointError(f"the reward of {companion.name} became infinite or NaN")
    assert companion.beta is not None
    if companion.episodic:
        return RewardStream(reward, companion.gamma, batch.terminated, batch.ends, companion.beta)
    never = np.zeros(len(reward), dtype=bool)
    return RewardStream(reward, companion.gamma, never, batch.trajectory_ends, companion.beta)


class Experience(NamedTuple):
    """The rows from which advantages are estimated."""

    batch: Batch
    rewards: list[RewardStream]
    """V rewards for the M rows."""
    inputs: Inputs
    """The inputs for the M rows."""
    final_inputs: Inputs
    """The inputs for the next observations of the E ends."""


class Prepared(NamedTuple):
    """The result of `prepare`."""

    rows: Rows
    """The M rows for the minibatches."""
    experience: Experience
    """What advantages are recomputed from."""
    targets: list[Targets]
    """The targets of each companion, for the M rows."""
    metrics: dict[str, float]


class Minibatch(NamedTuple):
    """The data of a gradient step."""

    rows: Rows
    targets: list[Targets]
    """The targets of each companion, for these rows."""


def columns(policy: ActorCritic, obs: np.ndarray) -> torch.Tensor:
    """Return observations `(B, ...)` as rows of columns `(B, D)`, on the policy's device."""
    return on_device(policy, policy.features.flatten(obs))


def network_inputs(
    policy: ActorCritic, batch: Batch, obs: torch.Tensor, final_obs: torch.Tensor
) -> tuple[Inputs, Inputs]:
    """Return the inputs for the M rows, and for the next observations of their E ends."""
    if policy.core is None:
        return Inputs(obs, None), Inputs(final_obs, None)
    if "state" not in batch.extras:
        raise ValueError("a recurrent policy learns from its recurrent states: store the extras that act() returns")
    state = on_device(policy, batch.extras["state"]).float()
    starts = on_device(policy, np.append(True, batch.ends[:-1]))
    ends = np.flatnonzero(batch.ends)
    _, final_state = policy.step(obs[ends], state[ends])
    return Inputs(obs, (state, starts)), Inputs(final_obs, (final_state, torch.ones_like(starts[ends])))


@torch.no_grad()
def estimate(ppo: "Learning", experience: Experience) -> tuple[torch.Tensor, np.ndarray, torch.Tensor]:
    """Return values `(M, V)`, advantages float64 `(M,)` and returns `(M, V)`, in units of reward."""
    batch, rewards, inputs, final_inputs = experience
    values = values_of(ppo, inputs)
    value, final_value = (each.double().cpu().numpy() for each in (values, values_of(ppo, final_inputs)))
    advantages = [
        reward.advantage(batch, value[:, k], final_value[:, k], ppo.GAE_lambda) for k, reward in enumerate(rewards)
    ]
    advantage = reduce(add, (reward.weight * each for reward, each in zip(rewards, advantages, strict=True)))
    returns = np.stack(advantages, axis=1) + value
    return values, advantage, on_device(ppo.policy, returns).float()


def values_of(ppo: "Learning", inputs: Inputs) -> torch.Tensor:
    """Return values `(B, V)`, in units of reward."""
    if ppo.numpy_policy is None:
        return ppo.policy.value(*inputs)
    return ppo.policy.value_head.stats.inverse(torch.from_numpy(ppo.numpy_policy.value(inputs.obs.numpy())))


def scaled(ppo: "Learning", experience: Experience, advantage: np.ndarray) -> torch.Tensor:
    """Return advantages `(M,)`, scaled as `normalize_advantage` says.

    With `minibatch`, each minibatch normalizes its own later; here only extreme magnitudes are brought near 1.
    """
    stats = ppo.policy.value_head.stats
    if ppo.normalize_advantage == "none":
        return on_device(ppo.policy, advantage).float()
    if ppo.normalize_advantage == "returns":
        return on_device(ppo.policy, advantage).float() / stats.std[0].float()
    deviations = np.sqrt(stats.var.tolist())
    size = sum(reward.weight * each for reward, each in zip(experience.rewards, deviations, strict=True))
    in_range = on_device(ppo.policy, advantage / reward_unit(size)).float()
    return normalize(in_range) if ppo.normalize_advantage == "batch" else in_range


def acted(policy: ActorCritic, batch: Batch, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Return raw actions `(M, ...)` and their log-probabilities `(M,)` under the behavior policy.

    If a custom loop has not stored them, they are computed with the current policy. That is the behavior policy unless
    there was an update in between.
    """
    extras = batch.extras
    if "raw_action" in extras:
        raw_action = on_device(policy, extras["raw_action"]).float()
    elif isinstance(policy.action_space, COMPOSITE):
        parts = split_parts(policy.action_space, batch.action)
        raw_action = policy.policy_head.to_raw_action([on_device(policy, part) for part in parts])
    else:
        raw_action = policy.policy_head.to_raw_action(on_device(policy, batch.action).float())
    if "log_prob" in extras:
        return raw_action, on_device(policy, extras["log_prob"]).float()
    return raw_action, policy.distribution(*inputs).log_prob(raw_action)


def minibatch_gradients(
    ppo: "Learning", count: int, objective: Objective, workers: GradientWorkers | None
) -> Autograd | ShardedGradient:
    """Return the gradient computation for a batch of `count` rows: the analytic one if it applies."""
    gradient = ppo.optimizers[0].gradient
    if ppo.numpy_policy is None or ppo.learner == "torch":
        return Autograd(ppo.policy, ppo.objective_loss, gradient, objective, has_entropy=ppo.entropy_coef > 0)
    return ShardedGradient(ppo.numpy_policy, gradient.numpy(), objective, count, ppo.mini_batch_size, workers)


def add_gradients(ppo: "Learning", targets: list[Targets], index: np.ndarray) -> Metrics:
    """Compute the gradients of the companions' losses on some rows; return the losses.

    Only if a companion `shares`, its gradient is added to the policy's.
    """
    for optimizer in ppo.optimizers[1:]:
        optimizer.gradient.zero_()
    losses = companion_losses(ppo, chosen(targets, index))
    for companion, loss in losses.items():
        loss.backward(inputs=ppo.reached[companion])
    return {loss_name(companion): loss.detach() for companion, loss in losses.items()}


def companion_losses(ppo: "Learning", targets: list[Targets]) -> dict[Companion, torch.Tensor]:
    """Return the loss of each companion that has one, for the targets of a minibatch."""
    return {
        companion: companion.loss(own, ppo.rng, ppo.policy)
        for companion, own in zip(ppo.companions, targets, strict=True)
        if companion.learns
    }


def loss_name(companion: Companion) -> str:
    """Return the name of the metric for a companion's loss."""
    return f"{companion.name.lower()}_loss"


def chosen(targets: list[Targets], index: np.ndarray) -> list[Targets]:
    """Return the rows `index` `(k,)` of the targets of each companion."""
    return [tuple(tensor[index] for tensor in own) for own in targets]


def shuffled(rows: Rows, mini_batch_size: int, rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
    """Return a random order `(M,)` of the rows, and the bounds of minibatches: equal parts, no larger than given.

    For a recurrent policy, sequences stay whole, so minibatches are only about equal.
    """
    count = len(rows.obs)
    parts = -(-count // mini_batch_size)
    if rows.starts is None:
        return rng.permutation(count), [count * part // parts for part in range(parts + 1)]
    sequences = np.split(np.arange(count), np.flatnonzero(rows.starts.cpu())[1:])
    sequences = [sequences[index] for index in rng.permutation(len(sequences))]
    ends = np.cumsum([0, *map(len, sequences)])
    nearest = np.abs(ends - np.linspace(0, count, parts + 1)[:, None]).argmin(axis=1)
    return np.concatenate(sequences), sorted({*ends[nearest].tolist()})


def on_device(policy: ActorCritic, rows: np.ndarray) -> torch.Tensor:
    """Return rows as a tensor on the policy's device."""
    return torch.as_tensor(rows, device=policy.value_head.normal.weight.device)


def explained_variance(values: torch.Tensor, returns: torch.Tensor) -> float:
    """Return 1 - Var(return - value) / Var(return) of column 0, the extrinsic one; 0 if the return does not vary."""
    value, target = (each[:, 0].double().cpu().numpy() for each in (values, returns))
    variance = target.var()
    return float(1.0 - (target - value).var() / variance) if variance > 0 else 0.0


def means(steps: Sequence[Metrics]) -> dict[str, float]:
    """Return the mean of each metric over the steps; if one is infinite or NaN, the metrics of the first such step."""
    values = {name: [step[name] for step in steps] for name in steps[0]}
    found = {
        name: float(torch.stack(each).mean() if torch.is_tensor(each[0]) else np.mean(each))
        for name, each in values.items()
    }
    if np.isfinite([*found.values()]).all():
        return found
    numbers = [{name: float(value) for name, value in step.items()} for step in steps]
    return next((step for step in numbers if not np.isfinite([*step.values()]).all()), found)
