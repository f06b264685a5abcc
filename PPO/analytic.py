"""PPO's policy and the gradient of its loss written out in NumPy: what torch computes, without the cost of its calls.

For small networks on a CPU: two separate MLPs, a categorical or squashed Gaussian head and a value head. The weights
and their gradients are views of the torch parameters, so there is one set of weights and one optimiser. A test holds
each combination of options to autograd.

Notation: `d_x` is the derivative of the loss by `x`, of the same shape as `x`; B rows.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from networks import TanhGaussianHead, gauss_hermite
from PPO.actor_critic import ActorCritic
from PPO.losses import Objective
from PPO.memory import Rows
from utils import compute_threads

ONE_THREAD_PRODUCT = 2**18
"""Multiplications in a matrix product up to which NumPy keeps to one thread by itself (measured with OpenBLAS)."""

Activation = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From `z` to `h = f(z)` and the slope `f'(z)`; may overwrite `z`."""


def tanh(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope 1 - h^2."""
    h = np.tanh(z, out=z)
    return h, 1.0 - h * h


def relu(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope [z > 0]."""
    slope = z > 0
    return np.maximum(z, 0.0, out=z), slope


def silu(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Output h = z s with s = 1 / (1 + exp(-z)); slope s + h (1 - s)."""
    s = 1.0 / (1.0 + np.exp(-z))
    h = z * s
    return h, s + h * (1.0 - s)


ACTIVATIONS: dict[type[nn.Module], Activation] = {nn.Tanh: tanh, nn.ReLU: relu, nn.SiLU: silu}


class Linear(NamedTuple):
    """z = h W^T + b: views of a layer's weights and gradients."""

    weight: np.ndarray
    d_weight: np.ndarray
    bias: np.ndarray
    d_bias: np.ndarray

    def forward(self, h: np.ndarray) -> np.ndarray:
        """Return `z` `(B, out)` for `h` `(B, in)`."""
        z = h @ self.weight.T
        z += self.bias
        return z

    def backward(self, h: np.ndarray, d_z: np.ndarray) -> None:
        """d_W = d_z^T h, d_b = sum d_z, written in place."""
        np.matmul(d_z.T, h, out=self.d_weight)
        d_z.sum(axis=0, out=self.d_bias)


class Network(NamedTuple):
    """Hidden layers with an activation each, then a linear head."""

    hidden: Sequence[tuple[Linear, Activation]]
    head: Linear

    def output(self, obs: np.ndarray) -> np.ndarray:
        """Return the head's output."""
        return self.forward(obs)[0]

    def forward(self, obs: np.ndarray) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
        """Return the head's output, and each hidden layer's input and slope, with the head's input last."""
        trace, h = [], obs
        for layer, activation in self.hidden:
            inputs = h
            h, slope = activation(layer.forward(h))
            trace.append((inputs, slope))
        return self.head.forward(h), [*trace, (h, h)]

    def backward(self, trace: list[tuple[np.ndarray, np.ndarray]], d_out: np.ndarray) -> None:
        """Backpropagate: d_h = d_z W of the layer above, d_z = d_h f'(z)."""
        above, d_z = self.head, d_out
        above.backward(trace[-1][0], d_z)
        for (layer, _), (inputs, slope) in zip(reversed(self.hidden), reversed(trace[:-1]), strict=True):
            d_z = (d_z @ above.weight) * slope
            layer.backward(inputs, d_z)
            above = layer


def surrogate_gradient(
    log_prob: np.ndarray, old_log_prob: np.ndarray, advantage: np.ndarray, clip: float
) -> tuple[float, np.ndarray]:
    """Return the clipped surrogate and its derivative by `log_prob`: -A r / B where the minimum is not the clipped."""
    ratio = np.exp(log_prob - old_log_prob)
    gain, clipped = ratio * advantage, np.clip(ratio, 1 - clip, 1 + clip) * advantage
    d_log_prob = np.where(gain <= clipped, -gain, 0.0) / len(gain)
    return -float(np.minimum(gain, clipped).mean()), d_log_prob.astype(log_prob.dtype)


def value_gradient(
    value: np.ndarray, target: np.ndarray, old_value: np.ndarray, clip: float | None
) -> tuple[float, np.ndarray]:
    """Return the value loss and its derivative by `value`: 2 (V - R) / B, or 0 where a clipped V has more error."""
    difference = value - target
    error, d_value = difference**2, 2.0 * difference / len(value)
    if clip is not None:
        moved = value - old_value
        clipped = (old_value + np.clip(moved, -clip, clip) - target) ** 2
        d_value = np.where((error >= clipped) | (np.abs(moved) <= clip), d_value, 0.0).astype(value.dtype)
        error = np.maximum(error, clipped)
    return float(error.mean(axis=0).sum()), d_value


Backward = Callable[[np.ndarray, float], np.ndarray]
"""From `d_log_prob` `(B,)` and `d_entropy` (one number for all rows) to the derivative by a head's output."""


def categorical(logits: np.ndarray, draw: np.ndarray) -> tuple[np.ndarray, Backward]:
    """Return log p of the draws, log p = z - log sum exp z, and its derivatives by the logits `z` `(B, A)`.

    d log p_a / d z = 1_a - p
    d H / d z = -p (log p + H),  H = -sum p log p
    """
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    chosen = (np.arange(len(draw)), draw)

    def backward(d_log_prob: np.ndarray, d_entropy: float) -> np.ndarray:
        probs = np.exp(log_probs)
        d_logits = -probs * d_log_prob[:, None]
        d_logits[chosen] += d_log_prob
        if d_entropy:
            entropy = -(probs * log_probs).sum(axis=1, keepdims=True)
            d_logits -= d_entropy * probs * (log_probs + entropy)
        return d_logits

    return log_probs[chosen], backward


def tanh_gaussian(
    mean: np.ndarray, draw: np.ndarray, log_std: np.ndarray, log_scale: np.ndarray, d_log_std: np.ndarray
) -> tuple[np.ndarray, Backward]:
    """Return log N(u; mean, std) - log |da/du| of the draws `u`, and its derivatives by the means `(B, A)`.

    Those by the log-std are written into `d_log_std` `(A,)`. With e = (u - mean) / std, and x from N(0, 1):

        d log p / d mean = e / std,                    d log p / d log std = e^2 - 1
        d H / d mean = E[-2 tanh(mean + std x)],       d H / d log std = 1 + E[-2 tanh(mean + std x) std x]
    """
    std = np.exp(log_std)
    deviation = (draw - mean) / std
    log_slope = 2.0 * (np.log(2.0) - draw - np.logaddexp(0.0, -2.0 * draw)) + log_scale
    log_prob = (-0.5 * deviation**2 - log_std - 0.5 * np.log(2.0 * np.pi) - log_slope).sum(axis=1)

    def backward(d_log_prob: np.ndarray, d_entropy: float) -> np.ndarray:
        d_mean = d_log_prob[:, None] * deviation / std
        d_log_std[:] = d_log_prob @ (deviation**2 - 1.0)
        if d_entropy:
            nodes, weights = gauss_hermite()
            d_points = -2.0 * weights * np.tanh(mean[..., None] + std[:, None] * nodes)
            d_mean += d_entropy * d_points.sum(axis=-1)
            d_log_std[:] += d_entropy * (1.0 + (d_points @ nodes) * std).sum(axis=0)
        return d_mean.astype(mean.dtype, copy=False)

    return log_prob.astype(mean.dtype, copy=False), backward


class AnalyticActorCritic:
    """The twin of an `ActorCritic`: acts by its weights, and writes the gradient of the loss into their `grad`."""

    @staticmethod
    def applies_to(policy: ActorCritic) -> bool:
        """Say whether the policy is on the CPU and made of what is written out here."""
        layers = [*policy.actor, *policy.critic]
        known = all(isinstance(layer, nn.Linear) or type(layer) in ACTIVATIONS for layer in layers)
        return known and policy.value_head.normal.weight.device.type == "cpu"

    def __init__(self, policy: ActorCritic) -> None:
        """Take views of the parameters, which must have gradients already."""
        self.head = policy.policy_head
        output = self.head.mean if isinstance(self.head, TanhGaussianHead) else self.head.logits
        self.actor = _network(policy.actor, output)
        self.critic = _network(policy.critic, policy.value_head.normal)
        self._largest = max(parameter.numel() for parameter in policy.parameters())

    def act(
        self, obs: np.ndarray, generator: torch.Generator, deterministic: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return actions, draws and log-probabilities for standardised observations `(B, D)`.

        With the same noise, and so the same draws, as the torch distributions take from the generator.
        """
        with compute_threads(1) if len(obs) * self._largest > ONE_THREAD_PRODUCT else nullcontext():
            output = self.actor.output(obs)
        noise = torch.empty(output.shape)
        if isinstance(self.head, TanhGaussianHead):
            log_std = self.head.log_std.detach().numpy()
            draw = output if deterministic else output + np.exp(log_std) * noise.normal_(generator=generator).numpy()
            head = self.head
            action = np.clip(
                head.offset.numpy() + head.scale.numpy() * np.tanh(draw), head.low.numpy(), head.high.numpy()
            )
        else:
            clocks = 1.0 if deterministic else noise.exponential_(generator=generator).numpy()
            draw = (np.exp(output - output.max(axis=1, keepdims=True)) / clocks).argmax(axis=1)
            action = draw + self.head.offset
        return action, draw, self._policy(output, draw)[0]

    def value(self, obs: np.ndarray) -> np.ndarray:
        """Return standardised values `(B, V)` of standardised observations `(B, D)`."""
        return self.critic.output(obs)

    def gradient(self, objective: Objective, rows: Rows, clip: float) -> dict[str, float]:
        """Compute the gradient of `objective.loss`; return its metrics."""
        obs, draw, old_log_prob, advantage, target, old_value = (field.numpy() for field in rows[:6])
        count = len(obs)
        output, actor_trace = self.actor.forward(obs)
        value, critic_trace = self.critic.forward(obs)
        log_prob, backward = self._policy(output, draw)
        if objective.normalize_advantage and count > 1:
            advantage = (advantage - advantage.mean()) / (advantage.std(ddof=1) + 1e-8)
        policy_loss, d_log_prob = surrogate_gradient(log_prob, old_log_prob, advantage, clip)
        value_loss, d_value = value_gradient(value, target, old_value, objective.value_clip)
        self.actor.backward(actor_trace, backward(d_log_prob, -objective.entropy_coef / count))
        self.critic.backward(critic_trace, objective.value_coef * d_value)
        log_ratio = log_prob - old_log_prob
        change = np.expm1(log_ratio)
        return {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "approx_kl": float((change - log_ratio).mean()),
            "clip_fraction": float((np.abs(change) > clip).mean()),
        }

    def _policy(self, output: np.ndarray, draw: np.ndarray) -> tuple[np.ndarray, Backward]:
        if isinstance(self.head, TanhGaussianHead):
            log_std, d_log_std = _views(self.head.log_std)
            return tanh_gaussian(output, draw, log_std, np.log(self.head.scale.numpy()), d_log_std)
        return categorical(output, draw)


def _network(encoder: nn.Sequential, head: torch.Tensor | nn.Module) -> Network:
    layers = list(encoder)
    hidden = [(_linear(layers[i]), ACTIVATIONS[type(layers[i + 1])]) for i in range(0, len(layers), 2)]
    return Network(hidden, _linear(head))


def _linear(layer: torch.Tensor | nn.Module) -> Linear:
    assert isinstance(layer, nn.Linear)
    return Linear(*_views(layer.weight), *_views(layer.bias))


def _views(parameter: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return views of a parameter and of its gradient."""
    assert parameter.grad is not None
    return parameter.detach().numpy(), parameter.grad.numpy()
