"""How PPO saves and loads its weights and its state."""

import os
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from parallel_rl.networks import MultiCategoricalHead
from parallel_rl.networks.weights import POLICY_FILE, Settings, read_weights, tensors_of, write_weights
from parallel_rl.utils import State, check_fit, older, settings_in, whole_number
from parallel_rl.utils.names import check_changes
from PPO.averaging import average
from PPO.base import PPOBase
from PPO.companions import scales_of
from PPO.config import PPOConfig
from PPO.saved_settings import arguments_of, differences, plain_arguments

SHARED_PARTS = ("networks", "optimiser", "updates", "rewarded")
STATE_PARTS = {"networks", "intrinsic_returns", "optimiser", "random", "updates", "rewarded", "stacked"}
OF_ENVIRONMENTS = {"intrinsic_returns", "exploration"}
"""Parts that have a row for each environment."""


class Savable(PPOBase):
    """The part of `PPO` that saves and loads."""

    @classmethod
    def load(cls, path: str | os.PathLike[str], **changes: Any) -> Self:
        """Make an agent from what `save_weights` saved: its settings and its weights.

        Args:
            path: the directory.
            changes: arguments that replace the saved ones. Give those that are not saved: `device`, and a custom
                `encoder` or `actor_critic`, which no file can hold; also a schedule (`lr`, `policy_clip`) if the agent
                is to learn. You can change any others that the weights do not depend on, such as `gamma`.

        Raises:
            FileNotFoundError: there are no weights.
            ValueError: they are damaged, an older version saved them without settings, a custom `encoder` or
                `actor_critic` is missing, or the weights do not fit `changes`.
            TypeError: `changes` has an unknown argument, or an environment.
        """
        check_changes(changes, cls, settings_in(PPOConfig))
        file = Path(path) / POLICY_FILE
        _, settings = read_weights(file)
        if settings is None:
            raise ValueError(
                f"{file} does not say how its agent was made: an older version wrote it. Make the agent with the same "
                "arguments; then load_weights will do"
            )
        _check_agent(settings, f"the weights in {file}")
        try:
            agent = cls(**arguments_of(settings, changes))
        except Exception as error:  # forged settings can make the networks raise anything
            given = f", with {', '.join(changes)}" if changes else ""
            raise ValueError(f"no agent can be made of what {file} says{given}: {error}") from error
        agent.load_weights(path)
        return agent

    def settings(self) -> Settings:
        """Return the config and the other arguments of the agent as plain values, for a file; without `device`."""
        return plain_arguments({name: getattr(self, name) for name in sorted(self.arguments)} | vars(self.config))

    def check_settings(self, saved: Settings, what: str, *, learning: bool = False) -> None:
        """Check that the weights of an agent with the settings `saved` have the same meaning for this one.

        Args:
            saved: the other settings.
            what: where they are from, for the message.
            learning: whether to compare also the settings of the update.

        Raises:
            ValueError: they do not; the message lists the differences.
        """
        _check_agent(saved, what)
        try:
            own = self.settings()
            different = differences(older.ppo_settings(saved, own), own, learning=learning)
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{what} do not say how they were made: {error}") from error
        if different:
            raise ValueError(f"{what} do not fit: {'; '.join(different)}")

    def signature(self) -> Settings:
        """Return the settings that a checkpoint must agree with."""
        return self.settings()

    def check_signature(self, saved: Settings, source: str) -> None:
        """Check that an agent with the signature `saved` would continue in the same way as this one.

        Raises:
            ValueError: it would not; the message lists the differences.
        """
        self.check_settings(saved, f"the settings of {source}", learning=True)

    def save_weights(self, path: str | os.PathLike[str]) -> None:
        """Save the networks and the settings into the directory `path`, which is made if it is missing.

        Raises:
            OSError: the directory cannot be made or written.
        """
        directory = Path(path)
        directory.mkdir(parents=True, exist_ok=True)
        for module, file in self.modules():
            write_weights(directory / file, module.state_dict(), self.settings())

    def load_weights(self, path: str | os.PathLike[str]) -> None:
        """Load what `save_weights` saved, onto the device in use.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file is damaged, or its weights have another meaning for this agent. The message lists the
                differences, and nothing is changed.
        """
        networks = {}
        for module, name in self.modules():
            file = Path(path) / name
            networks[name], settings = read_weights(file)
            if settings is not None:
                self.check_settings(settings, f"the weights in {file}")
            check_fit(networks[name], module.state_dict(), f"the weights in {file}")
        self._take_over(networks)

    def state(self) -> State:
        """Return the state that an exact resume needs, for `utils.save_state`, without `memory` and the settings.

        It holds the networks, the statistics of observations, returns and companions, the optimizers, the random state
        and the number of updates.
        """
        return {
            "networks": {file: clone(module.state_dict()) for module, file in self.modules()},
            "intrinsic_returns": self._intrinsic_returns(),
            "optimiser": [clone(optimizer.state) for optimizer in self.optimizers],
            "random": self.rng.bit_generator.state,
            "updates": self.updates,
            "rewarded": self.rewarded,
            "stacked": True,  # the moments of several choices follow `stacked_parameters` too
            **({} if self.exploration is None else {"exploration": self.exploration.state()}),
        }

    def load_state(self, state: State) -> None:
        """Restore a `state`, of this or of another `PPO` with the same settings.

        Raises:
            ValueError: it is of other networks, or is not the state of a PPO; then nothing is changed.
        """
        parts = STATE_PARTS if self.exploration is None else STATE_PARTS | {"exploration"}
        if isinstance(state, dict):
            state = older.ppo(state)
        if not isinstance(state, dict) or state.keys() != parts or not isinstance(state["optimiser"], list):
            raise ValueError(f"the saved state is not that of a PPO: it holds {_names(state)}")
        networks = self._fitting(state["networks"])
        moments = [tensors_of(tensors, "the saved moments of Adam") for tensors in state["optimiser"]]
        for own, tensors in zip_longest([optimizer.state for optimizer in self.optimizers], moments):
            check_fit(tensors or {}, own or {}, "the saved moments of Adam")
        if not state["stacked"]:
            moments[0] = self._stacked(moments[0])
        discounted = self._fitting_returns(state["intrinsic_returns"])
        rng = _rng_of(state["random"])
        updates = whole_number(state["updates"], "number of updates")
        if self.exploration is not None:
            self.exploration = self.exploration.restored(state["exploration"])
        self._take_over(networks)
        self._load_intrinsic_returns(discounted)
        for optimizer, tensors in zip(self.optimizers, moments, strict=True):
            optimizer.load_state(tensors)
        self.rng, self.updates = rng, updates
        self.rewarded = bool(state["rewarded"])

    def shared_state(self) -> State:
        """Return the part of the state that copies of an agent can share: networks and optimizers."""
        state = self.state()
        return {name: state[name] for name in SHARED_PARTS}

    def load_shared_state(self, state: State) -> None:
        """Load the `shared_state` of this or another agent, or the `average` of several."""
        self.load_state(self.state() | state)

    def average(self, states: Sequence[State]) -> State:
        """Return the mean of several agents' `shared_state`; `PPO/averaging.py` says how."""
        return average(states, self.policy, POLICY_FILE)

    @staticmethod
    def joined_states(states: Sequence[State]) -> State:
        """Return the `state` of an agent with the environments of several ranks, one after the other."""
        return states[0] | {
            part: {name: np.concatenate([state[part][name] for state in states]) for name in states[0][part]}
            for part in OF_ENVIRONMENTS & states[0].keys()
        }

    @staticmethod
    def part_of_state(state: State, own: slice) -> State:
        """Return the `state` of a rank with some of the environments."""
        parts = {name: state[name] for name in OF_ENVIRONMENTS & state.keys() if isinstance(state[name], dict)}
        return state | {name: {key: rows[own] for key, rows in part.items()} for name, part in parts.items()}

    def forget_environments(self) -> None:
        """Reset what is stored by the index of an environment, since other environments get these indexes."""
        for scale in scales_of(self.companions).values():
            scale.discounted = scale.discounted[:0]
        if self.exploration is not None:
            self.exploration.forget()

    def load_networks(self, saved: State, settings: Settings | None = None) -> None:
        """Load only the networks of a `state`, as `load_weights` loads those of files.

        Args:
            saved: the state.
            settings: the `signature` of the agent that it is the state of.

        Raises:
            ValueError: the networks differ, or have another meaning for this agent; then nothing is changed.
        """
        if settings is not None:
            self.check_settings(settings, "the saved networks")
        self._take_over(self._fitting(saved.get("networks")))

    def _fitting(self, saved: Any) -> dict[str, dict[str, torch.Tensor]]:
        """Return the saved networks as tensors, by file, if they fit; otherwise raise a `ValueError`."""
        if not isinstance(saved, dict) or saved.keys() != {file for _, file in self.modules()}:
            files = ", ".join(file for _, file in self.modules())
            raise ValueError(f"the saved state is of {_names(saved)}, but this agent's networks are {files}")
        networks = {}
        for module, file in self.modules():
            what = f"the saved {file.removesuffix('.pth').replace('_', ' ')}"
            networks[file] = tensors_of(saved[file], what)
            check_fit(networks[file], module.state_dict(), what)
        return networks

    def _stacked(self, moments: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return moments of the policy in the order of the parameters in the optimizer."""
        policy = self.policy
        if not isinstance(policy.policy_head, MultiCategoricalHead) or policy.architecture() is None:
            return moments
        return older.stacked_moments(moments, [*policy.parameters()], policy.stacked_parameters())

    def _take_over(self, networks: dict[str, dict[str, torch.Tensor]]) -> None:
        for module, file in self.modules():
            module.load_state_dict(networks[file])
        self.rewarded = bool(self.policy.value_head.stats.count > 0)

    def modules(self) -> list[tuple[nn.Module, str]]:
        """Return the networks, and the name of the file of each."""
        learned = [companion for companion in self.companions if companion.state_dict()]
        return [(self.policy, POLICY_FILE), *((companion, f"{companion.name}_weights.pth") for companion in learned)]

    def _intrinsic_returns(self) -> dict[str, torch.Tensor]:
        """Return copies of the discounted sums of intrinsic rewards, by the name of their scale."""
        return {name: scale.discounted.clone() for name, scale in scales_of(self.companions).items()}

    def _load_intrinsic_returns(self, discounted: dict[str, torch.Tensor]) -> None:
        for name, scale in scales_of(self.companions).items():
            scale.discounted = discounted[name].to(self.device, copy=True)

    def _fitting_returns(self, saved: Any) -> dict[str, torch.Tensor]:
        """Return the saved discounted sums of intrinsic rewards, if they fit; otherwise raise a `ValueError`."""
        names = scales_of(self.companions).keys()
        if saved.keys() != names:
            raise ValueError(
                f"the saved intrinsic returns are of {_names(saved)}, not of {', '.join(names) or 'nothing'}"
            )
        sums = tensors_of(saved, "the saved intrinsic returns")
        for tensor in sums.values():
            if tensor.ndim != 1 or tensor.dtype != torch.float64:
                raise ValueError(f"the saved intrinsic returns are {tensor.dtype} {tuple(tensor.shape)}")
        return sums


def _check_agent(saved: Settings, what: str) -> None:
    """Raise a `ValueError` if settings belong to an off-policy agent: these include its name."""
    if "agent" in saved:
        raise ValueError(f"{what} are of {saved['agent']}, not of PPO")


def clone(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return copies of tensors, by name."""
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _names(state: Any) -> str:
    """Return the names of the parts of a saved state, in words."""
    return ", ".join(state) or "nothing" if isinstance(state, dict) else f"a {type(state).__name__}"


def _rng_of(state: Any) -> np.random.Generator:
    """Return a generator from its saved state.

    Raises:
        ValueError: it is not the state of a generator.
    """
    generator = np.random.default_rng(0)
    try:
        generator.bit_generator.state = state
    except (TypeError, LookupError, OverflowError, ValueError) as error:
        raise ValueError(f"the saved random state is not the state of a generator: {error!r}") from error
    return generator
