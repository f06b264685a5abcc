"""PPOConfig: the hyperparameters of PPO, each declared once. It needs no torch, so that --help is fast."""

from typing import Literal, get_args

from gymnasium import spaces

from parallel_rl.utils import Config, Features, Schedule, SettingValues, check_annealed, leaves, setting, settings_class
from parallel_rl.utils.settings import WIDEST

CompanionName = Literal["rnd", "icm"]
ROLLOUT = -1
"""The value of `sde_sample_freq` for new noise only after each update."""
DEFAULTS: SettingValues = {"k_epochs": 10, "gamma": 0.99, "mini_batch_size": 256}
"""The defaults of the command line that differ from those of `PPOConfig`, on which older scripts rely."""
DISCRETE: SettingValues = DEFAULTS | {
    "gamma": 0.995,
    "GAE_lambda": 0.97,
    "batch_size": 2048,
    "entropy_coef": 0.01,
    "anneal_lr": True,
}
"""The defaults for discrete actions."""
CONTINUOUS: SettingValues = DEFAULTS | {
    "num_envs": 64,
    "gamma": 0.995,
    "GAE_lambda": 0.97,
    "normalize_advantage": "returns",
    "recompute_advantage": True,
    "batch_size": 2048,
    "mini_batch_size": 64,
    "lr": 3e-4,
    "anneal_lr": True,
    "entropy_coef": 0.002,
    "anneal_entropy": True,
    "log_std": -0.5,
}
"""The defaults if any action is continuous."""
IMAGES: SettingValues = DEFAULTS | {
    "num_envs": 8,
    "k_epochs": 4,
    "lr": 2.5e-4,
    "anneal_lr": True,
    "policy_clip": 0.1,
    "entropy_coef": 0.01,
    "hidden_sizes": (),
}
"""The defaults for images: those of Atari, after Huang et al. 2022, "The 37 implementation details of PPO"."""


