"""Heads of a policy: from features to a distribution over actions."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from parallel_rl.networks.distributions import Categorical, Gaussian, StateDependentNoise, TanhGaussian
from parallel_rl.networks.encoders import linear_layer
from parallel_rl.networks.policy_head import JointHead, PolicyHead
from parallel_rl.utils import COMPOSITE, FORBIDDEN, action_units, bounds_of, choices_of, leaves, name_of
from parallel_rl.utils.spaces import of_whole_numbers

CHOICE_GAIN = 0.1
MEAN_GAIN = 0.01
"""Gain of the last policy layer: the first actions hardly depend on the observation (Andrychowicz et al. 2021)."""
BOUND_EPSILON = 1e-6
"""Before tanh is inverted, an action is moved at least this far inside its bounds."""
VARIANCE_EPSILON = 1e-6
"""Added to the variance of state-dependent noise, since all features may be 0."""


class CategoricalHead(PolicyHead):
    """One of the actions `offset`, `offset + 1`, ..., `offset + actions - 1`; raw actions count from 0."""

    def __init__(self, features: int, actions: int, offset: int, generator: torch.Generator) -> None:
        super().__init__()
        self.offset, self.noises, self.choices = offset, [("exponential", actions)], actions
        self.logits = linear_layer(features, actions, CHOICE_GAIN, generator)

    def forward(self, features: torch.Tensor, mask: torch.Tensor | None = None) -> Categorical:
        """Return the distribution over actions."""
        return Categorical(_allowed(self.logits(features), mask))

    def to_action(self, raw_action: torch.Tensor) -> torch.Tensor:
        """Return the actions that the environment takes."""
        return raw_action + self.offset

    def to_raw_action(self, action: torch.Tensor) -> torch.Tensor:
        """Return the raw actions that `to_action` turns into these actions."""
        return action.long() - self.offset


class MultiCategoricalHead(PolicyHead):
    """K discrete actions at once: actions `(B, K)`; raw actions count from 0."""

    offsets: torch.Tensor
    columns: torch.Tensor

    def __init__(
        self, features: int, choices: Sequence[int], offsets: Sequence[int], generator: torch.Generator
    ) -> None:
        """Make the layer of logits.

        Args:
            features: F.
            choices: `(K,)`, the number of choices in each dimension.
            offsets: `(K,)`, the first choice of each dimension.
            generator: of the initial weights.
        """
        super().__init__()
        self._shape = len(choices), max(choices)
        self.noises, self.choices = [("exponential", math.prod(self._shape))], sum(choices)
        self.logits = linear_layer(features, sum(choices), CHOICE_GAIN, generator)
        columns = [k * max(choices) + choice for k, count in enumerate(choices) for choice in range(count)]
        self.register_buffer("offsets", torch.tensor(offsets), persistent=False)
        self.register_buffer("columns", torch.tensor(columns), persistent=False)

    def forward(self, features: torch.Tensor, mask: torch.Tensor | None = None) -> Categorical:
        """Return the distribution over actions."""
        logits = _allowed(self.logits(features), mask)
        padded = logits.new_full((logits.shape[0], math.prod(self._shape)), 10 * FORBIDDEN).index_copy(
            1, self.columns, logits
        )
        return Categorical(padded.view(-1, *self._shape))

    def to_action(self, raw_action: torch.Tensor) -> torch.Tensor:
        """Return the actions that the environment takes."""
        return raw_action.long() + self.offsets

    def to_raw_action(self, action: torch.Tensor) -> torch.Tensor:
        """Return the raw actions that `to_action` turns into these actions."""
        return action.flatten(1).long() - self.offsets


def _allowed(logits: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    return logits if mask is None else logits.masked_fill(mask == 0, FORBIDDEN)


class GaussianHead(PolicyHead):
    """Continuous actions a = offset + scale f(u) of raw actions u, with a log-std that does not depend on the state.

    With `squash`, f is tanh and actions lie within `offset - scale` and `offset + scale`. Otherwise f is the identity,
    and actions are clipped to the bounds, which may be infinite. `utils.action_units` gives offset and scale.
    """

    scale: torch.Tensor
    offset: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor

    def __init__(
        self,
        features: int,
        low: torch.Tensor,
        high: torch.Tensor,
        squash: bool,
        log_std: float,
        generator: torch.Generator,
        unit: float | np.ndarray = 1.0,
    ) -> None:
        """Make the layer of means.

        Args:
            features: F.
            low: float64 `(A,)`, of the actions.
            high: float64 `(A,)`.
            squash: whether to squash, which needs finite bounds.
            log_std: the initial log-std of the raw actions.
            generator: of the initial weights.
            unit: of actions with an infinite bound, a positive number or `(A,)`.
        """
        super().__init__()
        self.choices, self.squash = 0, squash
        self.mean = linear_layer(features, len(low), MEAN_GAIN, generator)
        self.log_std = nn.Parameter(torch.full(self._log_std_shape(features, len(low)), log_std))
        self.noises = [("normal", self.log_std.numel())]
        offset, scale = (torch.from_numpy(units).float() for units in action_units(low.numpy(), high.numpy(), unit))
        buffers = {"scale": scale, "offset": offset, "low": -_round_down(-low), "high": _round_down(high)}
        for name, value in buffers.items():
            self.register_buffer(name, value, persistent=False)

    def _log_std_shape(self, features: int, dimensions: int) -> tuple[int, ...]:
        return (dimensions,)

    def forward(self, features: torch.Tensor, mask: torch.Tensor | None = None) -> Gaussian:
        """Return the distribution over actions."""
        mean = self.mean(features)
        return TanhGaussian(mean, self.log_std, self.scale) if self.squash else Gaussian(mean, self.log_std)

    def to_action(self, raw_action: torch.Tensor) -> torch.Tensor:
        """Return the actions that the environment takes."""
        return (self.offset + self.scale * (raw_action.tanh() if self.squash else raw_action)).clamp(
            self.low, self.high
        )

    def to_raw_action(self, action: torch.Tensor) -> torch.Tensor:
        """Return the raw actions behind actions; a squashed action on its bound is moved just inside."""
        raw_action = (action.reshape(len(action), -1) - self.offset) / self.scale
        limit = 1.0 - BOUND_EPSILON
        return raw_action.clamp(-limit, limit).atanh() if self.squash else raw_action


class StateDependentNoiseHead(GaussianHead):
    """A Gaussian head whose noise is a linear function of the features (`networks.StateDependentNoise`).

    `log_std` is `(F, A)`, the log of sigma. As in Stable-Baselines3, no gradient flows from the noise into the
    features, so the policy cannot change its noise by scaling them.
    """

    def _log_std_shape(self, features: int, dimensions: int) -> tuple[int, ...]:
        return features, dimensions

    def forward(self, features: torch.Tensor, mask: torch.Tensor | None = None) -> StateDependentNoise:  # type: ignore[override]
        """Return the distribution over actions."""
        mean, std, detached = self.mean(features), self.log_std.exp(), features.detach()
        log_std = 0.5 * (detached**2 @ std**2 + VARIANCE_EPSILON).log()
        marginal = TanhGaussian(mean, log_std, self.scale) if self.squash else Gaussian(mean, log_std)
        return StateDependentNoise(marginal, detached, std)


def make_policy_head(
    space: spaces.Space,
    features: int,
    squash: bool,
    log_std: float,
    generator: torch.Generator,
    use_sde: bool = False,
    unit: float | np.ndarray = 1.0,
) -> PolicyHead:
    """Return the head for an action space.

    Args:
        space: Discrete, MultiDiscrete, MultiBinary or a Box of floats, or a Dict or Tuple of them.
        features: F.
        squash: whether a Box with finite bounds is squashed.
        log_std: the initial log-std of the raw actions of a Box.
        generator: of the initial weights.
        use_sde: whether noise depends on the features.
        unit: of the actions of a Box with an infinite bound, a positive number or `(A,)`.

    Raises:
        TypeError: the space is not supported.
        ValueError: `use_sde`, but not all actions are continuous.
    """
    if use_sde and not isinstance(space, spaces.Box):
        raise ValueError(f"use_sde needs continuous actions (a Box), not {space}")
    if isinstance(space, COMPOSITE):
        return _joint_head(space, features, squash, log_std, generator)
    if isinstance(space, spaces.Discrete):
        return CategoricalHead(features, int(space.n), int(space.start), generator)
    if isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary):
        return _choices_head(space, features, generator)
    if not isinstance(space, spaces.Box) or not np.issubdtype(space.dtype, np.floating):
        raise TypeError(
            f"the action space {space} is not supported: PPO needs a Discrete, a MultiDiscrete, a MultiBinary or a Box "
            f"of floats, or a Dict or Tuple of them{of_whole_numbers(space)}"
        )
    low, high = (torch.from_numpy(bound) for bound in bounds_of(space))
    if (-_round_down(-low) >= _round_down(high)).any() or not ((high - low) / 2).float().all():
        raise TypeError(f"the action space {space} is not supported: a dimension of it leaves no choice in float32")
    squash = squash and bool((low.isfinite() & high.isfinite()).all())
    kind = StateDependentNoiseHead if use_sde else GaussianHead
    return kind(features, low, high, squash, log_std, generator, unit)


def _choices_head(space: spaces.Space, features: int, generator: torch.Generator) -> MultiCategoricalHead:
    choices, offsets = zip(*choices_of(space), strict=True)
    return MultiCategoricalHead(features, choices, offsets, generator)


def _joint_head(
    space: spaces.Space, features: int, squash: bool, log_std: float, generator: torch.Generator
) -> JointHead:
    """Return the head for a Dict or a Tuple; a discrete part gets a `MultiCategoricalHead`."""
    heads: list[PolicyHead] = []
    parts = dict(leaves(space))
    for keys, leaf in parts.items():
        if not math.prod(leaf.shape or ()):
            raise TypeError(f"the action space {space} is not supported: its part {name_of(keys)} has no elements")
        if isinstance(leaf, spaces.Box):
            heads.append(make_policy_head(leaf, features, squash, log_std, generator))
        else:
            heads.append(_choices_head(leaf, features, generator))
    if not heads:
        raise TypeError(f"the action space {space} is not supported: it has no parts")
    return JointHead(heads, [tuple(leaf.shape or ()) for leaf in parts.values()])


def _round_down(exact: torch.Tensor) -> torch.Tensor:
    """Return the largest float32 that is not above a float64."""
    rounded = exact.float()
    return torch.where(rounded.double() > exact, rounded.nextafter(torch.tensor(-torch.inf)), rounded)
