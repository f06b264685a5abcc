"""Torch modules: encoders, heads, distributions and running statistics."""

from networks.distributions import Categorical, Distribution, TanhGaussian
from networks.encoders import linear_layer, mlp
from networks.flat import flatten, limit_norm
from networks.heads import CategoricalHead, PolicyHead, TanhGaussianHead, ValueHead
from networks.normalizer import RunningNorm

__all__ = [
    "Categorical",
    "CategoricalHead",
    "Distribution",
    "PolicyHead",
    "RunningNorm",
    "TanhGaussian",
    "TanhGaussianHead",
    "ValueHead",
    "flatten",
    "limit_norm",
    "linear_layer",
    "mlp",
]
