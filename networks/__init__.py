"""Torch modules: encoders, heads, distributions and running statistics."""

from networks.cores import Core, CoreName
from networks.distributions import Categorical, Distribution, Gaussian, Joint, StateDependentNoise, TanhGaussian
from networks.encoders import Perception, linear_layer, mlp
from networks.flat import flatten, limit_norm
from networks.heads import CategoricalHead, GaussianHead, MultiCategoricalHead, ValueHead, make_policy_head
from networks.joint import JointHead
from networks.normalizer import RunningNorm
from networks.policy_head import PolicyHead

__all__ = [
    "Categorical",
    "CategoricalHead",
    "Core",
    "CoreName",
    "Distribution",
    "Gaussian",
    "GaussianHead",
    "Joint",
    "JointHead",
    "MultiCategoricalHead",
    "Perception",
    "PolicyHead",
    "RunningNorm",
    "StateDependentNoise",
    "TanhGaussian",
    "ValueHead",
    "flatten",
    "limit_norm",
    "linear_layer",
    "make_policy_head",
    "mlp",
]
