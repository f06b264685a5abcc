"""PPO: the agent that acts and learns."""

import copy
import inspect
import warnings
from collections.abc import Sequence
from typing import Any, Self, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import ArrayLike
from torch import nn

from parallel_rl.networks import Adam
from parallel_rl.utils import (
    COMPOSITE,
    Configured,
    Schedule,
    Trajectory,
    choices_of,
    compute_threads,
    element_of,
    join_parts,
    make_config,
    settings_in,
    torch_threads,
)
from PPO.actor_critic import ActorCritic, MakeEncoder
from PPO.arguments import Scaling, arguments_for, check_arguments, spaces_of
from PPO.config import PPOConfig
from PPO.exploration import Exploration
from PPO.fast.policy import NumpyPolicy
from PPO.fast.replica import Replica
from PPO.fast.shards import GradientWorkers
from PPO.losses import objective_loss
from PPO.memory import Memory
from PPO.rnd import RND
from PPO.saving import Savable, clone
from PPO.settings import settings_of
from PPO.update import annealed, update

LARGE_NETWORK = 1_000_000
"""Parameters from which on torch's own calls cost little, and more than one thread pays."""
REWARDS_IN_RANGE = 1e-30, 1e30
"""Sizes of rewards that single precision has room for, their sums included."""
Module = TypeVar("Module", bound=nn.Module)


