"""The mean of several agents."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from parallel_rl.networks import RunningNorm
from parallel_rl.networks.heads import value_head_in_units
from parallel_rl.networks.normalizer import merged_statistics, renormalize_inputs
from parallel_rl.utils import State, mean_of_states
from PPO.actor_critic import OBS_CLIP, ActorCritic

Weights = Mapping[str, torch.Tensor]
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
    merged |= _mean_value_head(networks, merged)
    if policy.obs_norm is not None:
        merged |= mean_of_states([_first_layers(policy.first_layers, network, merged) for network in networks])
    return mean


def _mean_value_head(networks: Sequence[Weights], merged: Weights) -> dict[str, Any]:
    """Return the mean weights of value heads, after converting each to `merged` statistics."""
    statistics = _head_of(merged)
    heads = [value_head_in_units(_head_of(network), statistics) for network in networks]
    return {f"{VALUE_HEAD}{name}": part for name, part in mean_of_states(heads).items()}


def _head_of(network: Weights) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(VALUE_HEAD): tensor for name, tensor in network.items() if name.startswith(VALUE_HEAD)
    }  # fmt: skip


def _first_layers(names: Sequence[str], network: Weights, merged: Weights) -> dict[str, torch.Tensor]:
    """Return the weights and biases of first layers, after converting them to `merged` statistics."""
    old, new = (RunningNorm.of(state, OBS_NORM, OBS_CLIP) for state in (network, merged))
    converted = dict[str, torch.Tensor]()
    for name in names:
        weight, bias = (torch.as_tensor(network[f"{name}.{part}"]).clone() for part in ("weight", "bias"))
        renormalize_inputs(weight.mT, bias, old, new)
        converted |= {f"{name}.weight": weight, f"{name}.bias": bias}
    return converted
