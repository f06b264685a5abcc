"""One update of PPO, top to bottom: from a batch of experience to new weights.

    batch -> normalized observations -> rewards (also the intrinsic ones of companions) -> values -> advantages (GAE)
          -> return statistics (PopArt) -> observation statistics
          -> epochs of shuffled minibatches: gradients (PPO's and the companions') -> clip -> Adam

Source: Schulman et al. 2017 (arXiv:1707.06347); docs/ppo.md names the source of each detail.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from parallel_rl.networks import limit_norm
from parallel_rl.utils import (
    ALONE,
    COMPOSITE,
    Batch,
    Ranks,
    gae,
    mean_metrics,
    merged,
    next_rows,
    reward_unit,
    split_parts,
    stream_of,
)
from PPO.actor_critic import ActorCritic, Past
from PPO.base import PPOBase
from PPO.companions import Companion, Transitions
from PPO.fast.shards import GradientWorkers, ShardedGradient
from PPO.losses import LossMetrics, as_tensors
from PPO.memory import Rows
from PPO.minibatches import (
    Autograd,
    LossOfMinibatch,
    Targets,
    add_companion_gradients,
    average_over_ranks,
    common_bounds,
    means,
    minibatch_count,
    shuffled,
    standardize,
)
from PPO.objective import Objective


@torch.no_grad()
def prepare(ppo: PPOBase, batch: Batch, ranks: Ranks = ALONE) -> "Prepared":
    """Convert a batch to rows for minibatches; update the statistics of observations, returns and companions.

    The statistics include the rows of all ranks.

    Raises:
        ValueError: a recurrent state is missing, or a companion's reward does not have the shape `(M,)`.
        FloatingPointError: a companion's reward is infinite or NaN.
    """
    policy, head = ppo.policy, ppo.policy.value_head

    # observations, normalized by the statistics that the policy acted with (with lag=1: by newer ones)
    obs, past = columns(policy, batch.obs), past_of(policy, batch)
    normal_obs, final_obs = policy.normalize(obs), policy.normalize(columns(policy, batch.final_obs))
    raw_action, log_prob = behavior_actions(policy, batch, normal_obs, past)
    metrics = {"entropy": -log_prob.mean().item()}

    # rewards: the environment's, and those of companions
    rewards = [RewardStream(batch.reward, ppo.gamma, batch.terminated, batch.ends)]
    transitions = Transitions(batch, policy.features, raw_action, ranks)
    for companion in ppo.companions:
        if companion.beta is not None:
            rewards.append(intrinsic_stream(companion, transitions))
            metrics[f"{companion.name.lower()}_reward"] = float(rewards[-1].reward.mean())
    targets = [companion.targets(transitions) for companion in ppo.companions]

    # the critic has never seen a reward: bring its first values to the magnitude of the rewards
    if not ppo.rewarded:
        largest = max(ranks.all_gather(float(np.abs(batch.reward).max())))
        head.stats.rescale(0, reward_unit(largest))
        ppo.rewarded = largest != 0

    # values, advantages (GAE) and returns
    experience = Experience(batch, rewards, normal_obs, past, final_obs, ranks)
    values, advantage, returns = estimate(ppo, experience)

    # update the return statistics, and rescale the value head (PopArt)
    old_value = head.update(returns, values, ranks)

    state, starts = past or (None, None)
    rows = Rows(
        obs=normal_obs,
        raw_action=raw_action,
        log_prob=log_prob,
        advantage=scaled(ppo, experience, advantage),
        target=head.stats(returns),
        value=old_value,
        state=state,
        starts=starts,
    )
    policy.update_statistics(obs, ranks)  # for the next batch: these rows are normalized by the old ones
    explained = {"explained_variance": explained_variance(values, returns, ranks)}
    return Prepared(rows, experience, targets, explained | mean_metrics(ranks, len(obs), metrics))


def optimize(
    ppo: PPOBase,
    prepared: "Prepared",
    lr: float,
    objective: Objective,
    workers: GradientWorkers | None,
    own_loss: LossOfMinibatch | None = None,
) -> dict[str, float]:
    """Take a gradient step for each minibatch of each epoch; return the means of their metrics.

    With `recompute_advantage`, advantages and targets are estimated again before each further epoch. A minibatch has
    rows of every rank, and its gradient is the mean over all of them. `own_loss` replaces the losses of PPO and of
    companions.
    """
    rows, experience, config, ranks = prepared.rows, prepared.experience, ppo.config, prepared.experience.ranks
    gradients = [optimizer.gradient for optimizer in ppo.optimizers]
    if own_loss is not None:
        policy_gradient: Autograd | ShardedGradient = Autograd(own_loss, gradients, prepared.targets)
    else:
        policy_gradient = minibatch_gradients(ppo, len(rows.obs), objective, workers)
    policy_gradient.load(rows)
    rng = stream_of(ranks, ppo.rng)
    parts = minibatch_count(sum(ranks.all_gather(len(rows.obs))), config.mini_batch_size)  # each with rows of all ranks
    steps: list[LossMetrics] = []
    for epoch in range(config.k_epochs):
        if epoch and config.recompute_advantage:
            _, advantage, returns = estimate(ppo, experience)
            target = ppo.policy.value_head.stats(returns)
            rows = rows._replace(advantage=scaled(ppo, experience, advantage), target=target)
            policy_gradient.load(rows)
        order, bounds = shuffled(rows, parts, rng)
        bounds, shares = common_bounds(ranks, bounds)
        shuffled_rows = policy_gradient.shuffle(order)
        if config.normalize_advantage == "minibatch":
            standardize(ranks, shuffled_rows.advantage, bounds)
        for (start, stop), share in zip(pairwise(bounds), shares, strict=True):
            rng_state = rng.bit_generator.state if config.target_kl is not None else {}
            metrics = policy_gradient.compute(start, stop)
            if ppo.companions and own_loss is None:
                metrics |= add_companion_gradients(ppo, prepared.targets, order[start:stop], rng)
            metrics = average_over_ranks(ranks, gradients, metrics, share)
            if config.target_kl is not None and metrics["approx_kl"] > 1.5 * config.target_kl:
                rng.bit_generator.state = rng_state  # undo the random numbers of this minibatch, which is not used
                return means(steps or [metrics | {"grad_norm": 0.0}])
            metrics["grad_norm"] = limit_norm(gradients[0], config.max_grad_norm)
            for optimizer in ppo.optimizers:
                optimizer.step(lr)
            steps.append(metrics)
    return means(steps)


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
        """Return advantages `(M,)`: a termination bootstraps zero, any other end the value of the next observation.

        Args:
            batch: M rows with E ends.
            value: `(M,)`, of the observations.
            final_value: `(E,)`, of the next observations at the ends.
            gae_lambda: lambda of GAE.
        """
        # `self.ends` may be only the ends of trajectories: select their final values
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
    obs: torch.Tensor
    """Normalized observations `(M, D)`."""
    past: Past | None
    """The recurrent states and starts of sequences; None without a core."""
    final_obs: torch.Tensor
    """Normalized next observations `(E, D)` of the E ends."""
    ranks: Ranks
    """The ranks that learn together, each from its own rows."""


class Prepared(NamedTuple):
    """The result of `prepare`."""

    rows: Rows
    """The M rows for the minibatches."""
    experience: Experience
    """What advantages are recomputed from."""
    targets: list[Targets]
    """The targets of each companion, for the M rows."""
    metrics: dict[str, float]


def columns(policy: ActorCritic, obs: np.ndarray) -> torch.Tensor:
    """Return observations `(B, ...)` as rows of columns `(B, D)`, on the policy's device."""
    return on_device(policy, policy.features.flatten(obs))