class PPO(Configured, Savable):
    """Proximal Policy Optimization (Schulman et al. 2017, arXiv:1707.06347).

    It acts (`get_action`), is handed experience (`memory`) and learns from it (`learn`). It touches no environment and
    no global random state. Its settings are attributes: `ppo.gamma` is `ppo.config.gamma`.
    """

    on_policy = True
    config: PPOConfig

    def __init__(  # noqa: D417
        self,
        is_continuous: bool,
        observ_dim: int,
        action_dim: int,
        action_scaling: Scaling | None = None,
        lr: float | Schedule = PPOConfig.lr,
        k_epochs: int = PPOConfig.k_epochs,
        policy_clip: float | Schedule = PPOConfig.policy_clip,
        GAE_lambda: float = PPOConfig.GAE_lambda,
        gamma: float = PPOConfig.gamma,
        batch_size: int = PPOConfig.batch_size,
        mini_batch_size: int = PPOConfig.mini_batch_size,
        use_RND: bool = PPOConfig.use_RND,
        beta: float = PPOConfig.beta,
        *,
        action_offset: Scaling = 0.0,
        observation_space: spaces.Space | None = None,
        action_space: spaces.Space | None = None,
        encoder: MakeEncoder | None = None,
        actor_critic: type[ActorCritic] = ActorCritic,
        seed: int | None = None,
        **settings: Any,
    ) -> None:
        """Make the agent.

        `lr` to `beta` and the further settings are the fields of `PPOConfig`; docs/ppo.md lists them.

        Args:
            is_continuous: whether actions are continuous (a Gaussian) or discrete.
            observ_dim: features of a (flattened) observation.
            action_dim: dimensions of a continuous action, or the number of discrete ones (of all dimensions together).
            action_scaling: continuous actions lie within `action_offset +- action_scaling`; a number or one for each
                dimension; None means 1.
            action_offset: middle of the bounds of continuous actions, a number or one for each dimension; or the first
                of discrete actions.
            observation_space: what `observ_dim` cannot say: see `ActorCritic`. `for_env` fills it in.
            action_space: what the other arguments cannot say of actions; then it counts. `for_env` fills it in.
            encoder: makes each encoder in place of the default ones: called with the `utils.Features` of observations,
                it returns a module from `(B, columns)` to `(B, F)`.
            actor_critic: a subclass of `ActorCritic` in place of it, for other networks as a whole.
            seed: of the initial weights, the actions and the minibatches; None takes fresh entropy.
            settings: further fields of `PPOConfig`, by name.

        Raises:
            ValueError: a hyperparameter out of its range; the message names it.
            TypeError: a space that is not supported, or an unknown argument; the message suggests the nearest one.
        """
        settings |= {
            "lr": lr, "k_epochs": k_epochs, "policy_clip": policy_clip, "GAE_lambda": GAE_lambda, "gamma": gamma,
            "batch_size": batch_size, "mini_batch_size": mini_batch_size, "use_RND": use_RND, "beta": beta,
        }  # fmt: skip
        self.config = make_config(PPOConfig, settings, beside=ARGUMENTS, by=type(self).__name__)
        check_arguments(observ_dim, action_dim, seed, self.config.device)
        self.is_continuous, self.observ_dim, self.action_dim = is_continuous, int(observ_dim), int(action_dim)
        self.action_scaling, self.action_offset = action_scaling, action_offset
        self.observation_space, self.action_space = spaces_of(
            is_continuous, self.observ_dim, action_dim, action_scaling, action_offset, observation_space, action_space
        )
        self.encoder, self.actor_critic, self.seed = encoder, actor_critic, seed

        self.exploration = Exploration(self.config.sde_sample_freq) if self.config.use_sde else None
        self.rng = np.random.default_rng(seed)
        self.memory = Memory()
        self.updates, self.rewarded = 0, False
        self._make_networks(torch.Generator().manual_seed(int(self.rng.integers(2**63)) if seed is None else seed))
        self._make_learner()

    @property
    def network(self) -> dict[str, Any]:
        """What `actor_critic` is made with, beside the spaces."""
        config = self.config
        return {
            "squash": config.squash_actions,
            "hidden_sizes": config.hidden_sizes,
            "activation": config.activation,
            "share_encoder": config.share_encoder,
            "encoder": self.encoder,
            "core": config.core,
            "core_size": config.core_size,
            "log_std": config.log_std,
            "use_sde": config.use_sde,
            "normalize_obs": config.normalize_obs,
            "bf16": config.bf16,
        }

    def _make_networks(self, generator: torch.Generator) -> None:
        self.policy = self.actor_critic(
            self.observation_space,
            self.action_space,
            **self.network,
            values=2 if self.config.use_RND else 1,
            generator=generator,
        ).to(self.device)
        columns = self.policy.features.columns
        if columns != self.observ_dim:
            raise ValueError(f"observ_dim={self.observ_dim}, but {self.observation_space} has {columns} features")
        if self.is_continuous != isinstance(self.action_space, spaces.Box):
            raise ValueError(f"is_continuous={self.is_continuous} does not go with {self.action_space}")
        self._composite = isinstance(self.action_space, COMPOSITE)
        if not self.is_continuous:
            self._first_choices = np.cumsum([0, *(count for count, _ in choices_of(self.action_space))])[:-1]
        self.rnd: RND | None = None
        if self.config.use_RND:
            self.rnd = RND(
                self.observ_dim,
                gamma=self.config.intrinsic_gamma,
                update_proportion=self.config.rnd_update_proportion,
                warmup=self.config.rnd_warmup,
                generator=generator,
            ).to(self.device)

    def _make_learner(self) -> None:
        """Move the parameters into vectors, of which torch, Adam and the NumPy policy have views."""
        architecture = self.policy.architecture()
        parameters = self.policy.parameters() if architecture is None else self.policy.stacked_parameters()
        self.optimizers = [Adam(parameters)]
        if self.rnd is not None:
            self.optimizers.append(Adam(self.rnd.predictor.parameters()))
        self.loss = torch.compile(objective_loss) if self.config.compile else objective_loss
        vector = self.optimizers[0].vector
        small = len(vector) < LARGE_NETWORK
        self.threads = 1 if small else None
        self.numpy_policy: NumpyPolicy | None = None
        if small and architecture is not None and vector.device.type == "cpu":
            statistics = np.zeros((2, architecture.normalized), np.float32)
            self.numpy_policy = NumpyPolicy(architecture, vector.numpy(), statistics)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the views of the parameters: a copy makes its own."""
        views = ("optimizers", "loss", "numpy_policy")
        kept = {name: value for name, value in vars(self).items() if name not in views}
        kept |= {"policy": _detached(self.policy), "rnd": None if self.rnd is None else _detached(self.rnd)}
        return kept | {"moments": [each.state if each.state["steps"] else {} for each in self.optimizers]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make the learner again, around the copied networks."""
        moments = state.pop("moments")
        vars(self).update(state)
        self._make_learner()
        for optimizer, own in zip(self.optimizers, moments, strict=True):
            optimizer.load_state(own)

    @classmethod
    def for_env(cls, env: Any, **hyperparameters: Any) -> Self:
        """Make an agent for an environment: its spaces say `is_continuous`, the dimensions and the bounds.

        Args:
            env: a Gymnasium environment or vector environment, an `EnvVectorizer`, or an environment's id.
            hyperparameters: of `PPO`.

        Raises:
            TypeError: a space that is not supported.
        """
        arguments = arguments_for(env, hyperparameters.get("action_scaling"))
        if arguments["is_continuous"] and not hyperparameters.keys().isdisjoint({"action_scaling", "action_offset"}):
            del arguments["action_space"]
        return cls(**(arguments | hyperparameters))

    @property
    def wants_env_ids(self) -> bool:
        """Whether `act` needs `env_ids`: with gSDE each environment keeps its noise for a while."""
        return self.use_sde

    def check_fits(self, env: Any) -> None:
        """Check that this agent was made for the spaces of an environment like that of `for_env`.

        Raises:
            TypeError: a space that is not supported.
            ValueError: it was made for another space.
        """
        expected = arguments_for(env)
        for name in ("is_continuous", "observ_dim", "action_dim"):
            if getattr(self, name) != expected[name]:
                raise ValueError(
                    f"the PPO was made with {name}={getattr(self, name)}, but {env} needs {expected[name]}"
                )
        if not self.policy.features.fit(expected["observation_space"]):
            raise ValueError(f"the PPO was made for other observations than those of {env}: {self.observation_space}")
        other = expected["action_space"]
        if self._composite or isinstance(other, COMPOSITE):
            fits = self.action_space == other
        else:
            fits = self.is_continuous or choices_of(self.action_space) == choices_of(other)
        if not fits:
            raise ValueError(f"the PPO was made for {self.action_space}, but {env} needs {other}")

    def initial_state(self, num_envs: int) -> np.ndarray | None:
        """Return the recurrent state at the start of an episode, zeros `(num_envs, S)`; None without a core."""
        return None if self.policy.core is None else np.zeros((num_envs, self.policy.core.state_size), np.float32)

    def get_action(
        self,
        states: ArrayLike | torch.Tensor,
        *,
        deterministic: bool = False,
        state: np.ndarray | None = None,
        env_ids: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return an action for each state.

        Args:
            states: `(N, ...)`, or a single state; of a Dict or Tuple space a dict or tuple of such, or a structured
                array.
            deterministic: take the most probable action (continuous: the median) in place of a random one.
            state: `(N, S)`, the recurrent state of each row, for a policy with a core; updated in place. It starts as
                `initial_state(N)`; set the rows of finished episodes to zero.
            env_ids: `(N,)`, which environment each state is of, by default the first N: with `use_sde` each has its
                own noise, which stays for a while.

        Returns:
            A choice: int64 `(N,)`, several at once `(N, K)`; continuous: float32 `(N, action_dim)`, inside the bounds.
            Of a Dict or Tuple space: a structured array `(N,)`, with the parts under their names. Without the first
            dimension for a single state: what the environment's `step` takes, of a Dict space a dict.

        Raises:
            ValueError: states without `observ_dim` features, or where no action is allowed; no recurrent state.
        """
        return self.act(states, deterministic=deterministic, state=state, env_ids=env_ids)[0]

    def act(
        self,
        states: ArrayLike | torch.Tensor,
        *,
        deterministic: bool = False,
        state: np.ndarray | None = None,
        env_ids: np.ndarray | None = None,
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return the actions of `get_action` and, by name, what learning wants to know of how they came about.

        Returns:
            The actions, and `log_prob` float32 `(N,)`. For continuous actions also `raw_action` float32
            `(N, action_dim)`, the action before tanh (of a Dict or Tuple space those of the parts, side by side); with
            a core `state` `(N, S)`, the recurrent state before. Hand them to `utils.buffer_append` as keywords.
        """
        features = self.policy.features
        columns, single = features.rows(states.cpu().numpy() if torch.is_tensor(states) else states)
        columns = np.ascontiguousarray(columns)  # torch takes no array that runs backwards
        if features.mask is not None:
            allowed = columns[:, features.columns :] > 0
            if not np.logical_or.reduceat(allowed, self._first_choices, axis=1).all():
                raise ValueError("no action is allowed in some of the states")
        self._check_state(state, len(columns))
        noise = None if deterministic else self._noise_of(len(columns), env_ids)
        before = None if state is None else state.copy()
        if self.numpy_policy is None:
            action, raw_action, log_prob = self._act_by_torch(columns, noise, state)
        else:
            self._refresh_statistics(self.numpy_policy)
            action, raw_action, output = self.numpy_policy.sample(columns, noise)
            log_prob = self.numpy_policy.log_prob(raw_action, output)
        extras = {"log_prob": log_prob}
        if self.is_continuous or self._composite:
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
        obs = self.policy.standardise(torch.as_tensor(columns, device=self.device))
        with torch_threads(self.threads):
            policy, after = self.policy.step(obs, before)
            draw = policy.mode() if noise is None else policy.sample(self._tensor(noise))
            action, log_prob = self.policy.policy_head.to_action(draw), policy.log_prob(draw)
        if state is not None:
            state[:] = after.cpu().numpy()
        if self._composite:
            rows = join_parts(self.action_space, [part.cpu().numpy() for part in action])
        else:
            rows = action.cpu().numpy()
        return rows, draw.cpu().numpy(), log_prob.cpu().numpy()

    def replica(self) -> Replica | None:
        """Return this policy as something that acts in processes without torch; None where only it can act itself."""
        if self.numpy_policy is None or type(self).act is not PPO.act:
            return None
        return Replica(self.numpy_policy.architecture, self.batch_size, self.mini_batch_size)

    def replica_weights(self) -> np.ndarray:
        """Return the present weights of `replica`, float32 `(P,)`."""
        assert self.numpy_policy is not None
        self._refresh_statistics(self.numpy_policy)
        return np.concatenate([self.numpy_policy.parameters, self.numpy_policy.statistics.ravel()])

    def _refresh_statistics(self, policy: NumpyPolicy) -> None:
        """Bring the NumPy policy's statistics of observations up to date, which torch keeps in float64."""
        if self.policy.obs_norm is not None:
            mean, std = policy.statistics
            mean[:], std[:] = self.policy.obs_norm.mean.numpy(), self.policy.obs_norm.std.numpy()

    def _noise_of(self, count: int, env_ids: np.ndarray | None) -> np.ndarray:
        """Return the noise `(count, A)` of one step of some environments."""
        if self.exploration is None:
            return self.noise(count)
        env_ids = np.arange(count) if env_ids is None else np.asarray(env_ids)
        if env_ids.shape != (count,) or len(np.unique(env_ids)) != count or min(env_ids, default=0) < 0:
            raise ValueError(f"env_ids must be {count} different indexes of environments, not {env_ids}")
        return self.exploration.noise(env_ids, self.noise)

    def noise(self, *shape: int) -> np.ndarray:
        """Return what chance adds to the actions for `shape` states: float32 `(*shape, A)`; waiting times above 0."""
        parts = [self._noise(kind, (*shape, columns)) for kind, columns in self.policy.policy_head.noises]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)

    def _noise(self, kind: str, shape: tuple[int, ...]) -> np.ndarray:
        if kind == "normal":
            return self.rng.standard_normal(shape, np.float32)
        clocks = self.rng.standard_exponential(shape, np.float32)
        return np.maximum(clocks, np.finfo(np.float32).tiny, out=clocks)

    def steps_wanted(self) -> int:
        """Return how many more transitions `learn` waits for."""
        return self.batch_size - len(self.memory)

    def observe(self, trajectories: Sequence[Trajectory]) -> None:
        """Append trajectories to `memory`."""
        for trajectory in trajectories:
            self.memory.append(trajectory)

    def update(self, progress: float = 0.0, workers: GradientWorkers | None = None) -> dict[str, float]:
        """Do what `learn` does: the name that every agent has."""
        return self.learn(progress, workers)

    def actor(self) -> Self:
        """Return a copy that acts as this agent does now, without `memory` and the moments of Adam."""
        parts = self.__getstate__() | {"memory": Memory(), "moments": [{} for _ in self.optimizers]}
        acting = object.__new__(type(self))
        acting.__setstate__(copy.deepcopy(parts))
        return acting

    def learn(self, progress: float = 0.0, workers: GradientWorkers | None = None) -> dict[str, float]:
        """Learn from everything in `memory` and clear it, once `batch_size` transitions are there: one `update`.

        Args:
            progress: how much of the run is over, 0 to 1: what the annealing goes by.
            workers: processes that compute gradients together with this one; the result is the same.

        Returns:
            Means over the update of `policy_loss`, `value_loss`, `approx_kl`, `clip_fraction`, `grad_norm` and, with
            RND, `rnd_loss`; `entropy` before it, estimated by the mean of -log p of the actions;
            `explained_variance`, `lr`, `clip` and, with RND, `intrinsic_reward`. Nothing when there was too little to
            learn from.

        Raises:
            ValueError: a function of the run (`lr`) gave what cannot be; nothing is learnt then.
            FloatingPointError: a loss became infinite or NaN; the message says in which update, and what else did. The
                networks are as they were before, and Adam starts anew.
        """
        if len(self.memory) < self.batch_size:
            return {}
        lr, objective = annealed(self, progress)
        batch = self.memory.batch()
        self.memory.clear()
        self._check_rewards(batch.reward)
        before = [(module, clone(module.state_dict())) for module, _ in self.modules()]
        with compute_threads(self.threads):
            metrics = update(self, batch, lr, objective, workers)
        infinite = [name for name, value in metrics.items() if not np.isfinite(value)]
        if infinite:
            tensors = {"observations": torch.from_numpy(self.policy.features.flatten(batch.obs))}
            for module, _ in self.modules():
                tensors |= module.state_dict()
            where = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
            for module, weights in before:
                module.load_state_dict(weights)
            self._make_learner()
            raise FloatingPointError(
                f"{', '.join(infinite)} became infinite or NaN in update {self.updates + 1} (then also "
                f"{', '.join(where) or 'no weight'}): try a smaller lr"
            )
        self.updates += 1
        self.rewarded = self.rewarded or bool(batch.reward.any())
        if self.exploration is not None:
            self.exploration.forget()
        return metrics | {"lr": lr, "clip": objective.clip}

    def _check_rewards(self, reward: np.ndarray) -> None:
        size = float(np.abs(reward).max())
        smallest, largest = REWARDS_IN_RANGE
        if size and not smallest <= size <= largest:
            warnings.warn(
                f"rewards of {size:g} are beyond single precision: scale them to between {smallest:g} and {largest:g}",
                stacklevel=3,
            )

    def _check_state(self, state: np.ndarray | None, count: int) -> None:
        """Check that there is a recurrent state `(count, S)` if this policy has one, and otherwise none."""
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


def _detached(module: Module) -> Module:
    """Return a copy whose parameters are no longer views of one vector: a pickle would hold all of it for each."""
    module = copy.deepcopy(module)
    for parameter in module.parameters():
        parameter.data = parameter.data.clone()
    return module


ARGUMENTS = frozenset(inspect.signature(PPO.__init__).parameters) - settings_in(PPOConfig).keys() - {"self", "settings"}
"""What `PPO` takes beside the fields of its config: about the environment's spaces, the networks and the seed."""
PPO.arguments = ARGUMENTS
PPO.defaults = settings_of(
    {
        name: parameter.default
        for name, parameter in inspect.signature(PPO.__init__).parameters.items()
        if name in ARGUMENTS and parameter.default is not parameter.empty
    }
    | vars(PPOConfig())
)
