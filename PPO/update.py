"""One update of PPO, top to bottom: from a batch of experience to new weights.

    batch -> normalized observations -> rewards (with RND, intrinsic ones too) -> values -> advantages (GAE)
          -> return statistics (PopArt) -> epochs of shuffled minibatches: gradient -> clip -> Adam
          -> observation statistics

Sources: Schulman et al. 2017 (arXiv:1707.06347); docs/ppo.md names those of the details.
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
from parallel_rl.utils import COMPOSITE, Batch, gae, linear, next_rows, reward_unit, scheduled, split_parts
from PPO.actor_critic import ActorCritic, Past
from PPO.autograd import Autograd
from PPO.fast.shards import GradientWorkers, ShardedGradient
from PPO.losses import Metrics, normalize
from PPO.memory import Rows
from PPO.objective import Objective

if TYPE_CHECKING:
    from PPO.agent import PPO


def update(
    ppo: "PPO", batch: Batch, lr: float, objective: Objective, workers: GradientWorkers | None = None
) -> dict[str, float]:
    """Learn from a batch of M rows; return the metrics of `PPO.learn`.

    What changes of the agent: its networks, their statistics, its optimizers and its random state.

    Raises:
        ValueError: a recurrent state is missing.
    """
    prepared = prepare(ppo, batch)
    metrics = prepared.metrics | optimize(ppo, prepared, lr, objective, workers)
    ppo.policy.update_statistics(prepared.obs)  # the observation statistics move
    return metrics


@torch.no_grad()
def prepare(ppo: "PPO", batch: Batch) -> "Prepared":
    """Turn a batch into the rows of minibatches; the statistics of returns move, and those of RND.

    Raises:
        ValueError: a recurrent state is missing.
    """
    policy, rnd, head = ppo.policy, ppo.rnd, ppo.policy.value_head

    # observations, normalized by the statistics that the policy acted with
    obs, final_obs = columns(policy, batch.obs), columns(policy, batch.final_obs)
    inputs, final_inputs = network_inputs(policy, batch, policy.normalize(obs), policy.normalize(final_obs))

    # rewards: the environment's and, with RND, an intrinsic one; RND's statistics move
    rewards = [RewardStream(batch.reward, ppo.gamma, batch.terminated, batch.ends)]
    targets = None
    if rnd is not None:
        next_obs = columns(policy, batch.next_obs)[:, : policy.features.columns].float()
        novelty = rnd.observe(next_obs, batch.trajectory_ends, batch.env_ids)
        targets = rnd.targets(next_obs)
        # its return goes on over the ends of episodes (Burda et al. 2018, section 2.3)
        never = np.zeros(len(novelty), dtype=bool)
        rewards.append(RewardStream(novelty, ppo.intrinsic_gamma, never, batch.trajectory_ends, weight=ppo.beta))

    # before the first rewards the critic's values are noise: give them the size of the rewards
    if not ppo.rewarded:
        head.stats.rescale(0, reward_unit(float(np.abs(batch.reward).max())))

    # values, advantages (GAE) and returns
    experience = Experience(batch, rewards, inputs, final_inputs)
    values, advantage, returns = estimate(ppo, experience)

    # the return statistics move, and the value head against them (PopArt)
    old_value = head.update(returns, values)

    raw_action, log_prob = acted(policy, batch, inputs)
    target, past = head.stats(returns), inputs.past or ()
    rows = Rows(inputs.obs, raw_action, log_prob, scaled(ppo, experience, advantage), target, old_value, *past)
    metrics = {"explained_variance": explained_variance(values, returns), "entropy": -log_prob.mean().item()}
    if rnd is not None:
        metrics["intrinsic_reward"] = float(novelty.mean())
    return Prepared(rows, experience, targets, obs, metrics)


def optimize(
    ppo: "PPO", prepared: "Prepared", lr: float, objective: Objective, workers: GradientWorkers | None
) -> dict[str, float]:
    """Take a gradient step for each minibatch of each epoch; return the means of their metrics.

    With `recompute_advantage` the advantages and targets of each further epoch are estimated again.
    """
    rows, experience, targets = prepared.rows, prepared.experience, prepared.rnd_targets
    steps: list[Metrics] = []
    gradient = minibatch_gradients(ppo, len(rows.obs), objective, workers)
    gradient.load(rows)
    for epoch in range(ppo.k_epochs):
        if epoch and ppo.recompute_advantage:
            _, advantage, returns = estimate(ppo, experience)
            target = ppo.policy.value_head.stats(returns)
            rows = rows._replace(advantage=scaled(ppo, experience, advantage), target=target)
            gradient.load(rows)
        order, bounds = shuffled(rows, ppo.mini_batch_size, ppo.rng)
        gradient.shuffle(order)
        for start, stop in pairwise(bounds):
            metrics = gradient.compute(start, stop)
            if ppo.target_kl is not None and metrics["approx_kl"] > 1.5 * ppo.target_kl:
                nothing = {"grad_norm": 0.0} | ({} if targets is None else {"rnd_loss": 0.0})
                return means(steps or [metrics | nothing])
            metrics["grad_norm"] = limit_norm(ppo.optimizers[0].gradient, ppo.max_grad_norm)
            if targets is not None:
                metrics["rnd_loss"] = predictor_gradient(ppo, targets, order[start:stop])
            for optimizer in ppo.optimizers:
                optimizer.step(lr)
            steps.append(metrics)
    return means(steps)


def annealed(ppo: "PPO", progress: float) -> tuple[float, Objective]:
    """Return the step size and the coefficients of the loss when `progress` of the run, 0 to 1, is over.

    Raises:
        ValueError: a function of the run gave what cannot be.
    """
    objective = Objective(
        clip=scheduled("policy_clip", ppo.policy_clip, ppo.anneal_clip, progress),
        value_coef=ppo.value_coef,
        entropy_coef=linear(ppo.entropy_coef, progress) if ppo.anneal_entropy else ppo.entropy_coef,
        value_clip=ppo.value_clip,
        normalize=ppo.normalize_advantage == "minibatch",
    )
    return scheduled("lr", ppo.lr, ppo.anneal_lr, progress), objective


class Inputs(NamedTuple):
    """Inputs of the networks."""

    obs: torch.Tensor
    """Normalized observations `(B, D)`."""
    past: Past | None
    """Of a recurrent policy."""


@dataclass(frozen=True)
class RewardStream:
    """A reward for each of M rows, and how its return is computed."""

    reward: np.ndarray
    gamma: float
    terminated: np.ndarray
    """bool `(M,)`: the rows that bootstrap zero."""
    ends: np.ndarray
    """bool `(M,)`: the rows whose return does not go on in the next row."""
    weight: float = 1.0
    """Of its advantage in the sum."""

    def advantage(self, batch: Batch, value: np.ndarray, final_value: np.ndarray, gae_lambda: float) -> np.ndarray:
        """Return advantages `(M,)` from the values of M observations, and of the next ones at the E ends of the batch.

        A termination bootstraps zero; a truncation, or a trajectory that merely stops, the next observation's value.
        """
        next_value = next_rows(value, self.ends, final_value[self.ends[batch.ends]])
        return gae(self.reward, value, next_value, self.terminated, self.ends, self.gamma, gae_lambda)


class Experience(NamedTuple):
    """The rows from which advantages are estimated."""

    batch: Batch
    rewards: list[RewardStream]
    """V rewards of the M rows."""
    inputs: Inputs
    """Of the M rows."""
    final_inputs: Inputs
    """Of the next observations of their E ends."""


class Prepared(NamedTuple):
    """What `prepare` made of a batch."""

    rows: Rows
    """Of the minibatches."""
    experience: Experience
    """To estimate advantages again."""
    rnd_targets: tuple[torch.Tensor, torch.Tensor] | None
    """What RND's predictor learns, with RND."""
    obs: torch.Tensor
    """`(M, D)`, not normalized."""
    metrics: dict[str, float]


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
        raise ValueError("a recurrent policy learns from its recurrent states: keep the extras that act() returns")
    state = on_device(policy, batch.extras["state"]).float()
    starts = on_device(policy, np.append(True, batch.ends[:-1]))
    ends = np.flatnonzero(batch.ends)
    _, final_state = policy.step(obs[ends], state[ends])
    return Inputs(obs, (state, starts)), Inputs(final_obs, (final_state, torch.ones_like(starts[ends])))


