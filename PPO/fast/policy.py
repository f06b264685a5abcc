"""The NumPy policy: an `ActorCritic` of two small MLPs, without torch.

`PPO.act` and worker processes use it, since torch's calls take longer than the arithmetic of such networks. Its weights
are views of one vector; in the agent the torch parameters are views of the same vector.

Notation: B rows; activations are columns, `(features, B)`. Actor and critic have hidden layers of the same size, so
each layer is one stacked matrix product: `(2, out, in) @ (2, in, B)`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import numpy as np

from parallel_rl.utils import Features, blas_threads
from PPO.fast.distributions import Bounds, Choices, log_slope, raw_log_prob

ONE_THREAD_PRODUCT = 2**18
"""The largest number of multiplications in a matrix product that NumPy computes on one thread (with OpenBLAS)."""
TILE = 8
"""Observations in one matrix product of `forward`. The shape of a product affects its rounding. With a fixed shape, the
output for an observation does not depend on the rest of the batch."""
CRITIC_ROWS = 256
"""Observations in one matrix product of the critic."""


class Networks(Enum):
    """A selection of the networks of a stack."""

    ACTOR = slice(0, 1)
    CRITIC = slice(1, 2)
    BOTH = slice(0, 2)


class Activation(NamedTuple):
    """h = f(z) and its slope f'(z)."""

    output: Callable[[np.ndarray], np.ndarray]
    """From `z` to `h`; may overwrite `z` if the slope needs only `h`."""
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


class Layer(NamedTuple):
    """z = W h + b, or a stack of such layers."""

    weight: np.ndarray
    """`(..., out, in)`."""
    bias: np.ndarray
    """`(..., out)`."""

    def forward(self, h: np.ndarray) -> np.ndarray:
        """Return `z` `(..., out, B)` for `h` `(..., in, B)`."""
        z = self.weight @ h
        z += self.bias[..., None]
        return z

    def of(self, networks: Networks) -> "Layer":
        """Return the layers of some networks in a stack."""
        return Layer(self.weight[networks.value], self.bias[networks.value])


Trace = list[tuple[np.ndarray, np.ndarray]]
"""Each layer's input and `z`."""


class Encoder(NamedTuple):
    """Layers with activations, for one network or for a stack of two."""

    layers: Sequence[Layer]
    activation: Activation

    def forward(self, h: np.ndarray) -> tuple[np.ndarray, Trace]:
        """Return the features `(..., F, B)` of inputs `(D, B)`, and the intermediate results for the gradient."""
        trace = []
        for layer in self.layers:
            z = layer.forward(h)
            trace.append((h, z))
            h = self.activation.output(z)
        return h, trace


class Parameters(NamedTuple):
    """Views of a vector of parameters, or of their gradient."""

    hidden: list[Layer]
    """For each hidden layer, the actor's and the critic's, stacked."""
    log_std: np.ndarray | None
    """`(A,)`, for continuous actions."""
    policy_head: Layer
    value_head: Layer


@dataclass(frozen=True)
class Architecture:
    """The structure of an `ActorCritic`, without its weights."""

    features: Features
    """Converts observations to D columns."""
    obs_clip: float | None
    """Limit on normalized observations; None without normalization."""
    hidden_sizes: tuple[int, ...]
    activation: str
    outputs: int
    """The outputs of the policy head."""
    values: int
    """V, the outputs of the value head."""
    bounds: Bounds | None = None
    """The range of continuous actions."""
    choices: Choices | None = None
    """The discrete actions."""

    @property
    def parameters(self) -> int:
        """P, the number of parameters."""
        return sum(math.prod(shape) for shape in self._shapes())

    @property
    def noise(self) -> int:
        """A, the number of random numbers for an action."""
        return self.outputs if self.choices is None else self.choices.outputs

    @property
    def raw_action(self) -> tuple[tuple[int, ...], Any]:
        """Shape and type of a raw action."""
        return ((self.outputs,), np.float32) if self.choices is None else (self.choices.starts.shape, np.int64)

    @property
    def normalized(self) -> int:
        """The number of columns of an observation that are normalized: all or none."""
        return 0 if self.obs_clip is None else self.features.columns

    def views(self, vector: np.ndarray) -> Parameters:
        """Return views of a vector `(P,)`."""
        shapes = [*self._shapes()]
        parts = np.split(vector, np.cumsum([math.prod(shape) for shape in shapes])[:-1])
        blocks = (part.reshape(shape) for part, shape in zip(parts, shapes, strict=True))

        def layer() -> Layer:
            return Layer(next(blocks), next(blocks))

        return Parameters(
            hidden=[layer() for _ in self.hidden_sizes],
            log_std=None if self.bounds is None else next(blocks),
            policy_head=layer(),
            value_head=layer(),
        )

    def _shapes(self) -> Iterator[tuple[int, ...]]:
        """Yield the shapes of the blocks of a vector, in the order of `views`."""
        inputs = self.features.columns
        for outputs in self.hidden_sizes:
            yield from [(2, outputs, inputs), (2, outputs)]
            inputs = outputs
        if self.bounds is not None:
            yield (self.outputs,)
        yield from [(self.outputs, inputs), (self.outputs,), (self.values, inputs), (self.values,)]


