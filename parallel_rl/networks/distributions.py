"""Lean distributions over batches of actions.

They compute the same as `torch.distributions` (a test compares them) without its constructors, which cost more than a
small network's forward pass.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from parallel_rl.utils import gauss_hermite

NODES, WEIGHTS = (torch.from_numpy(array) for array in gauss_hermite())


class Distribution(ABC):
    """A batch of B distributions.

    The density is a function of the *raw action*: the action before it is squashed, scaled or offset.
    """

    @abstractmethod
    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """Return B raw actions, sampled with standard noise `(B, A)`."""

    @abstractmethod
    def mode(self) -> torch.Tensor:
        """Return the B deterministic raw actions."""

    @abstractmethod
    def log_prob(self, raw_action: torch.Tensor) -> torch.Tensor:
        """Return the log-density `(B,)` of the actions that belong to raw actions; of a plain Gaussian, of these.

        A plain Gaussian leaves out the constant log of the unit of actions: ratios and gradients are the same.
        """

    @abstractmethod
    def entropy(self) -> torch.Tensor:
        """Return the entropy `(B,)` that belongs to `log_prob`, in nats, differentiable."""


class Categorical(Distribution):
    """A categorical distribution over A actions, from logits `(B, A)`: a raw action is int64 `(B,)`.

    Or K independent ones, from logits `(B, K, A)`: a raw action is int64 `(B, K)`.
    """

    def __init__(self, logits: torch.Tensor) -> None:
        self.log_probs = F.log_softmax(logits, dim=-1)

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """Sample by the Gumbel trick, as a race of exponential clocks: argmax p / E with E ~ Exp(1)."""
        return (self.log_probs.exp() / noise.view_as(self.log_probs)).argmax(dim=-1)

    def mode(self) -> torch.Tensor:
        """Return the modes."""
        return self.log_probs.argmax(dim=-1)

    def log_prob(self, raw_action: torch.Tensor) -> torch.Tensor:
        """Return log p(raw action)."""
        return _of_rows(self.log_probs.gather(-1, raw_action.long().unsqueeze(-1)).squeeze(-1))

    def entropy(self) -> torch.Tensor:
        """Return -sum p log p."""
        return _of_rows(-(self.log_probs.exp() * self.log_probs).sum(dim=-1))


def _of_rows(values: torch.Tensor) -> torch.Tensor:
    """Sum the values of K independent choices `(B, K)`; `(B,)` is unchanged."""
    return values if values.ndim == 1 else values.sum(dim=1)


class Gaussian(Distribution):
    """A Gaussian for each of A dimensions; a raw action is `(B, A)`. Densities are those of raw actions."""

    def __init__(self, mean: torch.Tensor, log_std: torch.Tensor) -> None:
        """Store the parameters: `mean` `(B, A)`, `log_std` `(A,)` or `(B, A)`."""
        self.mean, self.log_std = mean, log_std

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """Return u = mean + std * noise, with noise from N(0, 1)."""
        return self.mean + self.log_std.exp() * noise

    def mode(self) -> torch.Tensor:
        """Return the means."""
        return self.mean

    def log_prob(self, raw_action: torch.Tensor) -> torch.Tensor:
        """Return log N(u; mean, std)."""
        return self._log_density(raw_action).sum(dim=-1)

    def entropy(self) -> torch.Tensor:
        """Return sum(log std + log(2 pi e) / 2)."""
        return self._differential_entropy().sum(dim=-1).expand(len(self.mean))

    def _log_density(self, raw_action: torch.Tensor) -> torch.Tensor:
        deviation = (raw_action - self.mean) * (-self.log_std).exp()
        return -0.5 * deviation**2 - self.log_std - 0.5 * math.log(2 * math.pi)

    def _differential_entropy(self) -> torch.Tensor:
        return self.log_std + 0.5 * math.log(2 * math.pi * math.e)


class TanhGaussian(Gaussian):
    r"""A Gaussian squashed into (-scale, scale) for each of A dimensions.

        a = scale * tanh(u),  u ~ N(mean, std)
        log p(a) = log N(u; mean, std) - log(scale * (1 - tanh(u)^2))

    (Haarnoja et al. 2018, arXiv:1801.01290, appendix C.) The density is a function of the raw action `u` `(B, A)`, not
    of `a`: near the bounds tanh cannot be inverted. log(1 - tanh(u)^2) is computed as 2 (log 2 - u - softplus(-2u)),
    which is finite for every u.
    """

    def __init__(self, mean: torch.Tensor, log_std: torch.Tensor, scale: torch.Tensor) -> None:
        """Store the parameters: `mean` `(B, A)`, `log_std` `(A,)` or `(B, A)`, `scale` `(A,)`."""
        super().__init__(mean, log_std)
        self.log_scale = scale.log()

    def log_prob(self, raw_action: torch.Tensor) -> torch.Tensor:
        """Return the log-density of the squashed actions."""
        return (self._log_density(raw_action) - _log_tanh_slope(raw_action) - self.log_scale).sum(dim=-1)

    def sample_with_log_prob(self, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return `sample(noise)`, and its `log_prob` with half of the operations."""
        raw_action = self.sample(noise)
        log_density = -0.5 * noise**2 - self.log_std - 0.5 * math.log(2 * math.pi)
        return raw_action, (log_density - _log_tanh_slope(raw_action) - self.log_scale).sum(dim=-1)

    def entropy(self) -> torch.Tensor:
        """Return H(u) + E[log |da/du|], the expectation by Gauss-Hermite quadrature, which has no noise.

        The gradient is right to 1e-4 for a standard deviation of u up to 1, and to 3e-3 up to 1.6.
        """
        nodes, weights = NODES.to(self.mean), WEIGHTS.to(self.mean)
        raw_actions = self.mean.unsqueeze(-1) + self.log_std.exp().unsqueeze(-1) * nodes
        log_slope = _log_tanh_slope(raw_actions) @ weights + self.log_scale
        return (self._differential_entropy() + log_slope).sum(dim=-1)