@settings_class
class PPOConfig(Config):
    """The hyperparameters of `PPO`.

    Raises:
        ValueError: a setting is out of its range, or two are incompatible; the message names them.
    """

    lr: float | Schedule = setting(
        0.001,
        "Learning rate of Adam; in Python also a function of the remaining fraction of the run, from 1 to 0.",
        above=0,
    )
    k_epochs: int = setting(7, "Epochs: passes over each batch.", above=0)
    policy_clip: float | Schedule = setting(
        0.2, "Clip range of the probability ratio; in Python also a function, like `lr`.", above=0
    )
    GAE_lambda: float = setting(
        0.95,
        "Lambda of GAE: 0 for one-step advantages (bias), 1 for Monte Carlo advantages (variance).",
        least=0,
        most=1,
    )
    gamma: float = setting(0.995, "Discount factor.", least=0, most=1)
    batch_size: int = setting(
        1024, "Update when at least this many transitions are collected; the update uses all of them.", above=0
    )
    mini_batch_size: int = setting(64, "Largest size of a minibatch; a batch is split into equal minibatches.", above=0)
    use_RND: bool = setting(
        False, "Add an intrinsic reward for novel observations (Random Network Distillation).", structure=True
    )
    beta: float = setting(
        0.001,
        "Weight of RND's intrinsic advantage, relative to the extrinsic one.",
        least=0,
        needs="use_RND companions",
    )
    companions: tuple[CompanionName, ...] = setting(
        (),
        "Auxiliary losses and intrinsic rewards: rnd (same as use_RND), icm; in Python also objects of your own.",
        structure=True,
    )
    icm_beta: float = setting(
        0.001, "Weight of ICM's intrinsic advantage, relative to the extrinsic one.", least=0, needs="companions"
    )
    icm_forward_share: float = setting(
        0.2,
        "Weight of the forward model's loss in ICM's loss; the inverse model has the rest.",
        fixed=True,
        least=0,
        most=1,
        needs="companions",
    )
    squash_actions: bool = setting(
        True, "Squash bounded continuous actions by tanh instead of clipping them.", structure=True
    )
    share_encoder: bool | None = setting(
        None,
        "Share one encoder between actor and critic; by default only with images or a recurrent core.",
        structure=True,
    )
    core: Literal["none", "gru", "lstm"] = setting("none", "Recurrent core of the policy.", structure=True)
    core_size: int = setting(64, "Units of the recurrent core.", structure=True, least=1, most=WIDEST, needs="core")
    hidden_sizes: tuple[int, ...] = setting(
        (64, 64),
        "Units of each hidden layer of actor and critic; with images, of the layers after the convolutions.",
        structure=True,
        least=1,
        most=WIDEST,
    )
    activation: Literal["tanh", "relu", "silu"] = setting("tanh", "Activation of the hidden layers.", structure=True)
    log_std: float = setting(
        0.0,
        "Initial log standard deviation of continuous actions before squashing and scaling, or of gSDE's weights.",
        initial=True,
        least=-700,
        most=700,
    )
    use_sde: bool = setting(
        False,
        "Explore by gSDE: the noise of continuous actions is a function of the state; `sde_sample_freq` sets when it "
        "is resampled.",
        structure=True,
    )
    sde_sample_freq: int = setting(
        ROLLOUT,
        "Steps of an environment after which gSDE resamples its noise; -1: after each update.",
        fixed=True,
        above=0,
        also=ROLLOUT,
        needs="use_sde",
    )
    normalize_obs: bool = setting(
        False, "Normalize observations, except images, by running statistics, and clip them to +-10.", structure=True
    )
    normalize_advantage: Literal["minibatch", "batch", "returns", "none"] = setting(
        "minibatch",
        "Standardize advantages in each minibatch or in the whole batch, or (returns) divide them by the standard "
        "deviation of returns.",
    )
    recompute_advantage: bool = setting(False, "Recompute advantages and value targets in each epoch.")
    entropy_coef: float = setting(0.0, "Coefficient of the entropy bonus.", least=0)
    value_coef: float = setting(0.5, "Coefficient of the value loss, which is computed on normalized returns.", least=0)
    value_clip: float | None = setting(
        None, "Clip range of normalized values; by default they are not clipped.", above=0
    )
    max_grad_norm: float = setting(0.5, "Clip the gradient to this norm.", above=0)
    target_kl: float | None = setting(
        None, "End an update early when the approximate KL exceeds 1.5 times this; by default never.", above=0
    )
    anneal_lr: bool = setting(False, "Anneal `lr` linearly to 0 over the run.")
    anneal_clip: bool = setting(False, "Anneal `policy_clip` linearly to 0 over the run.")
    anneal_entropy: bool = setting(False, "Anneal `entropy_coef` linearly to 0 over the run.")
    intrinsic_gamma: float = setting(
        0.99,
        "Discount factor of the intrinsic rewards of RND and ICM, whose returns continue across episodes.",
        fixed=True,
        least=0,
        most=1,
        needs="use_RND companions",
    )
    rnd_update_proportion: float = setting(
        0.25,
        "Fraction of each minibatch that trains RND's predictor.",
        fixed=True,
        least=0,
        most=1,
        needs="use_RND companions",
    )
    rnd_warmup: int = setting(
        1000, "Number of observations before RND's reward is used.", fixed=True, least=0, needs="use_RND companions"
    )
    learner: Literal["auto", "torch"] = setting(
        "auto",
        "torch: gradients by autograd. auto: analytic gradients where they exist, which are the same and several times "
        "faster.",
        incidental=True,
    )
    compile: bool = setting(
        False,
        "Compile the loss for autograd, which takes seconds: for long runs with learner=torch or large MLPs.",
        fixed=True,
        incidental=True,
    )
    bf16: bool = setting(
        False,
        "Compute the encoders in bfloat16, in torch: for images, on a CPU that supports it; an H100 was slower.",
        fixed=True,
    )
    device: str = setting(
        "cpu",
        "Device of the networks: cpu, cuda, ...; auto: cuda if there is a GPU, else cpu.",
        fixed=True,
        incidental=True,
    )

    def check_relations(self) -> None:
        """Raise a `ValueError` if settings exclude each other."""
        if self.mini_batch_size > self.batch_size:
            raise ValueError(f"mini_batch_size ({self.mini_batch_size}) is larger than batch_size ({self.batch_size})")
        if unknown := {name for name in self.companions if isinstance(name, str)} - {*get_args(CompanionName)}:
            known = ", ".join(get_args(CompanionName))
            raise ValueError(f"companions must be of {known}, or objects in Python, not {', '.join(sorted(unknown))}")
        for name, value, anneal in (
            ("lr", self.lr, self.anneal_lr),
            ("policy_clip", self.policy_clip, self.anneal_clip),
        ):
            check_annealed(name, value, anneal)

    @classmethod
    def defaults_for(cls, observation_space: spaces.Space, action_space: spaces.Space) -> SettingValues:
        """Return the defaults for the spaces of an environment; measured numbers are normalized, codes are not.

        Raises:
            TypeError: a space is not supported.
        """
        features = Features.of(observation_space)
        if features.images:
            values = IMAGES
        elif any(isinstance(leaf, spaces.Box) for _, leaf in leaves(action_space)):
            values = CONTINUOUS
        else:
            values = DISCRETE
        measured = any(not part.choices for part in features.numbers)
        return values | {"normalize_obs": measured}
