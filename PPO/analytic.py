"""PPO's policy and the gradient of its loss written out in NumPy: what torch computes, without the cost of its calls.

For small networks on a CPU: an MLP each for actor and critic, a categorical or Gaussian head and a value head.
The weights are views of one vector, that of the torch parameters, so there is one set of weights and one optimiser;
nothing here needs torch, so a worker process can act without it. A test holds each combination of options to autograd.

Notation: B rows; activations are columns, `(features, B)`. Actor and critic have hidden layers of the same size, so
each layer is one product of stacks: `(2, out, in) @ (2, in, B)`. `d_x` is the derivative of the loss by `x`, of the
same shape as `x`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from PPO.objective import Objective
from utils import blas_threads, gauss_hermite

if TYPE_CHECKING:
    from PPO.memory import Rows

ONE_THREAD_PRODUCT = 2**18
"""Multiplications in a matrix product up to which NumPy keeps to one thread by itself (measured with OpenBLAS)."""
TILE = 8
"""States that act in one matrix product. Of what shape a product is decides how it is rounded, so a state is answered
the same to the last bit, whichever and however many others are asked about with it."""
CACHED_ROWS = 256
"""States that are valued in one go."""
METRICS = ("policy_loss", "approx_kl", "clip_fraction", "value_loss")


class Networks(Enum):
    """Which networks of a stack."""

    ACTOR = slice(0, 1)
    CRITIC = slice(1, 2)
    BOTH = slice(0, 2)


class Activation(NamedTuple):
    """h = f(z) and its slope f'(z)."""

    output: Callable[[np.ndarray], np.ndarray]
    """From `z` to `h`; may overwrite `z` where the slope needs only `h`."""
    slope: Callable[[np.ndarray, np.ndarray], np.ndarray]
    """From `z` and `h` to the slope."""


def sigmoid(z: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-z))."""
    return 1.0 / (1.0 + np.exp(-z))


def silu_slope(z: np.ndarray, h: np.ndarray) -> np.ndarray:
    """Return s + h (1 - s), where h = z s."""
    s = sigmoid(z)
    return s + h * (1.0 - s)


ACTIVATIONS = {
    "tanh": Activation(lambda z: np.tanh(z, out=z), lambda z, h: 1.0 - h * h),
    "relu": Activation(lambda z: np.maximum(z, 0.0, out=z), lambda z, h: h > 0),
    "silu": Activation(lambda z: z * sigmoid(z), silu_slope),
}


class Bounds(NamedTuple):
    """Where a Gaussian's actions lie; each `(A,)`."""

    scale: np.ndarray
    offset: np.ndarray
    low: np.ndarray
    high: np.ndarray
    squash: bool
    """Whether by tanh, or else by cutting them off."""