class StateDependentNoise(Distribution):
    r"""A Gaussian, squashed or not, whose noise is a linear function of L features z; a raw action is `(B, A)`.

        u = mean + z^T (sigma * E),  E_la ~ N(0, 1),  so that  u_a ~ N(mean_a, sum_l z_l^2 sigma_la^2)

    This is generalized State-Dependent Exploration (Raffin et al. 2021, arXiv:2005.05719, section 3). With the same E,
    equal states have equal raw actions.
    """

    def __init__(self, marginal: Gaussian, features: torch.Tensor, std: torch.Tensor) -> None:
        """Store the distribution over all E, the features z `(B, L)` and sigma `(L, A)`."""
        self.marginal, self.features, self.std = marginal, features, std

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """Return the raw actions for matrices E `(B, L * A)`."""
        matrices = noise.view(-1, *self.std.shape) * self.std
        return self.marginal.mean + torch.einsum("bl,bla->ba", self.features, matrices)

    def mode(self) -> torch.Tensor:
        """Return the B deterministic raw actions."""
        return self.marginal.mode()

    def log_prob(self, raw_action: torch.Tensor) -> torch.Tensor:
        """Return the log-density `(B,)` of the actions that belong to raw actions."""
        return self.marginal.log_prob(raw_action)

    def entropy(self) -> torch.Tensor:
        """Return the entropy of the actions in nats, `(B,)`."""
        return self.marginal.entropy()


class Joint(Distribution):
    """Independent distributions; raw actions are float32 `(B, D)`, the concatenated parts."""

    def __init__(self, parts: Sequence[Distribution], columns: Sequence[int], sizes: Sequence[int]) -> None:
        """Store the distributions, and the number of columns of noise and of raw actions of each."""
        self.parts, self._columns, self._sizes = parts, list(columns), list(sizes)

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """Sample from each."""
        noises = noise.split(self._columns, dim=1)
        return _side_by_side([part.sample(own) for part, own in zip(self.parts, noises, strict=True)])

    def mode(self) -> torch.Tensor:
        """Return the modes of each."""
        return _side_by_side([part.mode() for part in self.parts])

    def log_prob(self, raw_action: torch.Tensor) -> torch.Tensor:
        """Return the sum of log p(raw action) over the parts."""
        raw_actions = raw_action.split(self._sizes, dim=1)
        return torch.stack([part.log_prob(own) for part, own in zip(self.parts, raw_actions, strict=True)]).sum(dim=0)

    def entropy(self) -> torch.Tensor:
        """Return the sum of the parts' entropies."""
        return torch.stack([part.entropy() for part in self.parts]).sum(dim=0)


def _side_by_side(raw_actions: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([raw_action.float() for raw_action in raw_actions], dim=1)


def _log_tanh_slope(raw_action: torch.Tensor) -> torch.Tensor:
    return 2.0 * (math.log(2.0) - raw_action - F.softplus(-2.0 * raw_action))
