"""The mean of several agents."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from parallel_rl.networks.heads import value_head_in_units
from parallel_rl.networks.normalizer import merged_statistics
from parallel_rl.utils import State, mean_of_states

VALUE_HEAD = "value_head."


def average(states: Sequence[State]) -> State:
    """Return the mean of several agents' `PPO.shared_state`.

    Weights and the moments of Adam are averaged, and statistics are merged. Each value head predicts in units of its
    own statistics (PopArt), so value heads are first converted to the merged statistics, and then averaged. First
    layers are not converted from their own statistics of observations.
    """
    mean = mean_of_states(states)
    for file in mean["networks"]:
        networks = [state["networks"][file] for state in states]
        merged = merged_statistics(networks)
        mean["networks"][file] |= merged
        if f"{VALUE_HEAD}stats.count" in merged:
            mean["networks"][file] |= _mean_value_head(networks, merged)
    return mean


def _mean_value_head(
    networks: Sequence[Mapping[str, torch.Tensor]], merged: Mapping[str, torch.Tensor]
) -> dict[str, Any]:
    """Return the mean weights of value heads, after converting each to `merged` statistics."""
    statistics = _head_of(merged)
    heads = [value_head_in_units(_head_of(network), statistics) for network in networks]
    return {f"{VALUE_HEAD}{name}": part for name, part in mean_of_states(heads).items()}


def _head_of(network: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(VALUE_HEAD): tensor for name, tensor in network.items() if name.startswith(VALUE_HEAD)
    }  # fmt: skip