@dataclass(frozen=True)
class Architecture:
    """What an `ActorCritic` is made of, but for its weights."""

    observ_dim: int
    hidden_sizes: tuple[int, ...]
    activation: str
    outputs: int
    """A, of the policy head."""
    values: int
    """V, of the value head."""
    bounds: Bounds | None = None
    """Of continuous actions."""
    first_action: int = 0
    """Of discrete ones."""

    @property
    def weights(self) -> int:
        """P, how many."""
        return sum(math.prod(shape) for shape in self.shapes())

    def shapes(self) -> Iterator[tuple[int, ...]]:
        """Yield the shapes of the blocks that the vector of weights consists of, in order."""
        inputs = self.observ_dim
        for outputs in self.hidden_sizes:
            yield from [(2, outputs, inputs), (2, outputs)]
            inputs = outputs
        if self.bounds is not None:
            yield (self.outputs,)
        yield from [(self.outputs, inputs), (self.outputs,), (self.values, inputs), (self.values,)]

    def views(self, vector: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the blocks of a vector."""
        start = 0
        for shape in self.shapes():
            stop = start + math.prod(shape)
            yield vector[start:stop].reshape(shape)
            start = stop


class Layer(NamedTuple):
    """z = W h + b, or a stack of such."""

    weight: np.ndarray
    """`(..., out, in)`."""
    bias: np.ndarray
    """`(..., out)`."""
    d_weight: np.ndarray
    d_bias: np.ndarray

    def forward(self, h: np.ndarray) -> np.ndarray:
        """Return `z` `(..., out, B)` for `h` `(..., in, B)`."""
        z = self.weight @ h
        z += self.bias[..., None]
        return z

    def backward(self, h: np.ndarray, d_z: np.ndarray) -> None:
        """d_W = d_z h^T, d_b = d_z 1, written in place."""
        np.matmul(d_z, h.swapaxes(-1, -2), out=self.d_weight)
        np.matmul(d_z, np.ones(d_z.shape[-1], d_z.dtype), out=self.d_bias)

    def of(self, networks: Networks) -> "Layer":
        """Return some layers of a stack."""
        return Layer(*(field[networks.value] for field in self))


Trace = list[tuple[np.ndarray, np.ndarray]]
"""Each layer's input and `z`."""


class Encoder(NamedTuple):
    """Layers with an activation each, for one network or for a stack of two."""

    layers: Sequence[Layer]
    activation: Activation

    def forward(self, h: np.ndarray) -> tuple[np.ndarray, Trace]:
        """Return the features `(..., F, B)` of inputs `(D, B)`, and what `backward` needs."""
        trace = []
        for layer in self.layers:
            z = layer.forward(h)
            trace.append((h, z))
            h = self.activation.output(z)
        return h, trace

    def backward(self, trace: Trace, h: np.ndarray, d_h: np.ndarray) -> None:
        """From the features `h` and `d_h` downwards: d_z = d_h f'(z), and for the layer below d_h = W^T d_z."""
        for layer, (inputs, z) in zip(reversed(self.layers), reversed(trace), strict=True):
            d_z = np.multiply(d_h, self.activation.slope(z, h), out=d_h)
            layer.backward(inputs, d_z)
            if layer is not self.layers[0]:
                h, d_h = inputs, layer.weight.swapaxes(-1, -2) @ d_z


def surrogate_gradient(
    log_ratio: np.ndarray, advantage: np.ndarray, clip: float, count: int
) -> tuple[float, np.ndarray]:
    """Return the clipped surrogate and its derivative by `log_prob`: -A r / B where the minimum is not the clipped.

    Here and below B is `count`: the rows of the minibatch, of which these may be some; the value is their share of it.
    """
    ratio = np.exp(log_ratio)
    gain, clipped = ratio * advantage, np.minimum(np.maximum(ratio, 1 - clip), 1 + clip) * advantage
    d_log_prob = np.where(gain <= clipped, gain, 0.0)
    d_log_prob *= -1.0 / count
    return -float(np.minimum(gain, clipped).sum()) / count, d_log_prob


def value_gradient(
    value: np.ndarray, target: np.ndarray, old_value: np.ndarray, clip: float | None, count: int
) -> tuple[float, np.ndarray]:
    """Return the value loss and its derivative by `value` `(V, B)`: 2 (V - R) / B, or 0 where a clipped V errs more."""
    difference = value - target
    error, d_value = difference * difference, difference * (2.0 / count)
    if clip is not None:
        moved = value - old_value
        clipped = (old_value + np.clip(moved, -clip, clip) - target) ** 2
        d_value[(error < clipped) & (np.abs(moved) > clip)] = 0.0
        error = np.maximum(error, clipped)
    return float(error.sum()) / count, d_value


Backward = Callable[[np.ndarray, float], np.ndarray]
"""From `d_log_prob` `(B,)` and `d_entropy` (one number for all rows) to the derivative by a head's output `(A, B)`."""


def categorical(logits: np.ndarray, draw: np.ndarray) -> tuple[np.ndarray, Backward]:
    """Return log p of the draws, log p = z - log sum exp z, and its derivatives by the logits `z` `(A, B)`.

    d log p_a / d z = 1_a - p
    d H / d z = -p (log p + H),  H = -sum p log p
    """
    log_probs = logits - logits.max(axis=0)
    log_probs -= np.log(np.exp(log_probs).sum(axis=0))
    chosen = (draw, np.arange(len(draw)))

    def backward(d_log_prob: np.ndarray, d_entropy: float) -> np.ndarray:
        probs = np.exp(log_probs)
        d_logits = probs * -d_log_prob
        d_logits[chosen] += d_log_prob
        if d_entropy:
            entropy = -(probs * log_probs).sum(axis=0)
            d_logits -= d_entropy * probs * (log_probs + entropy)
        return d_logits

    return log_probs[chosen], backward


def gaussian(
    mean: np.ndarray, draw: np.ndarray, log_std: np.ndarray, d_log_std: np.ndarray, squash: bool
) -> tuple[np.ndarray, Backward]:
    """Return log N(u; mean, std) of the draws `u`, and the derivatives by the means `(A, B)`.

    Those by the log-std are written into `d_log_std` `(A,)`. H is the entropy of the actions. With
    e = (u - mean) / std, and x from N(0, 1); the expectations only where actions are squashed:

        d log p / d mean = e / std,                    d log p / d log std = e^2 - 1
        d H / d mean = E[-2 tanh(mean + std x)],       d H / d log std = 1 + E[-2 tanh(mean + std x) std x]
    """
    log_std = log_std[:, None]
    std = np.exp(log_std)
    deviation = (draw - mean) / std
    square = deviation * deviation
    log_prob = -0.5 * square.sum(axis=0) - log_std.sum() - len(mean) * 0.5 * math.log(2.0 * math.pi)

    def backward(d_log_prob: np.ndarray, d_entropy: float) -> np.ndarray:
        d_mean = d_log_prob * deviation / std
        d_log_std[:] = (square - 1.0) @ d_log_prob
        if d_entropy:
            d_log_std[:] += d_entropy * mean.shape[1]
        if d_entropy and squash:
            nodes, weights = gauss_hermite()
            d_points = -2.0 * weights * np.tanh(mean[..., None] + std[..., None] * nodes)
            d_mean += d_entropy * d_points.sum(axis=-1)
            d_log_std[:] += d_entropy * ((d_points @ nodes) * std).sum(axis=1)
        return d_mean.astype(mean.dtype, copy=False)

    return log_prob.astype(mean.dtype, copy=False), backward


def log_slope(draw: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return log |da/du| `(B,)` of actions a = scale tanh(u), for draws `u` `(B, A)`.

    It is the difference of log N(u) and log p(a), and does not depend on the policy.
    """
    slope = 2.0 * (math.log(2.0) - draw - np.logaddexp(0.0, -2.0 * draw)) + np.log(scale)
    return slope.sum(axis=1).astype(draw.dtype, copy=False)


class AnalyticActorCritic:
    """The twin of an `ActorCritic`: acts by its weights, and writes the gradient of the loss beside them."""

    def __init__(self, architecture: Architecture, weights: np.ndarray, gradient: np.ndarray | None = None) -> None:
        """Take views.

        Args:
            architecture: P weights in blocks.
            weights: `(P,)`, read at every call.
            gradient: `(P,)`, written by `gradient`; a twin that only acts does without.
        """
        self.architecture = architecture
        blocks = architecture.views(weights)
        d_blocks = architecture.views(weights if gradient is None else gradient)

        def layer() -> Layer:
            weight, d_weight = next(blocks), next(d_blocks)
            return Layer(weight, next(blocks), d_weight, next(d_blocks))

        stack = [layer() for _ in architecture.hidden_sizes]
        activation = ACTIVATIONS[architecture.activation]
        self._encoders = {
            networks: Encoder([layer.of(networks) for layer in stack], activation) for networks in Networks
        }
        if architecture.bounds is not None:
            self._log_std, self._d_log_std = next(blocks), next(d_blocks)
        self._policy_head, self._value_head = layer(), layer()
        self._largest = max(math.prod(shape[-2:]) for shape in architecture.shapes())

    def output(self, obs: np.ndarray) -> np.ndarray:
        """Return what the policy head makes, `(A, B)`, of standardised observations `(B, D)`."""
        count = len(obs)
        if count % TILE:
            obs = np.concatenate([obs, np.zeros((-count % TILE, obs.shape[1]), obs.dtype)])
        tiles = obs.reshape(-1, TILE, obs.shape[1]).swapaxes(1, 2)
        with blas_threads(1) if TILE * self._largest > ONE_THREAD_PRODUCT else nullcontext():
            output = self._policy_head.forward(self._encoders[Networks.ACTOR].forward(tiles)[0])
        return output.swapaxes(0, 1).reshape(len(output[0]), -1)[:, :count]

    def choose(self, output: np.ndarray, noise: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Return actions and draws `(B, ...)` for an `output`.

        Args:
            output: `(A, B)`.
            noise: `(B, A)`: standard normal numbers for continuous actions, standard exponential ones for discrete
                ones (the Gumbel trick, as a race of exponential clocks: argmax p / E); None for the most probable
                action.
        """
        bounds = self.architecture.bounds
        if bounds is None:
            clocks = 1.0 if noise is None else noise.T
            draw = (np.exp(output - output.max(axis=0)) / clocks).argmax(axis=0)
            return draw + self.architecture.first_action, draw
        draw = np.ascontiguousarray((output if noise is None else output + np.exp(self._log_std)[:, None] * noise.T).T)
        action = bounds.offset + bounds.scale * (np.tanh(draw) if bounds.squash else draw)
        return np.minimum(np.maximum(action, bounds.low), bounds.high), draw

    def log_prob(self, output: np.ndarray, draw: np.ndarray) -> np.ndarray:
        """Return the log-probabilities `(B,)` of the actions of draws `(B, ...)`, for an `output` `(A, B)`."""
        log_prob = self._policy(output, draw.T)[0]
        bounds = self.architecture.bounds
        return log_prob - log_slope(draw, bounds.scale) if bounds is not None and bounds.squash else log_prob

    def value(self, obs: np.ndarray) -> np.ndarray:
        """Return standardised values `(B, V)` of standardised observations `(B, D)`.

        In pieces that stay in the processor's cache.
        """
        critic = self._encoders[Networks.CRITIC]
        pieces = [critic.forward(obs[start : start + CACHED_ROWS].T)[0] for start in range(0, len(obs), CACHED_ROWS)]
        values = [self._value_head.forward(features).reshape(self.architecture.values, -1) for features in pieces]
        return np.concatenate(values, axis=1).T

    def gradient(
        self,
        objective: Objective,
        rows: "Rows",
        count: int,
        metrics: np.ndarray,
        networks: Networks = Networks.BOTH,
    ) -> None:
        """Compute the gradient of `losses.objective_loss`, or some rows' share of it, by the weights of some networks.

        Args:
            objective: what is minimised.
            rows: of a minibatch. Their advantages are taken as they are; `log_prob` of continuous actions is that of
                the draws before squashing, whose ratio is the same.
            count: how many rows the whole minibatch has.
            metrics: `(4,)`; where these rows' share of those `METRICS` that the networks determine is written.
            networks: which.
        """
        encoder = self._encoders[networks]
        features, trace = encoder.forward(rows.obs.T)
        if not trace:
            features = np.stack([features] * 2)
        d_features = np.empty(features.shape, features.dtype)
        if networks is not Networks.CRITIC:
            log_prob, backward = self._policy(self._policy_head.forward(features[0]), rows.draw.T)
            log_ratio = log_prob - rows.log_prob
            policy_loss, d_log_prob = surrogate_gradient(log_ratio, rows.advantage, objective.clip, count)
            change = np.expm1(log_ratio)
            metrics[0] = policy_loss
            metrics[1] = (change - log_ratio).sum() / count
            metrics[2] = np.count_nonzero(np.abs(change) > objective.clip) / count
            d_output = backward(d_log_prob, -objective.entropy_coef / count)
            self._policy_head.backward(features[0], d_output)
            np.dot(self._policy_head.weight.T, d_output, out=d_features[0])
        if networks is not Networks.ACTOR:
            value = self._value_head.forward(features[-1])
            metrics[3], d_value = value_gradient(value, rows.target.T, rows.value.T, objective.value_clip, count)
            d_value *= objective.value_coef
            self._value_head.backward(features[-1], d_value)
            np.dot(self._value_head.weight.T, d_value, out=d_features[-1])
        encoder.backward(trace, features, d_features)

    def _policy(self, output: np.ndarray, draw: np.ndarray) -> tuple[np.ndarray, Backward]:
        bounds = self.architecture.bounds
        if bounds is None:
            return categorical(output, draw)
        return gaussian(output, draw, self._log_std, self._d_log_std, bounds.squash)


def standardise(advantage: np.ndarray) -> np.ndarray:
    """Return `(advantage - mean) / std`."""
    centred = advantage - advantage.sum() / len(advantage)
    return centred / (np.sqrt(centred @ centred / (len(centred) - 1)) + 1e-8)
