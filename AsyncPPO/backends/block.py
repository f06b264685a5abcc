"""A block of environments and their rows: the part that every backend shares."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from AsyncPPO.backends.base import EnvError, EnvFactory, Infos, Rollout, StepArrays

logger = logging.getLogger(__name__)


class Block(ABC):
    """Environments `first`, `first + 1`, ... and the rows of the arrays that belong to them."""

    def __init__(self, first: int, arrays: StepArrays, rollout: Rollout | None) -> None:
        """Keep the parts."""
        self.first = first
        self.arrays = arrays
        self._rollout = rollout
        if rollout is not None:
            self._act = rollout.replica.actor(rollout.weights)

    @abstractmethod
    def reset(self, env_ids: Sequence[int], seeds: Sequence[int | None], options: dict[str, Any] | None) -> Infos:
        """Reset; see `Backend.reset`."""

    @abstractmethod
    def step(self, env_ids: Sequence[int], autoreset: bool) -> Infos:
        """Step; see `Backend.send` and `recv`."""

    @abstractmethod
    def close(self) -> None:
        """Close the environments."""

    def play(self, start: int, stop: int) -> Infos:
        """Let the replica play; see `Backend.play`.

        What truly followed an environment's k-th end in the rows is `final_obs[k]` of it.
        """
        assert self._rollout is not None
        arrays, noise, rows = self.arrays, self._rollout.noise, self._rollout.rows
        env_ids = range(self.first, self.first + len(arrays.obs))
        if not env_ids:
            return {}
        ends = (rows["terminated"][:, :start] | rows["truncated"][:, :start]).sum(axis=1)
        for step in range(start, stop):
            rows["obs"][:, step] = arrays.obs
            answer = self._act(arrays.obs, noise[step])
            answer["action"] = answer["action"].reshape(arrays.action.shape)
            arrays.action[:] = answer["action"]
            self.step(env_ids, autoreset=True)
            answer |= {"reward": arrays.reward, "terminated": arrays.terminated, "truncated": arrays.truncated}
            for name, values in answer.items():
                rows[name][:, step] = values
            for row in np.flatnonzero(arrays.terminated | arrays.truncated).tolist():
                rows["final_obs"][row, ends[row]] = arrays.final_obs[row]
                ends[row] += 1
        return {}


class EnvBlock(Block):
    """Environments that are stepped one after the other."""

    def __init__(
        self, factories: Sequence[EnvFactory], first: int, arrays: StepArrays, rollout: Rollout | None = None
    ) -> None:
        """Make the environments.

        Raises:
            EnvError: one could not be made.
        """
        super().__init__(first, arrays, rollout)
        self.envs: list[gym.Env] = []
        for index, factory in enumerate(factories, first):
            try:
                env = factory()
            except Exception as error:
                raise EnvError.of(index, "being made", error) from error
            if any(env is other for other in self.envs):
                raise EnvError(f"environment {index} is the same object as another: the callable must make a new one")
            self.envs.append(env)

    def reset(self, env_ids: Sequence[int], seeds: Sequence[int | None], options: dict[str, Any] | None) -> Infos:
        """Reset; see `Backend.reset`."""
        infos: Infos = {}
        for index, seed in zip(env_ids, seeds, strict=True):
            info = self._reset_one(index, seed=seed, options=options)
            if info:
                infos[index] = info
        return infos

    def step(self, env_ids: Sequence[int], autoreset: bool) -> Infos:
        """Step; see `Backend.send` and `recv`."""
        first, envs, store, infos = self.first, self.envs, self._store, {}
        arrays = self.arrays
        obs_rows, actions, rewards = arrays.obs, arrays.action, arrays.reward
        terminations, truncations = arrays.terminated, arrays.truncated
        for index in env_ids:
            row = index - first
            try:
                obs, reward, terminated, truncated, info = envs[row].step(actions[row])
            except (Exception, SystemExit) as error:
                raise EnvError.of(index, "step", error) from error
            try:
                rewards[row], terminations[row], truncations[row] = reward, terminated, truncated
            except (TypeError, ValueError) as error:
                raise EnvError(f"environment {index} returned a step that is not a number and two flags") from error
            if autoreset and (terminated or truncated):
                store(arrays.final_obs, index, obs)
                final_info, info = info, self._reset_one(index)
                if final_info:
                    info = {**info, "final_info": final_info}
            else:
                store(obs_rows, index, obs)
            if info:
                infos[index] = info
        return infos

    def close(self) -> None:
        """Close the environments; a failure in it is logged, and the others are closed all the same."""
        for index, env in enumerate(self.envs, self.first):
            try:
                env.close()
            except Exception as error:
                logger.warning("%s", EnvError.of(index, "close", error))
        self.envs.clear()

    def _reset_one(self, index: int, **kwargs: Any) -> dict[str, Any]:
        try:
            obs, info = self.envs[index - self.first].reset(**kwargs)
        except (Exception, SystemExit) as error:
            raise EnvError.of(index, "reset", error) from error
        self._store(self.arrays.obs, index, obs)
        return info

    def _store(self, target: np.ndarray, index: int, obs: Any) -> None:
        if target.dtype.names is not None:
            for name in target.dtype.names:
                try:
                    part = obs[int(name)] if isinstance(obs, tuple) else obs[name]
                except (LookupError, TypeError, ValueError) as error:
                    raise EnvError(f"environment {index} returned an observation without {name!r}") from error
                self._store(target[name], index, part)
            return
        shape = obs.shape if isinstance(obs, np.ndarray) else np.shape(obs)
        if shape != target.shape[1:]:
            raise EnvError(
                f"environment {index} returned an observation of shape {shape}; its space says {target.shape[1:]}"
            )
        try:
            target[index - self.first] = obs
        except (TypeError, ValueError) as error:
            raise EnvError(
                f"environment {index} returned an observation that is not made of numbers: {error}"
            ) from error
