"""A block of environments and their rows: the part that every backend shares."""

import copy
import logging
import re
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import gymnasium as gym
import numpy as np

from AsyncPPO.backends.apply import Outcome, Outcomes
from AsyncPPO.backends.base import (
    EnvError,
    EnvFactory,
    FaultPolicy,
    Infos,
    StepArrays,
)
from AsyncPPO.backends.elements import observation_writer
from AsyncPPO.backends.outcomes import check_finite, check_rewards, copied, reset_outcome, step_outcome
from AsyncPPO.backends.snapshot import restore, snapshot
from AsyncPPO.backends.streams import own_spaces, seed_spaces, warn_if_unseeded
from AsyncPPO.workers import RESTART_LIMIT, Pulse
from parallel_rl.utils import element_of, spawn_seeds

logger = logging.getLogger(__name__)
ENV_ERROR = "env_error"
"""The entry of an info with the reason why its environment was restarted."""
FINAL_INFO = "final_info"
"""The entry that holds the last info of the previous episode."""
RAISE = FaultPolicy()


class Block(ABC):
    """Environments `first`, `first + 1`, ... and the rows of the arrays that belong to them."""

    def __init__(self, first: int, arrays: StepArrays, pulse: Pulse | None = None) -> None:
        """Store the index of the first environment, the rows of all, and the pulse that reports progress."""
        self.first, self.arrays = first, arrays
        self.pulse = Pulse() if pulse is None else pulse
        self.reset_options: dict[str, Any] | None = None
        """The options of a reset that has no options of its own."""
        self.waiting: np.ndarray | None = None
        """Bool `(N,)`: the environments that the next step resets; None if environments are reset in the same step."""

    @property
    def restarts(self) -> int:
        """The number of environments that were restarted."""
        return self.pulse.restarts

    @abstractmethod
    def reset(self, env_ids: Sequence[int], seeds: Sequence[int | None], options: dict[str, Any] | None) -> Infos:
        """Reset some environments, as `Backend.reset` documents."""

    @abstractmethod
    def step(self, env_ids: Sequence[int], autoreset: bool) -> Infos:
        """Step some environments, as `Backend.send` and `recv` document."""

    @abstractmethod
    def close(self) -> None:
        """Close the environments."""

    def describe_wait(self) -> str:
        """Return which environment was stepped or reset last, as far as is known."""
        return "the environments"

    def each(self, what: str, function: Callable[[int, gym.Env], Any]) -> Outcomes:
        """Call `function(index, env)` for each environment; `what` is the name of this call in errors."""
        fault = f"{what} needs another backend: the vector backend has one object for all environments"
        return {self.first: Outcome(self.first, None, fault)}

    def snapshots(self) -> Infos:
        """Return a `Snapshot` of each environment."""
        return {}

    def restore(self, snapshots: Infos) -> Infos:
        """Restore the environments, as `Backend.restore` documents."""
        return {}


