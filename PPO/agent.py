"""PPO: the agent that acts and learns."""

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from gymnasium import spaces

from parallel_rl.networks import found_device
from parallel_rl.utils import (
    ALONE,
    MadeWith,
    Metrics,
    RankError,
    Ranks,
    Schedule,
    Trajectory,
    counted,
    make_config,
    settings_in,
)
from parallel_rl.utils.names import takes_no_environment
from parallel_rl.utils.settings import checked_seed
from PPO.acting import Acting
from PPO.actor_critic import ActorCritic, MakeEncoder
from PPO.companions import Companion, check_companions
from PPO.config import PPOConfig
from PPO.exploration import Exploration
from PPO.fast.shards import GradientWorkers
from PPO.icm import ICM
from PPO.learning import Learning
from PPO.memory import Memory
from PPO.rnd import RND
from PPO.spaces import (
    BOUNDS,
    ForEnv,
    Scaling,
    allows_actions,
    arguments_for,
    rebounded,
    spaces_of,
    unit_of,
)

BETAS = {"beta": "RND", "icm_beta": "ICM"}
"""The settings that are the `beta` of a companion, each with the name of that companion."""


class PPO(Acting, Learning):
    """Proximal Policy Optimization (Schulman et al. 2017, arXiv:1707.06347).

    It acts (`get_action`), stores experience (`memory`) and learns from it (`learn`). It touches no environment and no
    global random state. Its settings are attributes: `ppo.gamma` is `ppo.config.gamma`. Only `ppo.beta` and
    `ppo.icm_beta` are those of the companions RND and ICM, which may be objects with their own.

    `lr` to `beta` and the further settings are the fields of `PPOConfig`, which `help(PPOConfig)` explains.

    Args:
        is_continuous: whether actions are continuous (a Gaussian) or discrete.
        observ_dim: the number of features of a (flattened) observation.
        action_dim: for continuous actions the number of dimensions; for discrete ones the number of choices, summed
            over the dimensions.
        action_scaling: continuous actions lie within `action_offset +- action_scaling`. A number, or one for each
            dimension; None means 1. Actions of an `action_space` with an infinite bound have it as their unit.
        action_offset: the middle of the bounds of continuous actions, a number or one for each dimension; or the
            first discrete action.
        observation_space: by default a Box of `observ_dim` numbers. `for_env` sets it.
        action_space: for spaces that the arguments above cannot describe; they do not change its bounds. `for_env` sets
            it.
        encoder: makes each encoder, in place of the default one. It is called with the `utils.Features` of
            observations, and returns a module from `(B, columns)` to `(B, F)`.
        actor_critic: a subclass of `ActorCritic`, to replace whole networks.
        seed: of the initial weights, the actions and the minibatches; None takes fresh entropy.
        settings: further fields of `PPOConfig`, by name.

    Raises:
        ValueError: a hyperparameter is out of its range; the message names it.
        TypeError: a space is not supported, or an argument is unknown; the message suggests the nearest one.
    """

    on_policy = True
    config: PPOConfig  # declared once more: for `Configured` this makes it an agent, and not a subclass of a user

    # users of the first version rely on the names and positions of these arguments; `settings` takes the others
    @takes_no_environment
    def __init__(
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
        settings |= {
            "lr": lr, "k_epochs": k_epochs, "policy_clip": policy_clip, "GAE_lambda": GAE_lambda, "gamma": gamma,
            "batch_size": batch_size, "mini_batch_size": mini_batch_size, "use_RND": use_RND, "beta": beta,
        }  # fmt: skip
        config = make_config(PPOConfig, settings, others=self.arguments, by=type(self).__name__)
        self.config = replace(config, device=found_device(config.device))
        observ_dim, action_dim = counted("observ_dim", observ_dim), counted("action_dim", action_dim)
        self.is_continuous, self.observ_dim, self.action_dim = is_continuous, observ_dim, action_dim
        self.action_scaling, self.action_offset = action_scaling, action_offset
        self.observation_space, self.action_space = spaces_of(
            is_continuous, observ_dim, action_dim, action_scaling, action_offset, observation_space, action_space
        )
        self.encoder, self.actor_critic, self.seed = encoder, actor_critic, checked_seed(seed)
        self.rng, self.memory, self.updates, self.rewarded = np.random.default_rng(self.seed), Memory(), 0, False
        self._make_networks()
        self._make_optimizers()

    arguments = frozenset(inspect.signature(__init__).parameters) - settings_in(PPOConfig).keys() - {"self", "settings"}
    """The arguments that are not in the config: spaces, networks and seed."""

    def _make_networks(self) -> None:
        """Make the policy and the companions, with initial weights from one random stream, in this order."""
        config, companions = self.config, self._wanted_companions()
        fresh = int(self.rng.integers(2**63)) if self.seed is None else self.seed
        generator = torch.Generator().manual_seed(fresh)
        self.policy = self.actor_critic(
            self.observation_space,
            self.action_space,
            squash=config.squash_actions,
            hidden_sizes=config.hidden_sizes,
            activation=config.activation,
            share_encoder=config.share_encoder,
            encoder=self.encoder,
            core=config.core,
            core_size=config.core_size,
            log_std=config.log_std,
            action_unit=unit_of(self.action_space, self.action_scaling),
            use_sde=config.use_sde,
            normalize_obs=config.normalize_obs,
            bf16=config.bf16,
            values=1 + sum(companion.beta is not None for companion in companions),
            generator=generator,
        ).to(self.device)
        self._check_spaces()
        self.exploration = None
        if config.use_sde:
            self.exploration = Exploration(config.sde_sample_freq, self.policy.policy_head.noise_size)
        for companion in companions:
            companion.build(self.policy.features, self.action_space, generator)
        self._companions = tuple(companion.to(self.device) for companion in companions)

    def _check_spaces(self) -> None:
        """Check `observ_dim` and `is_continuous` against the spaces; raise a `ValueError` if they do not agree."""
        columns = self.policy.features.columns
        if columns != self.observ_dim:
            raise ValueError(f"observ_dim={self.observ_dim}, but {self.observation_space} has {columns} features")
        if self.is_continuous != isinstance(self.action_space, spaces.Box):
            raise ValueError(f"is_continuous={self.is_continuous} does not go with {self.action_space}")

    def _wanted_companions(self) -> list[Companion]:
        """Return the companions of the config, copied and not yet built."""
        config, wanted = self.config, list(self.config.companions)
        if config.use_RND and "rnd" not in wanted:
            wanted.insert(0, "rnd")
        named: dict[Any, Callable[[], Companion]] = {
            "rnd": lambda: RND(config.beta, config.intrinsic_gamma, config.rnd_update_proportion, config.rnd_warmup),
            "icm": lambda: ICM(config.icm_beta, config.intrinsic_gamma, config.icm_forward_share),
        }
        companions = [named[kind]() if isinstance(kind, str) else copy.deepcopy(kind) for kind in wanted]
        check_companions(companions)
        return companions

    @property
    def rnd(self) -> RND | None:
        """The first RND among the companions, if there is one."""
        return next((companion for companion in self.companions if isinstance(companion, RND)), None)

    if not TYPE_CHECKING:  # as in `Configured`

        def __getattr__(self, name: str) -> Any:
            """Return the setting of that name; for one in `BETAS`, the `beta` of its companion, maybe an object."""
            companion = self._companion_with(name)
            return super().__getattr__(name) if companion is None else companion.beta

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; a setting in `BETAS` also changes its companion."""
        super().__setattr__(name, value)
        companion = self._companion_with(name)
        if companion is not None:
            companion.beta = value

    def _companion_with(self, setting: str) -> Companion | None:
        """Return the companion whose `beta` a setting is, if there is one."""
        companions = vars(self).get("_companions", ()) if setting in BETAS else ()
        named = (one for one in companions if one.name == BETAS[setting] and one.beta is not None)
        return next(named, None)

    @MadeWith(ForEnv)
    def for_env(cls: Any, env: Any, **hyperparameters: Any) -> Any:
        """Make an agent for an environment, whose spaces determine the first four arguments.

        Args:
            env: a Gymnasium environment or vector environment, an `EnvVectorizer`, a callable or function of `num_envs`
                that makes one, or an environment's id.
            hyperparameters: further arguments of `PPO`.

        Raises:
            TypeError: a space is not supported.
            ValueError: an argument is out of its range.
        """
        given = {name: value for name, value in hyperparameters.items() if name not in BOUNDS or value is not None}
        arguments = arguments_for(env, given.get("action_scaling"))
        if arguments["is_continuous"] and not given.keys().isdisjoint(BOUNDS):
            arguments["action_space"] = rebounded(arguments["action_space"], arguments, given)
        return cls(**(arguments | given))

    def check_fits(self, env: Any) -> None:
        """Check that this agent was made for the spaces of an environment; `env` is as for `for_env`.

        Raises:
            TypeError: a space is not supported.
            ValueError: it was made for other observations, or the environment does not allow all of its actions.
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
        if not allows_actions(other, self.action_space):
            raise ValueError(f"the PPO was made for {self.action_space}, but {env} needs {other}")

    def steps_wanted(self) -> int:
        """Return the number of transitions that `learn` still waits for."""
        return self.batch_size - len(self.memory)

    def observe(self, trajectories: Sequence[Trajectory], ranks: Ranks = ALONE) -> None:
        """Append trajectories to `memory`; `update` merges the statistics of the ranks."""
        for trajectory in trajectories:
            self.memory.append(trajectory)

    def update(self, progress: float = 0.0, workers: GradientWorkers | None = None, ranks: Ranks = ALONE) -> Metrics:
        """Call `learn`; this is its name in the `Agent` protocol. If a rank is lost, `memory` is cleared."""
        try:
            return self.learn(progress, workers, ranks)
        except RankError:
            self.memory.clear()
            raise

    def actor(self) -> Self:
        """Return a copy of the current policy, without the content of `memory` and Adam's moments."""
        parts = self.__getstate__() | {"memory": Memory(), "moments": [{} for _ in self.optimizers]}
        acting = object.__new__(type(self))
        acting.__setstate__(copy.deepcopy(parts))
        return acting

    def behavior(self) -> Self:
        """Return an `actor` with its own random stream, so that it can act in a thread during `update`."""
        acting = self.actor()
        acting.rng = np.random.default_rng(self.rng.integers(2**63, size=4))
        return acting
