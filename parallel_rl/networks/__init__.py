"""Torch modules: encoders, heads, distributions and running statistics."""

from parallel_rl.networks.cores import Core, CoreName
from parallel_rl.networks.distributions import (
    Categorical,
    Distribution,
    Gaussian,
    Joint,
    StateDependentNoise,
    TanhGaussian,
)
from parallel_rl.networks.encoders import Perception, linear_layer, mlp
from parallel_rl.networks.ensemble import Ensemble, Trace
from parallel_rl.networks.flat import Adam, average_vectors, copy_on, flatten, limit_norm
from parallel_rl.networks.heads import CategoricalHead, GaussianHead, MultiCategoricalHead, make_policy_head
from parallel_rl.networks.normalizer import RunningNorm
from parallel_rl.networks.policy_head import JointHead, PolicyHead
from parallel_rl.networks.value_head import ValueHead
from parallel_rl.utils.device import found_device

__all__ = [
    "Adam",
    "Categorical",
    "CategoricalHead",
    "Core",
    "CoreName",
    "Distribution",
    "Ensemble",
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
    "Trace",
    "ValueHead",
    "average_vectors",
    "copy_on",
    "flatten",
    "found_device",
    "limit_norm",
    "linear_layer",
    "make_policy_head",
    "mlp",
]