def past_of(policy: ActorCritic, batch: Batch) -> Past | None:
    """Return the recurrent state before each row, and where sequences start; None without a core."""
    if policy.core is None:
        return None
    if "state" not in batch.extras:
        raise ValueError("a recurrent policy learns from its recurrent states: store the extras that act() returns")
    state = on_device(policy, batch.extras["state"]).float()
    return state, on_device(policy, np.append(True, batch.ends[:-1]))


@torch.no_grad()
def estimate(ppo: PPOBase, experience: Experience) -> tuple[torch.Tensor, np.ndarray, torch.Tensor]:
    """Return values `(M, V)`, advantages float64 `(M,)` and returns `(M, V)`, in units of reward."""
    values, final_values = values_of(ppo, experience)
    value, final_value = (tensor.double().cpu().numpy() for tensor in (values, final_values))
    advantages = np.empty_like(value)
    for k, reward in enumerate(experience.rewards):
        advantages[:, k] = reward.advantage(experience.batch, value[:, k], final_value[:, k], ppo.GAE_lambda)
    weighted = advantages * [reward.weight for reward in experience.rewards]
    return values, weighted.sum(axis=1), on_device(ppo.policy, advantages + value).float()


def values_of(ppo: PPOBase, experience: Experience) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the values `(M, V)` of the rows and `(E, V)` of the next observations at the ends, in units of reward."""
    policy, obs, past, final_obs = ppo.policy, experience.obs, experience.past, experience.final_obs
    if ppo.numpy_policy is not None:
        inverse, value = policy.value_head.stats.inverse, ppo.numpy_policy.value
        return inverse(torch.from_numpy(value(obs.numpy()))), inverse(torch.from_numpy(value(final_obs.numpy())))
    if past is None:
        return policy.value(obs), policy.value(final_obs)
    # each next observation is one more row of its sequence: its recurrent state follows from the present weights
    state, starts = past
    count, ends = len(obs), np.flatnonzero(experience.batch.ends)
    order = np.insert(np.arange(count), ends + 1, np.arange(count, count + len(ends)))
    parts = (obs, final_obs), (state, state[ends]), (starts, torch.zeros_like(starts[ends]))
    longer_obs, longer_state, longer_starts = (torch.cat(rows)[order] for rows in parts)
    values = policy.value(longer_obs, (longer_state, longer_starts))[np.argsort(order)]
    return values[:count], values[count:]


def scaled(ppo: PPOBase, experience: Experience, advantage: np.ndarray) -> torch.Tensor:
    """Return advantages `(M,)`, scaled as `normalize_advantage` says.

    With `minibatch`, each minibatch is standardized later; here only extreme magnitudes are brought near 1.
    """
    stats = ppo.policy.value_head.stats
    if ppo.normalize_advantage == "none":
        return on_device(ppo.policy, advantage).float()
    if ppo.normalize_advantage == "returns":
        return on_device(ppo.policy, advantage).float() / stats.std[0].float()
    deviations = np.sqrt(stats.var.tolist())
    size = sum(reward.weight * each for reward, each in zip(experience.rewards, deviations, strict=True))
    in_range = on_device(ppo.policy, advantage / reward_unit(size)).float()
    if ppo.normalize_advantage == "batch":
        standardize(experience.ranks, in_range, [0, len(in_range)])
    return in_range


def behavior_actions(
    policy: ActorCritic, batch: Batch, obs: torch.Tensor, past: Past | None
) -> tuple[torch.Tensor, torch.Tensor]:
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
        action = on_device(policy, batch.action)  # float32 does not hold all whole numbers
        raw_action = policy.policy_head.to_raw_action(action.float() if action.is_floating_point() else action)
    if "log_prob" in extras:
        return raw_action, on_device(policy, extras["log_prob"]).float()
    return raw_action, policy.distribution(obs, past).log_prob(raw_action)


def minibatch_gradients(
    ppo: PPOBase, count: int, objective: Objective, workers: GradientWorkers | None
) -> Autograd | ShardedGradient:
    """Return the gradient computation for a batch of `count` rows: the analytic one if it applies."""
    gradient = ppo.optimizers[0].gradient
    if ppo.numpy_policy is None or ppo.learner == "torch":
        tensors = as_tensors(objective, gradient.device)
        return Autograd(lambda minibatch: ppo.objective_loss(tensors, ppo.policy, minibatch.rows), [gradient])
    return ShardedGradient(ppo.numpy_policy, gradient.numpy(), objective, count, ppo.mini_batch_size, workers)


def on_device(policy: ActorCritic, rows: np.ndarray) -> torch.Tensor:
    """Return rows as a tensor on the policy's device."""
    return torch.as_tensor(rows, device=policy.value_head.normal.weight.device)


def explained_variance(values: torch.Tensor, returns: torch.Tensor, ranks: Ranks) -> float:
    """Return 1 - Var(return - value) / Var(return) of column 0, the extrinsic one; 0 if the return does not vary."""
    value, target = (tensor[:, 0].double().cpu().numpy() for tensor in (values, returns))
    parts = target, target - value
    own = len(target), np.array([part.mean() for part in parts]), np.array([part.var() for part in parts])
    _, _, (variance, unexplained) = merged(ranks.all_gather(own))
    return float(1.0 - unexplained / variance) if variance > 0 else 0.0
