"""PPO: the agent that acts and learns."""

import copy
import inspect
import warnings
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from gymnasium import spaces

from parallel_rl.networks import Adam
from parallel_rl.utils import (
    COMPOSITE,
    Configured,
    Schedule,
    Trajectory,
    choices_of,
    compute_threads,
    make_config,
    settings_in,
)
from PPO.acting import Acting
from PPO.actor_critic import ActorCritic, MakeEncoder
from PPO.arguments import Scaling, arguments_for, check_arguments, spaces_of
from PPO.config import PPOConfig
from PPO.exploration import Exploration
from PPO.fast.policy import NumpyPolicy
from PPO.fast.shards import GradientWorkers
from PPO.losses import objective_loss
from PPO.memory import Memory
from PPO.rnd import RND
from PPO.saving import Savable, clone
from PPO.settings import settings_of
from PPO.update import annealed, update

LARGE_NETWORK = 1_000_000
"""Parameters from which on the overhead of torch is small, and several threads are worth it."""
REWARDS_IN_RANGE = 1e-30, 1e30
"""Magnitudes of rewards that, like their sums, fit in single precision."""


class PPO(Configured, Acting, Savable):
    """Proximal Policy Optimization (Schulman et al. 2017, arXiv:1707.06347).

    It acts (`get_action`), takes experience (`memory`) and learns from it (`learn`). It touches no environment and no
    global random state. Its settings are attributes: `ppo.gamma` is `ppo.config.gamma`.
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
            observation_space: by default a Box of `observ_dim` numbers. `for_env` fills it in.
            action_space: in place of the arguments above, which cannot describe every space. `for_env` fills it in.
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
        self.memory, self.updates, self.rewarded = Memory(), 0, False
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
        """Return the attributes without views of the parameters: a copy makes its own."""
        views = ("optimizers", "loss", "numpy_policy")
        kept = {name: value for name, value in vars(self).items() if name not in views}
        for name in ("policy", "rnd"):  # no longer views: a pickle would hold the whole vector for each parameter
            kept[name] = copy.deepcopy(kept[name])
        return kept | {"moments": [each.state if each.state["steps"] else {} for each in self.optimizers]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the attributes, and make the views again."""
        moments = state.pop("moments")
        vars(self).update(state)
        self._make_learner()
        for optimizer, own in zip(self.optimizers, moments, strict=True):
            optimizer.load_state(own)

    @classmethod
    def for_env(cls, env: Any, **hyperparameters: Any) -> Self:
        """Make an agent for the spaces of an environment, which determine the first four arguments.

        Args:
            env: a Gymnasium environment or vector environment, an `EnvVectorizer`, or an environment's id.
            hyperparameters: further arguments of `PPO`.

        Raises:
            TypeError: a space that is not supported.
        """
        arguments = arguments_for(env, hyperparameters.get("action_scaling"))
        if arguments["is_continuous"] and not hyperparameters.keys().isdisjoint({"action_scaling", "action_offset"}):
            del arguments["action_space"]
        return cls(**(arguments | hyperparameters))

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
        """Learn from all of `memory` and clear it, once it holds `batch_size` transitions.

        Args:
            progress: how much of the run is over, from 0 to 1, for annealing.
            workers: processes that compute gradients together with this one; the result is the same.

        Returns:
            Means over the update of `policy_loss`, `value_loss`, `approx_kl`, `clip_fraction`, `grad_norm` and, with
            RND, `rnd_loss`; `entropy` before it, estimated as the mean of -log p of the actions;
            `explained_variance`, `lr`, `clip` and, with RND, `intrinsic_reward`. Nothing if there are too few
            transitions.

        Raises:
            ValueError: a schedule (`lr`) returned an invalid value; nothing is learned then.
            FloatingPointError: a loss became infinite or NaN; the message names the update, and what else did. The
                networks are restored, and Adam is reset.
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