class EnvBlock(Block):
    """Environments that are stepped in turn."""

    def __init__(
        self,
        factories: Sequence[EnvFactory],
        first: int,
        arrays: StepArrays,
        fault_policy: FaultPolicy = RAISE,
        pulse: Pulse | None = None,
    ) -> None:
        """Make the environments.

        Args:
            factories: one for each.
            first: the index of the first.
            arrays: their rows.
            fault_policy: what to do if one fails.
            pulse: reports progress to the parent.

        Raises:
            EnvError: one could not be made.
        """
        super().__init__(first, arrays, pulse)
        self._factories, self._restart, self._timed = factories, fault_policy.restart, fault_policy.timeout is not None
        self._watched = True  # until the first step has returned, since it may hang
        self._before = arrays.obs.copy()
        self._failures = [0] * len(factories)
        self.envs: list[gym.Env] = []
        self._spaces: set[int] = set()
        for index in range(first, first + len(factories)):
            env = self._make(index)
            if any(env is other for other in self.envs):
                raise EnvError(f"environment {index} is the same object as another: the callable must make a new one")
            self.envs.append(env)
        if self.envs:
            space = self.envs[0].observation_space
            self._write_obs = observation_writer(space, arrays.obs, first)
            self._write_final = observation_writer(space, arrays.final_obs, first)

    def reset(self, env_ids: Sequence[int], seeds: Sequence[int | None], options: dict[str, Any] | None) -> Infos:
        """Reset some environments, as `Backend.reset` documents."""
        infos: Infos = {}
        for index, seed in zip(env_ids, seeds, strict=True):
            info = self._reset_one(index, seed=seed, options=options)
            if info:
                infos[index] = info
        return infos

    def step(self, env_ids: Sequence[int], autoreset: bool) -> Infos:
        """Step some environments, as `Backend.send` and `recv` document."""
        first, envs, infos = self.first, self.envs, {}
        arrays, may_restart, watched, pulse = self.arrays, self._restart, self._watched, self.pulse
        # an environment may keep its action: it must not be a view of a row that is written later
        actions: Any = arrays.action.copy() if arrays.action.ndim > 1 else arrays.action
        if actions.dtype.names is not None:
            actions = {i - first: element_of(envs[i - first].action_space, actions[i - first]) for i in env_ids}
        rewards, terminations, truncations = arrays.reward, arrays.terminated, arrays.truncated
        if may_restart:
            self._before[:], arrays.failed[:] = arrays.obs, False
        for index in env_ids:
            row = index - first
            if watched:
                pulse.beat(index)
            try:
                try:
                    outcome = envs[row].step(actions[row])
                except (Exception, SystemExit) as error:
                    raise EnvError.of(index, "step", error) from error
                obs, reward, terminated, truncated, info = step_outcome(index, outcome)
                rewards[row], terminations[row], truncations[row] = reward, terminated, truncated
                is_reset_now = autoreset and (terminated or truncated)
                (self._write_final if is_reset_now else self._write_obs)(index, obs)
                if may_restart:
                    self._check(index, arrays.final_obs if is_reset_now else arrays.obs)
            except EnvError as error:
                infos[index] = self._truncate(index, error, autoreset)
                continue
            if info:
                info = copied(info)
            if is_reset_now:
                info = _with_final_info(self._reset_one(index), info)
            if info:
                infos[index] = info
        self._watched = self._timed
        return infos

    def _check(self, index: int, obs_rows: np.ndarray) -> None:
        """Check the numbers of a step after it was taken."""
        row = slice(index - self.first, index - self.first + 1)
        check_rewards([index], self.arrays.reward[row])
        check_finite("observation", [index], obs_rows[row])
        self._failures[row.start] = 0

    def each(self, what: str, function: Callable[[int, gym.Env], Any]) -> Outcomes:
        """Call `function(index, env)` for each environment; `what` is the name of this call in errors."""
        outcomes = {}
        for index, env in enumerate(self.envs, self.first):
            if self._watched:
                self.pulse.beat(index)
            try:
                outcomes[index] = Outcome(index, function(index, env))
            except (Exception, SystemExit) as error:
                outcomes[index] = Outcome(index, None, str(EnvError.of(index, what, error)))
        return outcomes

    def snapshots(self) -> Infos:
        """Return a `Snapshot` of each environment."""
        return {index: snapshot(env) for index, env in enumerate(self.envs, self.first)}

    def restore(self, snapshots: Infos) -> Infos:
        """Restore the environments, as `Backend.restore` documents."""
        failed: Infos = {}
        for index, env in enumerate(self.envs, self.first):
            try:
                restore(env, snapshots[index], copy.deepcopy(self.reset_options))
            except Exception as error:  # its reset may raise anything
                failed[index] = {ENV_ERROR: f"environment {index} cannot be restored: {error!r}"}
        return failed

    def close(self) -> None:
        """Close all environments; failures are logged."""
        for index, env in enumerate(self.envs, self.first):
            close_env(index, env)
        self.envs.clear()

    def describe_wait(self) -> str:
        """Return which environment was stepped or reset last."""
        return f"environment {self.pulse.last[1]}"

    def _make(self, index: int) -> gym.Env:
        self.pulse.beat(index)
        try:
            env = self._factories[index - self.first]()
            own_spaces(env, self._spaces)
        except (Exception, SystemExit) as error:
            raise EnvError.unmade(index, error) from error
        return env

    def _reset_one(self, index: int, options: dict[str, Any] | None = None, **kwargs: Any) -> dict[str, Any]:
        """Reset an environment and return its info; with `restart`, replace it until a reset succeeds."""
        row, obs_rows = index - self.first, self.arrays.obs
        options = self.reset_options if options is None else options
        while True:
            if self._watched:
                self.pulse.beat(index)
            if options is not None:
                kwargs["options"] = copy.deepcopy(options)  # an environment may change or keep it
            try:
                try:
                    if kwargs.get("seed") is not None:
                        seed_spaces(self.envs[row], kwargs["seed"])
                    outcome = self.envs[row].reset(**kwargs)
                except (Exception, SystemExit) as error:
                    raise EnvError.of(index, "reset" + _about_seed(kwargs.get("seed"), error), error) from error
                obs, info = reset_outcome(index, outcome)
                if index == 0 and kwargs.get("seed") is not None:  # one stands for all
                    warn_if_unseeded(self.envs[row], kwargs["seed"])
                self._write_obs(index, obs)
                if self._restart:
                    check_finite("observation", [index], obs_rows[row : row + 1])
                return copied(info)
            except EnvError as error:
                kwargs["seed"] = self._replace(index, error)

    def _truncate(self, index: int, error: EnvError, autoreset: bool) -> dict[str, Any]:
        """Restart an environment that failed in a step, and mark its row as truncated."""
        row, arrays, before = index - self.first, self.arrays, self._before[index - self.first]
        seed = self._replace(index, error)
        info = _with_final_info(self._reset_one(index, seed=seed), {})
        arrays.final_obs[row] = before
        if not autoreset:
            arrays.obs[row] = before
        arrays.reward[row], arrays.terminated[row], arrays.truncated[row] = 0.0, False, True
        arrays.failed[row] = True
        return {**info, ENV_ERROR: str(error)}

    def _replace(self, index: int, error: EnvError) -> int:
        """Replace an environment that failed; return a seed for the new one, from the old one's random stream.

        Raises:
            EnvError: the fault policy has no restarts, or too many failed.
        """
        row = index - self.first
        if not self._restart:
            raise error
        self._failures[row] += 1
        if self._failures[row] > RESTART_LIMIT:
            raise EnvError(
                f"environment {index} was restarted {RESTART_LIMIT} times and failed at once every time; at last:\n"
                f"{error}"
            ) from error
        self.pulse.restarts += 1
        logger.warning("%s\nit is restarted", error)
        old, seed = self.envs[row], spawn_seeds(None, 1)[0]
        with suppress(Exception):
            seed = int(old.unwrapped.np_random.integers(2**31))
        close_env(index, old)
        try:
            self.envs[row] = self._make(index)
        except EnvError as another:
            return self._replace(index, another)
        return seed


def close_env(index: int, env: gym.Env) -> None:
    """Close an environment; a failure in it is logged."""
    try:
        env.close()
    except Exception as error:
        logger.warning("%s", EnvError.of(index, "close", error))


def _about_seed(seed: int | None, error: BaseException) -> str:
    """Return a hint for the error of a reset, if the seed may be the reason."""
    if isinstance(error, TypeError) and re.search(r"reset\(\) got .* argument '(seed|options)'", str(error)):
        return ", which must take seed= and options=: does it follow the interface of the old gym?"
    line = traceback.extract_tb(error.__traceback__)[-1].line
    if seed is None or not any(hint in f"{error} {line}".lower() for hint in ("seed", str(seed))):
        return ""
    return f" with seed {seed} (if only certain seeds are valid, list them: seed=[...], one for each environment)"


def _with_final_info(info: dict[str, Any], final_info: dict[str, Any]) -> dict[str, Any]:
    """Return the info of a reset; the last info of the episode before is in it as `final_info`, if not empty."""
    info.pop(FINAL_INFO, None)
    return {**info, FINAL_INFO: final_info} if final_info else info
