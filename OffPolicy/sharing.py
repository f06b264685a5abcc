"""What copies of an off-policy agent can share, and the states of ranks, of which each has some environments."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from OffPolicy.replay_parts import joined_replays, part_of_replay
from OffPolicy.saving import KEPT, Savable
from parallel_rl.networks import RunningNorm, copy_on
from parallel_rl.networks.normalizer import merged_statistics, renormalize_inputs
from parallel_rl.utils import State, mean_of_states


class Sharing(Savable):
    """The part of an agent that exchanges networks, optimizers and statistics of observations."""

    def shared_state(self) -> State:
        """Return the part of the state that copies of an agent can share."""
        norm = self.policy.obs_norm
        return {
            "learners": {
                name: {part: array.copy() for part, array in learner.state().items()}
                for name, learner in self.learners.items()
            },
            "obs_norm": {} if norm is None else {name: part.clone() for name, part in norm.state_dict().items()},
        }

    def load_shared_state(self, state: State, /) -> None:
        """Load the `shared_state` of this or another agent, or the `average` of several.

        Raises:
            ValueError: its networks differ; then nothing is changed.
        """
        self._check_networks(state)
        self._load_networks(state)

    def average(self, states: Sequence[State]) -> State:
        """Return the mean of several agents' `shared_state`.

        The statistics of observations are merged. First layers are converted to the merged ones before their mean.
        """
        mean = mean_of_states(states)
        if self.policy.obs_norm is not None:
            merged = merged_statistics([state["obs_norm"] for state in states])
            mean |= {
                "obs_norm": merged,
                "learners": mean_of_states([self._renormalized(each, merged) for each in states]),
            }
        return mean

    def _renormalized(self, state: State, merged: Mapping[str, Any]) -> State:
        """Return the networks of a `shared_state` with first layers for other statistics of observations."""
        clip = None if self.policy.obs_norm is None else self.policy.obs_norm.clip
        old, new = (RunningNorm.of(norm, clip=clip) for norm in (state["obs_norm"], merged))
        learners = copy.deepcopy(state["learners"])
        for name, learner in self.learners.items():
            for part in {"parameters", "target"} & learners[name].keys():
                network = copy_on(learner.network, torch.from_numpy(learners[name][part]))
                for weight, bias in network.first_layers:
                    renormalize_inputs(weight.data, bias.data, old, new)
        return learners

    @staticmethod
    def joined_states(states: Sequence[State]) -> State:
        """Return the `state` of an agent with the environments of several ranks, one after the other."""
        first = states[0]
        joined = dict(first)
        if first["sampler"] is not None:
            joined["sampler"] = joined_replays([state["sampler"] for state in states])
        return joined

    @staticmethod
    def part_of_state(state: State, own: slice) -> State:
        """Return the `state` of a rank with some of the environments; with none, it keeps its replay buffer."""
        part = dict(state)
        if own.start == own.stop:
            part["sampler"] = KEPT
        elif state["sampler"] is not None:
            part["sampler"] = part_of_replay(state["sampler"], own)
        return part
