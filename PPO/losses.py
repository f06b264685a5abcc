"""The losses of PPO: pure functions of tensors.

Source: Schulman et al. 2017, "Proximal Policy Optimization Algorithms" (arXiv:1707.06347).
"""

from typing import Any

import torch

from PPO.actor_critic import ActorCritic
from PPO.memory import Rows
from PPO.objective import Number, Objective

LossMetrics = dict[str, Any]
"""Numbers, or tensors of one: `policy_loss`, `value_loss`, `approx_kl` and `clip_fraction` of a minibatch."""


def objective_loss(objective: Objective, policy: ActorCritic, rows: Rows) -> tuple[torch.Tensor, LossMetrics]:
    """Return the loss (equation 9 of the paper), and the metrics of a minibatch.

    L = policy loss + value_coef * value loss - entropy_coef * mean entropy
    """
    clip = objective.clip
    distribution, value = policy(rows.obs, rows.past)
    log_prob = distribution.log_prob(rows.raw_action)
    policy_loss = clipped_surrogate(log_prob, rows.log_prob, rows.advantage, clip)
    critic_loss = value_loss(value, rows.target, rows.value, objective.value_clip)
    loss = policy_loss + objective.value_coef * critic_loss
    if objective.entropy_coef is not None:
        loss = loss - objective.entropy_coef * distribution.entropy().mean()
    with torch.no_grad():
        metrics = {
            "policy_loss": policy_loss,
            "value_loss": critic_loss,
            "approx_kl": approximate_kl(log_prob, rows.log_prob),
            "clip_fraction": clip_fraction(log_prob, rows.log_prob, clip),
        }
    return loss, {name: metric.detach() for name, metric in metrics.items()}


def clipped_surrogate(
    log_prob: torch.Tensor, old_log_prob: torch.Tensor, advantage: torch.Tensor, clip: Number
) -> torch.Tensor:
    r"""Return the policy loss, to be minimized (equation 7).

        L = -mean min(r A, clip(r, 1 - clip, 1 + clip) A),  r = exp(log_prob - old_log_prob)

    Args:
        log_prob: `(B,)`, of the actions under the current policy.
        old_log_prob: `(B,)`, under the behavior policy.
        advantage: `(B,)`.
        clip: the clip range of the ratio.
    """
    ratio = (log_prob - old_log_prob).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()


def value_loss(
    value: torch.Tensor, target: torch.Tensor, old_value: torch.Tensor | None = None, clip: float | None = None
) -> torch.Tensor:
    r"""Return the mean squared error of the critic, summed over its V heads.

    With `clip`, the maximum of this error and that of `old_value + clip(value - old_value, -clip, clip)`
    (Engstrom et al. 2020, arXiv:2005.12729, section 3).

    Args:
        value: `(B, V)`.
        target: `(B, V)`.
        old_value: `(B, V)`, before the update; needed with `clip`.
        clip: the clip range of the values.
    """
    error = (value - target) ** 2
    if clip is not None:
        assert old_value is not None
        clipped = old_value + (value - old_value).clamp(-clip, clip)
        error = torch.maximum(error, (clipped - target) ** 2)
    return error.mean(dim=0).sum()


def approximate_kl(log_prob: torch.Tensor, old_log_prob: torch.Tensor) -> torch.Tensor:
    """Estimate KL(old || new) from samples of old: mean((r - 1) - log r).

    This is k3 of Schulman 2020 (http://joschu.net/blog/kl-approx.html): unbiased, never negative, of low variance.
    """
    log_ratio = log_prob - old_log_prob
    return (log_ratio.expm1() - log_ratio).mean()


def clip_fraction(log_prob: torch.Tensor, old_log_prob: torch.Tensor, clip: Number) -> torch.Tensor:
    """Return the fraction of rows whose ratio is outside `[1 - clip, 1 + clip]`."""
    return ((log_prob - old_log_prob).expm1().abs() > clip).to(log_prob.dtype).mean()


def as_tensors(objective: Objective, device: torch.device) -> Objective:
    """Return the coefficients that change as tensors: compiled code treats numbers as constants."""
    clip, entropy_coef = (
        None if number is None else torch.tensor(number, device=device)
        for number in (objective.clip, objective.entropy_coef)
    )
    return objective._replace(clip=clip, entropy_coef=entropy_coef)
