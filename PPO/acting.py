"""How PPO acts: with the NumPy policy if there is one, otherwise with torch."""

import math
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike

from parallel_rl.utils import COMPOSITE, choices_of, element_of, join_parts, torch_threads
from parallel_rl.utils.features import why_nan
from PPO.base import PPOBase
from PPO.fast.policy import NumpyPolicy
from PPO.fast.shards import Replica


class Acting(PPOBase):
    """The part of `PPO` that acts."""

    @property
    def wants_env_ids(self) -> bool:
        """Whether `act` needs `env_ids`, since each environment has its own gSDE noise."""
        return self.config.use_sde

    @cached_property
    def _first_choices(self) -> np.ndarray:
        """The column of the first choice of each discrete action, `(K,)`, in an action mask."""
        return np.cumsum([0, *(count for count, _ in choices_of(self.action_space))])[:-1]

    def initial_state(self, num_envs: int) -> np.ndarray | None:
        """Return the recurrent state at the start of an episode, zeros `(num_envs, S)`; None without a core."""
        return None if self.policy.core is None else np.zeros((num_envs, self.policy.core.state_size), np.float32)

    def get_action(
        self,
        states: "ArrayLike | torch.Tensor",
        *,
        deterministic: bool = False,
        state: np.ndarray | None = None,
        env_ids: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return an action for each state.

        Args:
            states: `(N, ...)`, or a single state, as the space has them or flat. For a Dict or Tuple space a dict or
                tuple of these, or a structured array.
            deterministic: take the mode of the policy (for continuous actions the median) instead of sampling.
            state: `(N, S)`, the recurrent state of each row, for a recurrent policy; it is updated in place. Start with
                `initial_state(N)`, and set the rows of finished episodes to zero.
            env_ids: `(N,)`, the environment of each state, by default the first N. It matters only with `use_sde`,
                since each environment then has its own noise, which lasts for several steps.

        Returns:
            Discrete: int64 `(N,)`, or `(N, K)` for K actions at once. Continuous: float32 `(N, action_dim)`, inside the
            bounds. Dict or Tuple space: a structured array `(N,)`, with the parts under their names. For a single
            state: one action, without the first dimension, as the environment's `step` takes it.

        Raises:
            ValueError: states have another shape than those of the space, impossible values (pixels, choices) or NaN, a
                state allows no action, or `state` is missing.
        """
        return self.act(states, deterministic=deterministic, state=state, env_ids=env_ids)[0]

    def act(
        self,
        states: "ArrayLike | torch.Tensor",
        *,
        deterministic: bool = False,
        state: np.ndarray | None = None,
        env_ids: np.ndarray | None = None,
        noise: np.ndarray | None = None,
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return the actions of `get_action`, and further rows by name, which learning needs.

        `noise` `(N, A)` takes the place of fresh random numbers from `noise(N)`.

        Returns:
            The actions, and a dict for `utils.buffer_append(**extras)`: `log_prob` float32 `(N,)`; for continuous
            actions `raw_action` float32 `(N, action_dim)`, the action before tanh (for a Dict or Tuple space, the raw
            actions of all parts, concatenated); with a core `state` `(N, S)`, the recurrent state before the action.
        """
        features = self.policy.features
        columns, single = features.rows(states.cpu().numpy() if torch.is_tensor(states) else states)
        columns = np.ascontiguousarray(columns)  # torch takes no array with negative strides
        if features.mask is not None:
            features.check_mask(columns, self._first_choices)
        self._check_state(state, len(columns))
        noise = None if deterministic else self._noise_of(len(columns), env_ids, noise)
        before = None if state is None else state.copy()
        if self.numpy_policy is None:
            action, raw_action, log_prob = self._act_by_torch(columns, noise, state)
        else:
            self._refresh_statistics(self.numpy_policy)
            action, raw_action, output = self.numpy_policy.sample(columns, noise)
            log_prob = self.numpy_policy.log_prob(raw_action, output)
        if math.isnan(log_prob @ log_prob):  # one product: a look at all observations would take longer
            raise ValueError(why_nan(columns, self.policy.state_dict()))
        extras = {"log_prob": log_prob}
        if self.is_continuous or isinstance(self.action_space, COMPOSITE):
            extras["raw_action"] = raw_action
        if before is not None:
            extras["state"] = before
        action = action.reshape(len(action), *(self.action_space.shape or ()))
        if single:
            return element_of(self.action_space, action[0]), {name: value[0] for name, value in extras.items()}
        return action, extras

    @torch.no_grad()
    def _act_by_torch(
        self, columns: np.ndarray, noise: np.ndarray | None, state: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return actions, raw actions and log-probabilities; write the next recurrent state into `state`."""
        before = torch.empty(len(columns), 0, device=self.device) if state is None else self._tensor(state)
        obs = self.policy.normalize(torch.as_tensor(columns, device=self.device))
        with torch_threads(self.threads):
            policy, after = self.policy.step(obs, before)
            raw_action = policy.mode() if noise is None else policy.sample(self._tensor(noise))
            action, log_prob = self.policy.policy_head.to_action(raw_action), policy.log_prob(raw_action)
        if state is not None:
            state[:] = after.cpu().numpy()
        if isinstance(self.action_space, COMPOSITE):
            rows = join_parts(self.action_space, [part.cpu().numpy() for part in action])
        else:
            rows = action.cpu().numpy()
        return rows, raw_action.cpu().numpy(), log_prob.cpu().numpy()

    def replica(self) -> Replica | None:
        """Return a policy for worker processes, which have no torch; None if only the agent itself can act."""
        if self.numpy_policy is None or type(self).act is not Acting.act:
            return None
        return Replica(self.numpy_policy.architecture, self.config.batch_size, self.config.mini_batch_size)

    def replica_weights(self) -> np.ndarray:
        """Return the current weights of `replica`, float32 `(P,)`."""
        assert self.numpy_policy is not None
        self._refresh_statistics(self.numpy_policy)
        return np.concatenate([self.numpy_policy.parameters, self.numpy_policy.statistics.ravel()])

    def _refresh_statistics(self, policy: NumpyPolicy) -> None:
        """Copy the statistics of observations, which torch keeps in float64, to the NumPy policy."""
        if self.policy.obs_norm is not None:
            mean, std = policy.statistics
            mean[:], std[:] = self.policy.obs_norm.mean.numpy(), self.policy.obs_norm.std.numpy()

    def _noise_of(self, count: int, env_ids: np.ndarray | None, fresh: np.ndarray | None) -> np.ndarray:
        """Return the exploration noise `(count, A)` for one step, from `fresh` random numbers if there are any."""
        if self.exploration is None:
            return self.noise(count) if fresh is None else fresh
        env_ids = np.arange(count) if env_ids is None else np.asarray(env_ids)
        if env_ids.shape != (count,) or len(np.unique(env_ids)) != count or min(env_ids, default=0) < 0:
            raise ValueError(f"env_ids must be {count} different indexes of environments, not {env_ids}")
        return self.exploration.noise(env_ids, self.noise if fresh is None else lambda due: fresh[:due])

    def noise(self, *shape: int) -> np.ndarray:
        """Return the random numbers for `shape` actions: float32 `(*shape, A)`."""
        parts = [self._noise(kind, (*shape, size)) for kind, size in self.policy.policy_head.noises]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)

    def _noise(self, kind: str, shape: tuple[int, ...]) -> np.ndarray:
        if kind == "normal":
            return self.rng.standard_normal(shape, np.float32)
        clocks = self.rng.standard_exponential(shape, np.float32)
        return np.maximum(clocks, np.finfo(np.float32).tiny, out=clocks)

    def _check_state(self, state: np.ndarray | None, count: int) -> None:
        """Check that `state` has shape `(count, S)` if this policy is recurrent, and is None otherwise."""
        if state is None and self.policy.core is None:
            return
        if self.policy.core is None:
            raise ValueError("this policy has no recurrent state: it was made without a core")
        size = self.policy.core.state_size
        if not isinstance(state, np.ndarray) or state.shape != (count, size):
            raise ValueError(
                f"this policy is recurrent: pass state=, an array ({count}, {size}), at first initial_state({count})"
            )

    def _tensor(self, rows: ArrayLike | torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(rows, dtype=torch.float32, device=self.device)
