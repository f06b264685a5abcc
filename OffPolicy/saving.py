"""Saving and loading of an off-policy agent: its weights, or its whole state."""

import copy
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from gymnasium import spaces

from OffPolicy.config import OffPolicyConfig
from OffPolicy.her import GoalFunctions
from OffPolicy.learner import Learner
from OffPolicy.policy import Policy
from OffPolicy.sampler import Sampler
from OffPolicy.schedule import UpdateSchedule
from parallel_rl.networks.weights import POLICY_FILE, read_weights, tensors_of
from parallel_rl.utils import Configured, State, check_fit, describe_space, make_space, older, settings_in, whole_number
from parallel_rl.utils.names import check_changes
from parallel_rl.utils.records import in_words, plain
from parallel_rl.utils.schedules import LostSchedule

COUNTS = ("steps", "updates", "_acted")
KEPT = "kept"
"""In a state in place of the replay buffer: the agent keeps its own."""
if TYPE_CHECKING:
    ConfigFields = OffPolicyConfig
    """The attributes of `Configured`, for type checkers."""
else:
    ConfigFields = object


class Savable(Configured, ConfigFields):
    """The part of an agent that saves and loads it."""

    config_class: ClassVar[type[OffPolicyConfig]]
    observation_space: spaces.Space
    action_space: spaces.Space
    goal_functions: GoalFunctions | None
    seed: int | None
    rng: np.random.Generator
    sampler: Sampler
    policy: Policy
    learners: dict[str, Learner]
    steps: int
    updates: int
    schedule: UpdateSchedule
    _acted: int

    def signature(self) -> dict[str, Any]:
        """Return the settings that a checkpoint must agree with, as plain values by name."""
        known = settings_in(type(self.config))
        settings = {name: getattr(self.config, name) for name, about in known.items() if not about.incidental}
        return self.structure() | {name: plain(value) for name, value in settings.items()}

    def structure(self) -> dict[str, Any]:
        """Return the settings that the weights depend on."""
        known = settings_in(type(self.config))
        settings = {name: getattr(self.config, name) for name, about in known.items() if about.structure}
        return {
            "agent": type(self).__name__,
            "observation_space": describe_space(self.observation_space),
            "action_space": describe_space(self.action_space),
            **{name: plain(value) for name, value in settings.items()},
        }

    @classmethod
    def load(cls, directory: str | os.PathLike[str], /, **changes: Any) -> Self:
        """Make an agent from what `save_weights` saved: its spaces, its settings, its weights and its steps.

        Args:
            directory: where the weights are.
            changes: arguments that replace the saved ones. These are not saved: `device`, a schedule for `lr` (needed
                only to learn), and `goal_functions` for hindsight (`hindsight="none"` does without, for an agent that
                learns no more).

        Raises:
            FileNotFoundError: there are no weights.
            ValueError: they are damaged, of another agent, or do not fit `changes`; or an argument is missing.
            TypeError: `changes` has an unknown argument, or an environment.
        """
        check_changes(changes, cls, settings_in(cls.config_class))
        file = Path(directory) / POLICY_FILE
        saved = cls._saved_settings(file)[1]
        names = settings_in(cls.config_class).keys() & saved
        if isinstance(saved.get("lr"), str):
            saved["lr"] = LostSchedule("lr", saved["lr"])
        if saved.get("hindsight", "none") != "none" and changes.keys().isdisjoint({"hindsight", "goal_functions"}):
            raise ValueError(
                "the agent had hindsight, whose goal functions no file holds: give "
                "goal_functions=GoalFunctions.of(env), or hindsight='none' to evaluate it"
            )
        try:
            spaces = {name: make_space(saved[name]) for name in ("observation_space", "action_space")}
            agent = cls(**(spaces | {name: saved[name] for name in names} | changes))
        except Exception as error:  # forged settings can make the networks raise anything
            given = f", with {', '.join(changes)}" if changes else ""
            raise ValueError(f"no agent can be made of what {file} says{given}: {error}") from error
        agent.load_weights(directory)
        return agent

    @classmethod
    def _saved_settings(cls, file: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return the weights in a file and the settings of their agent, which must be of this class."""
        weights, settings = read_weights(file)
        if settings is None or settings.get("agent") != cls.__name__:
            kind = (settings or {}).get("agent", "another agent")
            raise ValueError(f"the weights in {file} are of {kind}, not of {cls.__name__}")
        return weights, settings

    def save_weights(self, directory: str | os.PathLike[str], /) -> None:
        """Save all networks except targets, the settings and the number of steps into a directory.

        It is made if it is missing.
        """
        self.actor().save_weights(directory)

    def load_weights(self, directory: str | os.PathLike[str], /) -> None:
        """Load what `save_weights` saved; the target networks get the same weights.

        An agent without transitions explores on where the saved one was, and collects `learning_starts` steps before
        its next update.

        Raises:
            FileNotFoundError: there are no weights.
            ValueError: they are damaged, or of another agent; then nothing is changed.
        """
        file = Path(directory) / POLICY_FILE
        weights, saved = self._saved_settings(file)
        steps = whole_number(saved.get("steps", 0), "number of steps")  # older files have none
        self._check_structure(saved, f"the weights in {file}")
        weights = self._loadable(weights)
        check_fit(weights, self.policy.state_dict(), f"the weights in {file}")
        self.policy.load_state_dict(weights)
        for learner in self.learners.values():
            learner.update_target(1.0)
        self._explore_on(steps)

    def _check_structure(self, saved: State, what: str) -> None:
        """Check that `what`, of an agent with the settings `saved`, has the same meaning for this one."""
        own = self.structure()
        if different := [name for name in own if saved.get(name) != own[name]]:
            raise ValueError(f"{what} do not fit: {'; '.join(in_words(different, saved, own))}")

    def _explore_on(self, steps: int) -> None:
        """Explore on after the `steps` that the loaded networks were trained for, if this agent has no transitions."""
        if steps not in (0, self.steps) and not len(self.sampler.replay):
            self.continue_after(steps)

    def _loadable(self, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the weights to load of those in a file."""
        return weights

    def actor(self) -> Policy:
        """Return a copy of the current policy, to be evaluated, saved or sent to another process."""
        self.policy.settings = self.signature() | {"steps": self.steps}  # some may have been assigned meanwhile
        return copy.deepcopy(self.policy)

    def state(self) -> State:
        """Return everything that an exact resume needs, for `utils.save_state`; arrays are not copied.

        Without `replay_in_checkpoint` the replay buffer is left out.
        """
        norm = None if self.policy.obs_norm is None else self.policy.obs_norm.state_dict()
        return {
            "learners": {name: learner.state() for name, learner in self.learners.items()},
            "obs_norm": norm and {name: part.cpu().numpy() for name, part in norm.items()},
            "sampler": self.sampler.state() if self.config.replay_in_checkpoint else None,
            "random": self.rng.bit_generator.state,
            "counts": {name: getattr(self, name) for name in COUNTS} | self.schedule.state(),
            "schedule": self._schedule_settings(),
            "buffer_size": self.config.buffer_size,
        }

    def whole_state(self) -> State:
        """Return a copy of `state`, with the replay buffer; its arrays are not copied, since a load makes new ones."""
        state = copy.deepcopy(self.state() | {"sampler": None})
        return state | {"sampler": self.sampler.state(), "capacity": self.sampler.replay.capacity}

    def savepoint(self) -> Callable[[], None]:
        """Return a function that undoes an update; only the replay buffer keeps what was observed since."""
        return partial(self.load_state, copy.deepcopy(self.state() | {"sampler": KEPT}))

    def _schedule_settings(self) -> dict[str, float]:
        return {"utd": self.config.utd, "learning_starts": self.config.learning_starts}

    def load_state(self, state: State, /) -> None:
        """Restore what `state` returned.

        If it has no replay buffer that fits, the next update waits until there are `learning_starts` transitions again.

        Raises:
            ValueError: it is of another agent; then at most the replay buffer is changed.
        """
        settings, size = self._schedule_settings(), self.config.buffer_size
        with self._value_errors():
            self._check_networks(state)
            saved = older.off_policy_counts(state["counts"])
            counts = {name: whole_number(saved[name], name) for name in COUNTS}
            schedule = UpdateSchedule.of(saved)
            rng = copy.deepcopy(self.rng.bit_generator)
            rng.state = state["random"]
            fits = state.get("buffer_size", size) == size
            if state["sampler"] not in (None, KEPT) and fits:
                self.sampler.load_state(state["sampler"])
            self._load_networks(state)
        self.rng.bit_generator.state = rng.state
        vars(self).update(counts)
        self.schedule = schedule
        if state["sampler"] is None:
            self._refill("was not saved")
        elif not fits:
            self._refill("was saved with another buffer_size")
        elif state.get("schedule", settings) != settings:
            self.schedule.restart(self.steps, self.updates)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; with another `learning_starts` the schedule of updates restarts."""
        restarts = name == "learning_starts" and value != self.learning_starts
        super().__setattr__(name, value)
        if restarts:
            self.schedule.restart(self.steps, self.updates)

    def forget_environments(self) -> None:
        """Empty the replay buffer, whose rows belong to environments by index, since others get these indexes."""
        self._acted = 0  # their transitions are dropped
        self._refill("is of other environments")

    def continue_after(self, steps: int) -> None:
        """Continue a run of `steps` environment steps without its transitions: first collect `learning_starts` more."""
        self.steps = steps
        self.schedule.restart(steps + self.config.learning_starts, self.updates)

    def load_networks(self, state: State, signature: State | None = None, /) -> None:
        """Restore only the networks from what `state` returned; explore on as after `load_weights`.

        Args:
            state: the state.
            signature: of the agent that it is the state of.

        Raises:
            ValueError: it is of another agent, or its networks have another meaning for this one; then nothing is
                changed.
        """
        if signature is not None:
            self._check_structure(signature, "the saved networks")
        with self._value_errors():
            steps = whole_number(state["counts"]["steps"], "number of steps")
            self._check_networks(state)
            self._load_networks(state)
        self._explore_on(steps)

    def _check_networks(self, state: State) -> None:
        for name, learner in self.learners.items():
            learner.check_state(state["learners"][name], name)

    def _load_networks(self, state: State) -> None:
        """Restore the networks, their optimizers and the statistics of observations, which have been checked."""
        if self.policy.obs_norm is not None:
            self.policy.obs_norm.load_state_dict(tensors_of(state["obs_norm"], "the statistics of observations"))
        for name, learner in self.learners.items():
            learner.load_state(state["learners"][name])

    @contextmanager
    def _value_errors(self) -> Iterator[None]:
        """Raise a `ValueError` for any error that a forged state causes."""
        try:
            yield
        except (LookupError, TypeError, AttributeError, RuntimeError) as error:
            raise ValueError(f"the saved state is not that of a {type(self).__name__}: {error!r}") from error

    def _refill(self, why: str) -> None:
        """Empty the replay buffer; the next update waits for as many steps as the first did."""
        self.sampler.clear()
        if self.steps:
            self.schedule.restart(self.steps + self.config.learning_starts, self.updates)
            warnings.warn(
                f"the replay buffer {why}: {self.config.learning_starts:,} steps are collected before the next update",
                RuntimeWarning,
                stacklevel=3,
            )

    def __reduce__(self) -> Any:
        """Copy through the state, since the parameters are views of vectors."""
        kind: Any = type(self)
        make = partial(kind, config=self.config, goal_functions=self.goal_functions, seed=self.seed)
        return make, (self.observation_space, self.action_space), self.whole_state()

    def __setstate__(self, state: State) -> None:
        self.sampler.replay.capacity = state["capacity"]  # on a rank it is less than `buffer_size`
        self.load_state(state)