class NumpyPolicy:
    """Computes actions and values. Every call reads the current parameters and observation statistics."""

    def __init__(self, architecture: Architecture, parameters: np.ndarray, statistics: np.ndarray) -> None:
        """Store views of the parameters `(P,)`, and of mean and standard deviation of observations `(2, D)`.

        All are float32. Without normalization the statistics are `(2, 0)`.
        """
        self.architecture, self.parameters, self.statistics = architecture, parameters, statistics
        views, activation = architecture.views(parameters), ACTIVATIONS[architecture.activation]
        self._actor, self._critic = (
            Encoder([layer.of(network) for layer in views.hidden], activation)
            for network in (Networks.ACTOR, Networks.CRITIC)
        )
        self._policy_head, self._value_head, self._log_std = views.policy_head, views.value_head, views.log_std
        layers = [*views.hidden, views.policy_head]
        self._limits_threads = TILE * max(math.prod(layer.weight.shape[-2:]) for layer in layers) > ONE_THREAD_PRODUCT

    def act(self, obs: np.ndarray, noise: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return a dict with `action` (and `raw_action`, if continuous), and the policy's output `(n, A)`.

        Args:
            obs: `(n, ...)`, of the environment's space.
            noise: as for `sample`.
        """
        features, choices = self.architecture.features, self.architecture.choices
        states = features.flatten(obs)
        if choices is not None:
            features.check_mask(states, choices.firsts)
        action, raw_action, output = self.sample(states, noise)
        rows = {"action": action} if choices is not None else {"action": action, "raw_action": raw_action}
        return rows, output.T

    def complete(self, rows: dict[str, np.ndarray], outputs: np.ndarray) -> dict[str, np.ndarray]:
        """Return `log_prob` `(T, n)`, given the rows `(T, n, ...)` and outputs `(T, n, A)` of T calls of `act`."""
        choices, (shape, _) = self.architecture.choices, self.architecture.raw_action
        if choices is None:
            raw_action = rows["raw_action"].reshape(-1, *shape)
        else:
            raw_action = rows["action"].reshape(-1, *shape) - choices.starts
        output = np.ascontiguousarray(outputs.reshape(-1, outputs.shape[-1]).T)
        log_prob = self.log_prob(raw_action, output)
        return {"log_prob": log_prob.reshape(outputs.shape[:2])}

    def sample(self, obs: np.ndarray, noise: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return actions and raw actions `(B, ...)`, and the policy's output `(A, B)`.

        Args:
            obs: `(B, D)`, with the columns of an action mask if there is one.
            noise: `(B, A)`. Continuous actions: standard normal samples. Discrete actions: standard exponential samples
                E, and the action is argmax p / E (the Gumbel-max trick). None for deterministic actions.
        """
        obs, mask = self.architecture.features.split(obs)
        output, bounds, choices = self.forward(self.normalize(obs)), self.architecture.bounds, self.architecture.choices
        if choices is not None:
            output = choices.logits(output, mask)
            choice = choices.sample(output, noise)
            return choice + choices.starts, choice, output
        assert bounds is not None
        assert self._log_std is not None
        raw_action = output if noise is None else output + np.exp(self._log_std)[:, None] * noise.T
        raw_action = np.ascontiguousarray(raw_action.T)
        action = bounds.offset + bounds.scale * (np.tanh(raw_action) if bounds.squash else raw_action)
        return np.minimum(np.maximum(action, bounds.low), bounds.high), raw_action, output

    def log_prob(self, raw_action: np.ndarray, output: np.ndarray) -> np.ndarray:
        """Return the log-probabilities `(B,)` of actions, given raw actions `(B, ...)` and the output `(A, B)`."""
        if len(raw_action) == 1:  # NumPy adds up a single column in another order than several
            return self.log_prob(np.repeat(raw_action, 2, axis=0), np.repeat(output, 2, axis=1))[:1]
        bounds = self.architecture.bounds
        log_prob, _ = raw_log_prob(output, raw_action, self._log_std, bounds)
        return log_prob - log_slope(raw_action, bounds.scale) if bounds is not None and bounds.squash else log_prob

    def normalize(self, obs: np.ndarray) -> np.ndarray:
        """Return normalized observations `(B, D)`."""
        limit = self.architecture.obs_clip
        if limit is None:
            return obs
        mean, std = self.statistics
        return np.minimum(np.maximum((obs - mean) / std, -limit), limit)

    def forward(self, obs: np.ndarray) -> np.ndarray:
        """Return the output `(outputs, B)` of the policy head for normalized observations `(B, D)`."""
        count = len(obs)
        if count % TILE:
            obs = np.concatenate([obs, np.zeros((-count % TILE, obs.shape[1]), obs.dtype)])
        tiles = obs.reshape(-1, TILE, obs.shape[1]).swapaxes(1, 2)
        with blas_threads(1) if self._limits_threads else nullcontext():
            output = self._policy_head.forward(self._actor.forward(tiles)[0])
        return output.swapaxes(0, 1).reshape(len(output[0]), -1)[:, :count]

    def value(self, obs: np.ndarray) -> np.ndarray:
        """Return normalized values `(B, V)` of normalized observations `(B, D)`, in blocks that fit the cache."""
        obs, _ = self.architecture.features.split(obs)
        blocks = [obs[start : start + CRITIC_ROWS] for start in range(0, len(obs), CRITIC_ROWS)]
        values = [
            self._value_head.forward(self._critic.forward(block.T)[0]).reshape(self.architecture.values, -1)
            for block in blocks
        ]
        return np.concatenate(values, axis=1).T
