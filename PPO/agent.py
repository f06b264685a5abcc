"""PPO: the agent that acts and learns."""

import inspect
import warnings
from collections.abc import Sequence
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import ArrayLike

from parallel_rl.networks import Adam, CoreName
from parallel_rl.utils import (
    COMPOSITE,
    Schedule,
    choices_of,
    compute_threads,
    element_of,
    join_parts,
    scheduled,
    torch_threads,
)
from PPO.actor_critic import ActorCritic, MakeEncoder
from PPO.arguments import arguments_for, check_ranges, space_of_actions
from PPO.exploration import ROLLOUT, Exploration
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
FIXED = frozenset({
    "is_continuous", "observ_dim", "action_dim", "action_scaling", "action_offset", "observation_space", "action_space",
    "actor_critic", "network", "use_RND", "intrinsic_gamma", "rnd_update_proportion", "rnd_warmup", "compile", "device",
    "seed",
})  # fmt: skip
"""Attributes that the networks were made by; a change would have no effect, or half of one."""
NormalizeAdvantage = Literal["minibatch", "batch", "returns", "none"]


class PPO(Savable):
    """Proximal Policy Optimisation (Schulman et al. 2017, arXiv:1707.06347).

    It acts (`get_action`), is handed experience (`memory`) and learns from it (`learn`). It touches no environment and
    no global random state.
    """

    def __init__(
        self,
        is_continuous: bool,
        observ_dim: int,
        action_dim: int,
        action_scaling: float | Sequence[float] | np.ndarray | None = None,
        lr: float | Schedule = 0.001,
        k_epochs: int = 7,
        policy_clip: float | Schedule = 0.2,
        GAE_lambda: float = 0.95,
        gamma: float = 0.995,
        batch_size: int = 1024,
        mini_batch_size: int = 64,
        use_RND: bool = False,
        beta: float = 0.001,
        *,
        action_offset: float | Sequence[float] | np.ndarray = 0.0,
        observation_space: spaces.Space | None = None,
        action_space: spaces.Space | None = None,
        squash_actions: bool = True,
        share_encoder: bool | None = None,
        encoder: MakeEncoder | None = None,
        actor_critic: type[ActorCritic] = ActorCritic,
        core: CoreName = "none",
        core_size: int = 64,
        hidden_sizes: Sequence[int] = (64, 64),
        activation: str = "tanh",
        log_std: float = 0.0,
        use_sde: bool = False,
        sde_sample_freq: int = ROLLOUT,
        normalize_obs: bool = False,
        normalize_advantage: NormalizeAdvantage = "minibatch",
        recompute_advantage: bool = False,
        entropy_coef: float = 0.0,
        value_coef: float = 0.5,
        value_clip: float | None = None,
        max_grad_norm: float = 0.5,
        target_kl: float | None = None,
        anneal_lr: bool = False,
        anneal_clip: bool = False,
        anneal_entropy: bool = False,
        intrinsic_gamma: float = 0.99,
        rnd_update_proportion: float = 0.25,
        rnd_warmup: int = 1000,
        learner: Literal["auto", "torch"] = "auto",
        compile: bool = False,
        bf16: bool = False,
        device: str | torch.device = "cpu",
        seed: int | None = None,
    ) -> None:
        """Make the agent.

        Args:
            is_continuous: whether actions are continuous (a Gaussian) or a choice.
            observ_dim: features of a (flattened) observation.
            action_dim: dimensions of a continuous action, or the number of discrete ones (of all dimensions together).
            action_scaling: continuous actions lie within `action_offset +- action_scaling`; a number or one for each
                dimension; None means 1.
            lr: Adam's step size (its eps is 1e-5); or a function of how much of the run remains, from 1 to 0.
            k_epochs: passes over each batch.
            policy_clip: how far the probability ratio may move (0.2: by 20%) before the gradient stops; or a function,
                as `lr`.
            GAE_lambda: 0 for one-step advantages (bias), 1 for Monte-Carlo ones (variance).
            gamma: discount of the reward.
            batch_size: transitions that `learn` waits for; it then learns from all there are.
            mini_batch_size: transitions in each gradient step, at most: a batch is cut into equal parts.
            use_RND: whether to add an intrinsic reward by Random Network Distillation.
            beta: factor of the intrinsic advantage, beside 1 for the extrinsic one.
            action_offset: middle of the bounds of continuous actions, a number or one for each dimension; or the first
                of discrete actions.
            observation_space: what `observ_dim` cannot say: see `ActorCritic`. `for_env` fills it in.
            action_space: what the other arguments cannot say of actions; then it counts. `for_env` fills it in.
            squash_actions: whether bounded continuous actions are squashed into their bounds by tanh; otherwise they
                are cut off there.
            share_encoder: whether actor and critic have one encoder together; None: with images or a core.
            encoder: makes each encoder in place of the usual ones: called with the `utils.Features` of observations, it
                returns a module from `(B, columns)` to `(B, F)`.
            actor_critic: a subclass of `ActorCritic` in place of it, for other networks as a whole.
            core: `gru` or `lstm` for a policy that remembers what it saw in an episode.
            core_size: how many numbers the core gives on.
            hidden_sizes: of the actor's encoder, and of the critic's; of the layers that follow a convolution.
            activation: `tanh`, `relu` or `silu`.
            log_std: initial log standard deviation of continuous actions, before squashing and scaling; with `use_sde`
                that of each feature's share.
            use_sde: whether continuous actions explore by noise that is a function of the state (gSDE), and the same
                one for a while.
            sde_sample_freq: for how many steps of an environment; -1: until the next update.
            normalize_obs: whether to standardise observations by running statistics, clipped to +-10; not images.
            normalize_advantage: whether to standardise advantages in each minibatch, or in the whole batch; or to
                divide them by the running deviation of returns, which is what normalised rewards come to.
            recompute_advantage: whether each epoch takes the advantages and targets that the critic gives by then, and
                not those of before the update.
            entropy_coef: factor of the entropy bonus.
            value_coef: factor of the value loss (on standardised returns).
            value_clip: how far a standardised value may move in one batch; None for as far as it likes.
            max_grad_norm: limit on the norm of the policy's gradient.
            target_kl: ends an update when the policy has moved further than 1.5 times this; None for never.
            anneal_lr: whether `lr` goes to 0 linearly over the run.
            anneal_clip: whether `policy_clip` goes to 0 linearly over the run.
            anneal_entropy: whether `entropy_coef` goes to 0 linearly over the run.
            intrinsic_gamma: discount of the intrinsic reward, whose return goes on over the ends of episodes.
            rnd_update_proportion: share of each minibatch that RND's predictor learns from.
            rnd_warmup: observations that RND has to have seen before its reward counts.
            learner: `torch` for gradients by autograd; `auto` for the analytic ones (PPO/fast/), which
                is several times faster, wherever the network is small and on the CPU.
            compile: whether `torch.compile` makes autograd's gradients: for long runs, since it takes seconds at first.
            bf16: whether the encoders compute in bfloat16, by torch: for images and large networks, where the processor
                has it.
            device: where the networks live.
            seed: of the initial weights, the actions and the minibatches; None takes fresh entropy.

        Raises:
            ValueError: a hyperparameter out of its range; the message names it.
            TypeError: a space that is not supported.
        """
        self.arguments = {name: value for name, value in locals().items() if name != "self"}
        check_ranges(
            positive={
                "observ_dim": observ_dim, "action_dim": action_dim, "k_epochs": k_epochs,
                "batch_size": batch_size, "mini_batch_size": mini_batch_size,
                "lr": scheduled("lr", lr, anneal_lr, 0.0),
                "policy_clip": scheduled("policy_clip", policy_clip, anneal_clip, 0.0),
                "core_size": core_size, "max_grad_norm": max_grad_norm, "value_clip": value_clip,
                "target_kl": target_kl, "sde_sample_freq": None if sde_sample_freq == ROLLOUT else sde_sample_freq,
                "the smallest of hidden_sizes": min(hidden_sizes, default=1), "exp(log_std)": _exp(log_std),
            },
            not_negative={
                "beta": beta, "entropy_coef": entropy_coef, "value_coef": value_coef, "rnd_warmup": rnd_warmup,
                "seed": seed,
            },
            fractions={
                "GAE_lambda": GAE_lambda, "gamma": gamma, "intrinsic_gamma": intrinsic_gamma,
                "rnd_update_proportion": rnd_update_proportion,
            },
        )  # fmt: skip
        if normalize_advantage not in (known := get_args(NormalizeAdvantage)):
            raise ValueError(f"normalize_advantage must be one of {', '.join(known)}, not {normalize_advantage!r}")
        if seed is not None and seed >= 2**63:
            raise ValueError(f"seed must be below 2**63, not {seed}")
        if learner not in ("auto", "torch"):
            raise ValueError(f"learner must be 'auto' or 'torch', not {learner!r}")
        if mini_batch_size > batch_size:
            raise ValueError(f"mini_batch_size ({mini_batch_size}) is larger than batch_size ({batch_size})")
        self.is_continuous = is_continuous
        self.observ_dim = int(observ_dim)
        self.action_dim = int(action_dim)
        self.action_scaling = action_scaling
        self.lr = lr
        self.k_epochs = k_epochs
        self.policy_clip = policy_clip
        self.GAE_lambda = GAE_lambda
        self.gamma = gamma
        self.batch_size = batch_size
        self.mini_batch_size = mini_batch_size
        self.use_RND = use_RND
        self.beta = beta
        self.action_offset = action_offset
        self.observation_space = (
            spaces.Box(-np.inf, np.inf, (self.observ_dim,)) if observation_space is None else observation_space
        )
        self.action_space = (  # an empty Dict is a space too, though it is false
            space_of_actions(is_continuous, action_dim, action_scaling, action_offset)
            if action_space is None
            else action_space
        )
        self.network: dict[str, Any] = {
            "squash": squash_actions,
            "hidden_sizes": tuple(hidden_sizes),
            "activation": activation,
            "share_encoder": share_encoder,
            "encoder": encoder,
            "core": core,
            "core_size": core_size,
            "log_std": log_std,
            "use_sde": use_sde,
            "normalize_obs": normalize_obs,
            "bf16": bf16,
        }
        self.actor_critic = actor_critic
        self.normalize_advantage = normalize_advantage
        self.recompute_advantage = recompute_advantage
        self.entropy_coef = entropy_coef
        self.value_coef = value_coef
        self.value_clip = value_clip
        self.max_grad_norm = max_grad_norm
        self.target_kl = target_kl
        self.anneal_lr = anneal_lr
        self.anneal_clip = anneal_clip
        self.anneal_entropy = anneal_entropy
        self.intrinsic_gamma = intrinsic_gamma
        self.rnd_update_proportion = rnd_update_proportion
        self.rnd_warmup = rnd_warmup
        self.learner, self.compile = learner, compile
        self.device, self.seed = _device_of(device), seed

        self.exploration = Exploration(sde_sample_freq) if use_sde else None
        self.rng = np.random.default_rng(seed)
        self.memory = Memory()
        self.updates, self.rewarded = 0, False
        self._make_networks(torch.Generator().manual_seed(int(self.rng.integers(2**63)) if seed is None else seed))
        self._make_learner()

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; the next update goes by it.

        Raises:
            AttributeError: it is one of `FIXED`.
        """
        if name in FIXED and name in vars(self):
            raise AttributeError(f"{name} cannot be changed once the agent is made: make another with {name}=")
        super().__setattr__(name, value)

    def _make_networks(self, generator: torch.Generator) -> None:
        self.policy = self.actor_critic(
            self.observation_space,
            self.action_space,
            **self.network,
            values=2 if self.use_RND else 1,
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
        if self.use_RND:
            self.rnd = RND(
                self.observ_dim,
                gamma=self.intrinsic_gamma,
                update_proportion=self.rnd_update_proportion,
                warmup=self.rnd_warmup,
                generator=generator,
            ).to(self.device)

    def _make_learner(self) -> None:
        """Move the parameters into vectors, of which torch, Adam and the NumPy policy have views."""
        architecture = self.policy.architecture()
        parameters = self.policy.parameters() if architecture is None else self.policy.stacked_parameters()
        self.optimizers = [Adam(parameters)]
        if self.rnd is not None:
            self.optimizers.append(Adam(self.rnd.predictor.parameters()))
        self.loss = torch.compile(objective_loss) if self.compile else objective_loss
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
        return kept | {"moments": [optimizer.state for optimizer in self.optimizers]}

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
    def use_sde(self) -> bool:
        """Whether noise stays for a while, so that `act` wants to know which environments it is asked about."""
        return self.exploration is not None

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

    def initial_core(self, count: int) -> np.ndarray | None:
        """Return what is remembered of `count` new episodes, zeros `(count, S)`; None for a policy without a core."""
        return None if self.policy.core is None else np.zeros((count, self.policy.core.state_size), np.float32)

    def get_action(
        self,
        states: ArrayLike | torch.Tensor,
        *,
        deterministic: bool = False,
        core: np.ndarray | None = None,
        env_ids: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return an action for each state.

        Args:
            states: `(N, ...)`, or a single state; of a Dict or Tuple space a dict or tuple of such, or a structured
                array.
            deterministic: take the most probable action (continuous: the median) in place of a random one.
            core: `(N, S)`, what a policy with a core remembers of each; brought up to date in place. See
                `initial_core`; rows whose episode is over are to be set to zero.
            env_ids: `(N,)`, which environment each state is of, by default the first N: with `use_sde` each has its
                own noise, which stays for a while.

        Returns:
            A choice: int64 `(N,)`, several at once `(N, K)`; continuous: float32 `(N, action_dim)`, inside the bounds.
            Of a Dict or Tuple space: a structured array `(N,)`, with the parts under their names. Without the first
            dimension for a single state: what the environment's `step` takes, of a Dict space a dict.

        Raises:
            ValueError: states that do not have `observ_dim` features, or where no action is allowed; or no core.
        """
        return self.act(states, deterministic=deterministic, core=core, env_ids=env_ids)[0]

    def act(
        self,
        states: ArrayLike | torch.Tensor,
        *,
        deterministic: bool = False,
        core: np.ndarray | None = None,
        env_ids: np.ndarray | None = None,
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return the actions of `get_action` and, by name, what learning wants to know of how they came about.

        Returns:
            The actions, and `log_prob` float32 `(N,)`; for continuous actions also `draw` float32 `(N, action_dim)`,
            the point that was squashed (of a Dict or Tuple space the parts' draws, side by side); with a core `core`
            `(N, S)`, what it remembered before. Hand them to `utils.buffer_append` as keywords.
        """
        features = self.policy.features
        columns, single = features.rows(states.cpu().numpy() if torch.is_tensor(states) else states)
        columns = np.ascontiguousarray(columns)  # torch takes no array that runs backwards
        if features.mask is not None:
            allowed = columns[:, features.columns :] > 0
            if not np.logical_or.reduceat(allowed, self._first_choices, axis=1).all():
                raise ValueError("no action is allowed in some of the states")
        self._check_core(core, len(columns))
        noise = None if deterministic else self._noise_of(len(columns), env_ids)
        before = None if core is None else core.copy()
        if self.numpy_policy is None:
            action, raw_action, log_prob = self._act_by_torch(columns, noise, core)
        else:
            self._refresh_statistics(self.numpy_policy)
            action, raw_action, output = self.numpy_policy.sample(columns, noise)
            log_prob = self.numpy_policy.log_prob(raw_action, output)
        extras = {"log_prob": log_prob}
        if self.is_continuous or self._composite:
            extras["draw"] = raw_action
        if before is not None:
            extras["core"] = before
        action = action.reshape(len(action), *(self.action_space.shape or ()))
        if single:
            return element_of(self.action_space, action[0]), {name: value[0] for name, value in extras.items()}
        return action, extras

    @torch.no_grad()
    def _act_by_torch(
        self, columns: np.ndarray, noise: np.ndarray | None, core: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return actions, raw actions and log-probabilities; write the next recurrent state into `core`."""
        state = torch.empty(len(columns), 0, device=self.device) if core is None else self._tensor(core)
        obs = self.policy.standardise(torch.as_tensor(columns, device=self.device))
        with torch_threads(self.threads):
            policy, after = self.policy.step(obs, state)
            draw = policy.mode() if noise is None else policy.sample(self._tensor(noise))
            action, log_prob = self.policy.policy_head.to_action(draw), policy.log_prob(draw)
        if core is not None:
            core[:] = after.cpu().numpy()
        if self._composite:
            rows = join_parts(self.action_space, [part.cpu().numpy() for part in action])
        else:
            rows = action.cpu().numpy()
        return rows, draw.cpu().numpy(), log_prob.cpu().numpy()

    def replica(self) -> Replica | None:
        """Return this policy as something that acts in processes without torch; None where only it can act itself."""
        if self.numpy_policy is None or type(self).act is not PPO.act:
            return None
        return Replica(self.numpy_policy.architecture, self.mini_batch_size)

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

    def _check_core(self, core: np.ndarray | None, count: int) -> None:
        """Check that there is what is remembered of `count` environments, `(count, S)`, if anything is."""
        if core is None and self.policy.core is None:
            return
        if self.policy.core is None:
            raise ValueError("this policy remembers nothing: it was made without a core")
        size = self.policy.core.state_size
        if not isinstance(core, np.ndarray) or core.shape != (count, size):
            raise ValueError(
                f"this policy remembers: hand it a core of shape ({count}, {size}), at first initial_core({count})"
            )

    def _tensor(self, rows: ArrayLike | torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(rows, dtype=torch.float32, device=self.device)


def _exp(number: float) -> float:
    """Return the exponential, infinite where it is too large for a float."""
    with np.errstate(over="ignore"):
        return float(np.exp(number))


def _device_of(device: str | torch.device) -> torch.device:
    """Return the device of that name.

    Raises:
        ValueError: torch does not know it, or does not find it.
    """
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device must be one that torch knows, such as 'cpu' or 'cuda', not {device!r}") from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={device!r}, but torch finds no GPU")
    return found


PPO.defaults = settings_of(
    {
        name: parameter.default
        for name, parameter in inspect.signature(PPO.__init__).parameters.items()
        if parameter.default is not parameter.empty
    }
)
