"""What copies of an off-policy agent can share, and the states of ranks, of which each has some environments."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from OffPolicy.rings import ARRAYS, COUNTS, RUNNING, filled_length
from OffPolicy.saving import KEPT, Savable
from parallel_rl.networks import RunningNorm, copy_on
from parallel_rl.networks.normalizer import merged_statistics, renormalize_inputs
from parallel_rl.utils import State, mean_of_states, whole_number


class Sharing(Savable):
    """The part of an agent that exchanges networks, optimizers and statistics of observations."""

    def shared_state(self) -> State:
        """Return the part of the state that copies of an agent can share."""
        norm = self.policy.obs_norm
        return {
            "steps": self.steps,
            "learners": {
                name: {part: array.copy() for part, array in learner.state().items()}
                for name, learner in self.learners.items()
            },
            "obs_norm": {} if norm is None else {name: part.clone() for name, part in norm.state_dict().items()},
        }

    def load_shared_state(self, state: State, /) -> None:
        """Load the `shared_state` of this or another agent, or the `average` of several; explore on as `load_weights`.

        Raises:
            ValueError: its networks differ; then nothing is changed.
        """
        steps = whole_number(state.get("steps", 0), "number of steps")  # older checkpoints have none
        self._check_networks(state)
        self._load_networks(state)
        self._explore_on(steps)

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


def joined_replays(states: Sequence[State]) -> State:
    """Return the state of one `Sampler` with the environments of several, one after the other.

    Row r of a buffer of N environments is of environment `r % N`; here the rows of each array are `(T, N, ...)`.
    """
    replays = [state["replay"] for state in states]
    sizes = [replay["num_envs"] for replay in replays]
    if not all(sizes):
        return states[0] | {"replay": {"num_envs": 0}}
    total, firsts = sum(sizes), np.cumsum([0, *sizes]).tolist()
    longest = max(len(replay["obs"]) // envs for replay, envs in zip(replays, sizes, strict=True))

    def joined(arrays: list[np.ndarray]) -> np.ndarray:
        wide = [_widened(array, longest, envs) for array, envs in zip(arrays, sizes, strict=True)]
        return _flat(np.concatenate(wide, axis=1))

    rows = {name: [replay[name] for replay in replays] for name in ARRAYS}
    rows["final_row"] = [
        _moved(array, envs, total, first) for array, envs, first in zip(rows["final_row"], sizes, firsts, strict=False)
    ]
    replay = {name: joined(arrays) for name, arrays in rows.items()}
    replay |= {name: np.concatenate([each[name] for each in replays]) for name in COUNTS}
    priorities = states[0]["priorities"]
    if priorities is not None:
        leaves = joined([
            state["priorities"]["priorities"][: len(each["obs"])]
            for state, each in zip(states, replays, strict=True)
        ])  # fmt: skip
        priorities = priorities | {"priorities": _padded(leaves, len(priorities["priorities"]))}
    return {"replay": {"num_envs": total, **replay}, "priorities": priorities}


def part_of_replay(state: State, own: slice) -> State:
    """Return the state of a `Sampler` for some of the environments of another one."""
    replay, priorities = state["replay"], state["priorities"]
    total, envs = replay["num_envs"], own.stop - own.start
    if not total:
        return state | {"replay": {"num_envs": 0}}
    counts = {name: replay[name][own] for name in COUNTS}
    filled = filled_length(counts["written"], len(replay["obs"]) // total)

    def part(array: np.ndarray) -> np.ndarray:
        return _flat(array[: filled * total].reshape(filled, total, *array.shape[1:])[:, own])

    rows = {name: part(replay[name]) for name in ARRAYS}
    rows["final_row"] = _moved(rows["final_row"], total, envs, -own.start)
    if priorities is not None:
        leaves = priorities["priorities"]
        priorities = priorities | {"priorities": _padded(part(leaves), len(leaves))}
    return {"replay": {"num_envs": envs, **counts, **rows}, "priorities": priorities}


def _moved(rows: np.ndarray, envs: int, others: int, shift: int) -> np.ndarray:
    """Return the numbers of rows after their environments, of N = `envs`, have become some of N = `others`."""
    return np.where(rows == RUNNING, RUNNING, rows // envs * others + rows % envs + shift)


def _widened(rows: np.ndarray, steps: int, envs: int) -> np.ndarray:
    """Return rows as `(steps, envs, ...)`, with zeros at the end."""
    return _padded(rows, steps * envs).reshape(steps, envs, *rows.shape[1:])


def _padded(rows: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate([rows, np.zeros((count - len(rows), *rows.shape[1:]), rows.dtype)])


def _flat(rows: np.ndarray) -> np.ndarray:
    return rows.reshape(-1, *rows.shape[2:])
