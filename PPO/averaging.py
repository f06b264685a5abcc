"""The mean of several agents."""

import warnings
from collections.abc import Sequence

import torch

from parallel_rl.networks import RunningNorm
from parallel_rl.networks.normalizer import merged_statistics, renormalize_inputs
from parallel_rl.networks.value_head import value_head_in_units
from parallel_rl.utils import State, mean_of_states
from PPO.actor_critic import OBS_CLIP, ActorCritic

Weights = dict[str, torch.Tensor]
VALUE_HEAD, OBS_NORM = "value_head.", "obs_norm."


def average(states: Sequence[State], policy: ActorCritic, file: str) -> State:
    """Return the mean of several agents' `PPO.shared_state`.

    Weights and the moments of Adam are averaged, and statistics are merged. Each value head predicts in units of its
    own statistics (PopArt), and each encoder takes observations that its own statistics normalize. So both are first
    converted to the merged statistics, and then averaged.

    Args:
        states: of all agents.
        policy: the networks of one of them.
        file: the name of its part of the states.
    """
    mean = mean_of_states(states)
    for name, own in mean["networks"].items():
        own.update(merged_statistics([state["networks"][name] for state in states]))
    networks, merged = [state["networks"][file] for state in states], mean["networks"][file]
    _warn_of_own_layers(policy, networks)
    merged |= mean_of_states([_converted(policy, network, merged) for network in networks])
    return mean


def _warn_of_own_layers(policy: ActorCritic, networks: Sequence[Weights]) -> None:
    """Warn if members have different statistics of observations, and first layers that cannot be converted."""
    if policy.obs_norm is None or policy.first_layers:
        return
    means = [torch.as_tensor(network[f"{OBS_NORM}mean"]) for network in networks]
    if not all(torch.equal(mean, means[0]) for mean in means):
        warnings.warn(
            "the mean of agents with networks of your own (encoder, actor_critic) is not exact with normalize_obs: "
            "each member has normalized observations by its own statistics",
            RuntimeWarning,
            stacklevel=2,
        )


def _converted(policy: ActorCritic, network: Weights, merged: Weights) -> Weights:
    """Return the weights of first layers and of the value head that compute the same under `merged` statistics."""
    converted = dict[str, torch.Tensor]()
    if policy.obs_norm is not None:
        old, new = (RunningNorm.of(state, OBS_NORM, OBS_CLIP) for state in (network, merged))
        for names in policy.first_layers:
            weight, bias = (torch.as_tensor(network[name]).clone() for name in names)
            renormalize_inputs(weight.mT, bias, old, new)
            converted |= zip(names, (weight, bias), strict=True)
    head = value_head_in_units(_value_head(network | converted), _value_head(merged))  # it may be a first layer
    return converted | {f"{VALUE_HEAD}{name}": part for name, part in head.items()}


def _value_head(network: Weights) -> Weights:
    return {
        name.removeprefix(VALUE_HEAD): tensor for name, tensor in network.items() if name.startswith(VALUE_HEAD)
    }  # fmt: skip
