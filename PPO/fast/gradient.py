"""The analytic gradient of PPO's loss in NumPy. A test compares it with autograd for every combination of options.

Notation as in policy.py; `d_x` is the derivative of the loss with respect to `x`, of the same shape as `x`.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from PPO.fast.distributions import raw_log_prob
from PPO.fast.policy import ACTIVATIONS, Architecture, Encoder, Layer, Networks, Trace
from PPO.objective import Objective

if TYPE_CHECKING:
    from PPO.memory import Rows

METRICS = ("policy_loss", "approx_kl", "clip_fraction", "value_loss")
POLICY_LOSS, APPROX_KL, CLIP_FRACTION, VALUE_LOSS = range(len(METRICS))


def surrogate_gradient(
    log_ratio: np.ndarray, advantage: np.ndarray, clip: float, count: int
) -> tuple[float, np.ndarray]:
    """Return the clipped surrogate and its derivative by `log_prob`: -A r / B, or 0 where the clipped term is smaller.

    Here and below B is `count`, the number of rows of the whole minibatch. If the arguments are a shard of it, the
    results are the shard's terms of the sum.
    """
    ratio = np.exp(log_ratio)
    gain, clipped = ratio * advantage, np.minimum(np.maximum(ratio, 1 - clip), 1 + clip) * advantage
    d_log_prob = np.where(gain <= clipped, gain, 0.0)
    d_log_prob *= -1.0 / count
    return -float(np.minimum(gain, clipped).sum()) / count, d_log_prob


def value_gradient(
    value: np.ndarray, target: np.ndarray, old_value: np.ndarray, clip: float | None, count: int
) -> tuple[float, np.ndarray]:
    """Return the value loss and its derivative with respect to `value` `(V, B)`.

    The derivative is 2 (value - target) / B, or 0 where the clipped error is larger.
    """
    difference = value - target
    error, d_value = difference * difference, difference * (2.0 / count)
    if clip is not None:
        moved = value - old_value
        clipped = (old_value + np.clip(moved, -clip, clip) - target) ** 2
        d_value[(error < clipped) & (np.abs(moved) > clip)] = 0.0
        error = np.maximum(error, clipped)
    return float(error.sum()) / count, d_value


def layer_gradient(gradient: Layer, h: np.ndarray, d_z: np.ndarray) -> None:
    """Write d_W = d_z h^T and d_b = d_z 1 of a layer with input `h`."""
    np.matmul(d_z, h.swapaxes(-1, -2), out=gradient.weight)
    np.matmul(d_z, _ones(d_z.shape[-1], d_z.dtype), out=gradient.bias)


@lru_cache  # not a new vector for every layer of every minibatch
def _ones(count: int, dtype: np.dtype) -> np.ndarray:
    return np.ones(count, dtype)


def encoder_gradient(encoder: Encoder, gradients: list[Layer], trace: Trace, h: np.ndarray, d_h: np.ndarray) -> None:
    """Backpropagate from the features `h` and their `d_h`: d_z = d_h f'(z), and then d_h = W^T d_z one layer below."""
    for layer, gradient, (inputs, z) in zip(encoder.layers[::-1], gradients[::-1], trace[::-1], strict=True):
        d_z = np.multiply(d_h, encoder.activation.slope(z, h), out=d_h)
        layer_gradient(gradient, inputs, d_z)
        if layer is not encoder.layers[0]:
            h, d_h = inputs, layer.weight.swapaxes(-1, -2) @ d_z


class AnalyticGradient:
    """Computes the gradient of `losses.objective_loss`. Every call reads the current parameters."""

    def __init__(self, architecture: Architecture, parameters: np.ndarray, gradient: np.ndarray) -> None:
        """Store views of the parameters `(P,)` and of their gradient `(P,)`."""
        self._parameters, self._gradients = architecture.views(parameters), architecture.views(gradient)
        self._bounds, self._choices = architecture.bounds, architecture.choices
        self._split = architecture.features.split
        activation = ACTIVATIONS[architecture.activation]
        self._encoders = {
            networks: (
                Encoder([layer.of(networks) for layer in self._parameters.hidden], activation),
                [layer.of(networks) for layer in self._gradients.hidden],
            )
            for networks in Networks
        }

    def compute(
        self, objective: Objective, rows: "Rows", count: int, metrics: np.ndarray, networks: Networks = Networks.BOTH
    ) -> None:
        """Write the gradient, or a shard's terms of it, for the parameters of some networks.

        Args:
            objective: the loss to minimize.
            rows: of a minibatch. Their advantages are not normalized here. For continuous actions, `log_prob` is that
                of the raw actions, since the ratio is the same.
            count: the number of rows of the whole minibatch.
            metrics: `(4,)`, in the order of `METRICS`: receives the terms of these rows, for these networks.
            networks: the actor, the critic or both.
        """
        parameters, gradients = self._parameters, self._gradients
        encoder, encoder_gradients = self._encoders[networks]
        obs, mask = self._split(rows.obs)
        features, trace = encoder.forward(obs.T)
        if not trace:  # no hidden layers: actor and critic both read the observation
            features = np.stack([features] * 2)
        d_features = np.empty(features.shape, features.dtype)
        if networks is not Networks.CRITIC:
            output = parameters.policy_head.forward(features[0])
            if self._choices is not None:
                output = self._choices.logits(output, mask)
            log_prob, backward = raw_log_prob(output, rows.raw_action, parameters.log_std, self._bounds)
            log_ratio = log_prob - rows.log_prob
            policy_loss, d_log_prob = surrogate_gradient(log_ratio, rows.advantage, objective.clip, count)
            change = np.expm1(log_ratio)
            metrics[POLICY_LOSS] = policy_loss
            metrics[APPROX_KL] = (change - log_ratio).sum() / count
            metrics[CLIP_FRACTION] = np.count_nonzero(np.abs(change) > objective.clip) / count
            d_entropy = -(objective.entropy_coef or 0.0) / count
            d_output = backward(d_log_prob, d_entropy, gradients.log_std)
            if self._choices is not None:
                d_output = self._choices.gradient(d_output)
            layer_gradient(gradients.policy_head, features[0], d_output)
            np.dot(parameters.policy_head.weight.T, d_output, out=d_features[0])
        if networks is not Networks.ACTOR:
            value = parameters.value_head.forward(features[-1])
            metrics[VALUE_LOSS], d_value = value_gradient(
                value, rows.target.T, rows.value.T, objective.value_clip, count
            )
            d_value *= objective.value_coef
            layer_gradient(gradients.value_head, features[-1], d_value)
            np.dot(parameters.value_head.weight.T, d_value, out=d_features[-1])
        encoder_gradient(encoder, encoder_gradients, trace, features, d_features)
