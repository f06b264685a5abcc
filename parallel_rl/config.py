"""Everything that can be chosen about a training run: `TrainConfig` is the command line and the record of a run."""

from dataclasses import dataclass, fields
from typing import Any, Literal

PPO_NAMES = {"gae_lambda": "GAE_lambda", "use_rnd": "use_RND"}
"""Where `PPO` spells a setting differently."""


@dataclass(frozen=True)
class RunConfig:
    """What to train on, for how long, and where the results go."""

    env_id: str = "CartPole-v1"
    """Which environment; known ones bring a preset of the settings below (presets.py)."""
    env_kwargs: tuple[str, ...] = ()
    """Arguments of the environment, NAME=VALUE: --env-kwargs is_slippery=False map_name=8x8."""
    wrapper: tuple[str, ...] = ()
    """Wrappers around it, MODULE:CLASS, the innermost first: --wrapper minigrid.wrappers:ImgObsWrapper."""
    action_masks: bool = False
    """Choose among allowed actions: as the environment's action_masks() or its info's action_mask says."""
    num_envs: int = 32
    """How many copies of it play at once."""
    steps: int = 100_000
    """Environment steps, over all copies together."""
    seed: int = 0
    """Of the weights, the actions and the environments."""
    mode: Literal["streaming", "mask"] = "streaming"
    """Learn as soon as there is a batch, or when every copy has finished its episode."""
    acting: Literal["auto", "central", "alternating", "replicas"] = "auto"
    """Ask the agent at every step (alternating: about one half of the copies while the other half steps), or let copies
    of the policy play beside the environments; auto: the last where possible, otherwise the first."""
    backend: Literal["auto", "inline", "process", "vector"] = "auto"
    """Step the copies in this process or in workers, auto measures which is faster; or take an environment's vectorized
    form (EnvPool's where it is installed)."""
    num_workers: int | None = None
    """Processes that step, this one among them; by default one per core."""
    on_env_error: Literal["raise", "restart"] = "raise"
    """What to do about an environment that fails or whose process dies: end the run, or start it anew."""
    step_timeout: float | None = None
    """Seconds that a step or reset of an environment may take; by default for ever."""
    start_method: Literal["auto", "fork", "spawn", "forkserver"] = "auto"
    """How workers start: auto forks them, where the system can and what runs in this process survives it."""
    close_timeout: float = 5.0
    """Seconds that workers may take to close their environments before they are killed."""
    run_dir: str | None = None
    """Where results go; by default runs/ENV_ID/DATE_TIME."""
    load_weights: str | None = None
    """A run directory to continue from, with its settings; or any directory of weights."""
    eval_episodes: int = 100
    """Deterministic episodes to play at the end."""
    eval_envs: int | None = None
    """How many environments an evaluation steps at once; by default at most num_envs."""
    eval_every: int | None = None
    """Environment steps between evaluations beside the training, of which the best is kept; by default a tenth of the
    run, 0 for none."""
    checkpoint_seconds: float = 60.0
    """How much of the training may be lost at most if the process is killed."""
    keep_checkpoints: int = 3
    """How many of the newest checkpoints stay."""
    info_keys: tuple[str, ...] = ()
    """Numbers in the last info of an episode whose mean is to be shown: --info-keys distance; is_success is anyway."""
    max_seconds: float | None = None
    """End the run after so many seconds of training."""
    target_return: float | None = None
    """End the run when the last 100 episodes, or an evaluation, reach this mean return."""


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """Train PPO on a Gymnasium environment.

    Other commands, each with its own --help: resume, evaluate, record, watch, plot, export, envs.
    """

    lr: float = 0.001
    """Adam's step size."""
    k_epochs: int = 10
    """Passes over each batch."""
    policy_clip: float = 0.2
    """How far the probability ratio may move before the gradient stops."""
    gae_lambda: float = 0.95
    """0 for one-step advantages (bias), 1 for Monte-Carlo ones (variance)."""
    gamma: float = 0.99
    """Discount of the reward."""
    batch_size: int = 1024
    """Transitions in each update."""
    mini_batch_size: int = 256
    """Transitions in each gradient step."""
    use_rnd: bool = False
    """Add an intrinsic reward for new observations (Random Network Distillation)."""
    beta: float = 0.001
    """Factor of the intrinsic advantage, beside 1 for the extrinsic one."""
    squash_actions: bool = True
    """Squash bounded continuous actions into their bounds by tanh; otherwise they are cut off there."""
    share_encoder: bool | None = None
    """One network for actor and critic up to their heads; by default where there are images."""
    core: Literal["none", "gru", "lstm"] = "none"
    """A policy that remembers what it saw in an episode."""
    core_size: int = 64
    """How many numbers the core gives on."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Of the actor's network, and of the critic's."""
    activation: Literal["tanh", "relu", "silu"] = "tanh"
    """Of both networks."""
    log_std: float = 0.0
    """Initial log standard deviation of continuous actions, before squashing and scaling."""
    use_sde: bool = False
    """Explore continuous actions by noise that is a function of the state and stays for a while (gSDE)."""
    sde_sample_freq: int = -1
    """For how many steps of an environment; -1: until the next update."""
    normalize_obs: bool = False
    """Standardise observations by their running statistics."""
    normalize_advantage: Literal["minibatch", "batch", "returns", "none"] = "minibatch"
    """Standardise advantages in each minibatch or in the whole batch, or divide them by the deviation of returns."""
    recompute_advantage: bool = False
    """Take the advantages that the critic gives by then in each epoch."""
    entropy_coef: float = 0.0
    """Factor of the entropy bonus."""
    value_coef: float = 0.5
    """Factor of the value loss."""
    value_clip: float | None = None
    """How far a standardised value may move in one batch."""
    max_grad_norm: float = 0.5
    """Limit on the norm of the policy's gradient."""
    target_kl: float | None = None
    """End an update when the policy has moved further than 1.5 times this."""
    anneal_lr: bool = False
    """Bring the step size down to 0 over the run."""
    anneal_clip: bool = False
    """Bring the clip down to 0 over the run."""
    anneal_entropy: bool = False
    """Bring the entropy bonus down to 0 over the run."""
    intrinsic_gamma: float = 0.99
    """Discount of the intrinsic reward."""
    rnd_update_proportion: float = 0.25
    """Share of each minibatch that RND's predictor learns from."""
    rnd_warmup: int = 1000
    """Observations that RND has to have seen before its reward counts."""
    learner: Literal["auto", "torch"] = "auto"
    """Gradients by autograd (torch), or analytic ones where there are any (auto: the same, several times faster)."""
    compile: bool = False
    """Compile autograd's gradients, for long runs with learner=torch or large networks: it takes seconds at first."""
    bf16: bool = False
    """Compute the encoders in bfloat16, by torch: for images and large networks, where the processor has it."""
    device: str = "cpu"
    """Where the networks live: cpu, cuda, ..."""

    def loop(self) -> dict[str, Any]:
        """Return the settings of `AsyncPPO` that have the same names here."""
        return self.stepping() | {name: getattr(self, name) for name in ("mode", "acting", "seed", "info_keys")}

    def stepping(self) -> dict[str, Any]:
        """Return those that `evaluate` has as well."""
        names = ("backend", "num_workers", "on_env_error", "step_timeout", "start_method", "close_timeout")
        return {name: getattr(self, name) for name in names}

    def evaluating(self) -> dict[str, Any]:
        """Return the settings of `evaluate` for a run's evaluations."""
        return self.stepping() | {"num_envs": self.eval_envs or self.num_envs, "info_keys": self.info_keys}

    def ppo(self) -> dict[str, Any]:
        """Return the settings of `PPO`, by its names for them."""
        run = {field.name for field in fields(RunConfig)} - {"seed"}
        return {PPO_NAMES.get(name, name): value for name, value in vars(self).items() if name not in run}


@dataclass(frozen=True)
class CommandLine(TrainConfig):
    """Train PPO on a Gymnasium environment.

    Other commands, each with its own --help: resume, evaluate, record, watch, plot, export, envs.
    """

    trust_env_module: bool = False
    """Import the module that the run in --load-weights names; one in --env-id needs no leave."""

    def config(self) -> TrainConfig:
        """Return what a run records: not whom it trusted."""
        return TrainConfig(**{field.name: getattr(self, field.name) for field in fields(TrainConfig)})