@torch.no_grad()
def estimate(ppo: "PPO", experience: Experience) -> tuple[torch.Tensor, np.ndarray, torch.Tensor]:
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


def values_of(ppo: "PPO", inputs: Inputs) -> torch.Tensor:
    """Return values `(B, V)`, in units of reward."""
    if ppo.numpy_policy is None:
        return ppo.policy.value(*inputs)
    return ppo.policy.value_head.stats.inverse(torch.from_numpy(ppo.numpy_policy.value(inputs.obs.numpy())))


def scaled(ppo: "PPO", experience: Experience, advantage: np.ndarray) -> torch.Tensor:
    """Return advantages `(M,)` as gradients take them; where minibatches normalize them, in a unit near their size."""
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
    """Return raw actions `(M, ...)` and their log-probabilities `(M,)` under the policy that acted.

    A loop by hand may not have stored them. Then they are computed with the present policy, which is the one that acted
    as long as there was no update in between.
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
    ppo: "PPO", count: int, objective: Objective, workers: GradientWorkers | None
) -> Autograd | ShardedGradient:
    """Return what computes the gradients of minibatches of so many rows: the analytic ones where they apply."""
    gradient = ppo.optimizers[0].gradient
    if ppo.numpy_policy is None or ppo.learner == "torch":
        return Autograd(ppo.policy, ppo.loss, gradient, objective, has_entropy=ppo.entropy_coef > 0)
    return ShardedGradient(ppo.numpy_policy, gradient.numpy(), objective, count, ppo.mini_batch_size, workers)


def predictor_gradient(ppo: "PPO", targets: tuple[torch.Tensor, torch.Tensor], index: np.ndarray) -> torch.Tensor:
    """Write the gradient of RND's loss on some rows into the parameters of its predictor; return the loss."""
    assert ppo.rnd is not None
    white, features = targets
    ppo.optimizers[1].gradient.zero_()
    loss = ppo.rnd.loss(white[index], features[index], ppo.rng)
    loss.backward()
    return loss.detach()


def shuffled(rows: Rows, mini_batch_size: int, rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
    """Return a new order `(M,)` of the rows, and the bounds of its minibatches: equal parts of at most that size.

    Of a recurrent policy sequences stay whole, and the minibatches are about equal.
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
    """Return 1 - Var(R - V) / Var(R) of the first of V values and returns `(M, V)`; 0 where R does not vary."""
    value, target = (each[:, 0].double().cpu().numpy() for each in (values, returns))
    variance = target.var()
    return float(1.0 - (target - value).var() / variance) if variance > 0 else 0.0


def means(steps: Sequence[Metrics]) -> dict[str, float]:
    """Return the mean of each metric over the steps."""
    values = {name: [step[name] for step in steps] for name in steps[0]}
    return {
        name: float(torch.stack(each).mean() if torch.is_tensor(each[0]) else np.mean(each))
        for name, each in values.items()
    }
