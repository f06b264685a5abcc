"""PPOConfig: the hyperparameters of PPO, each declared once. It needs no torch, so that --help is fast."""

from dataclasses import dataclass
from typing import Literal, get_args

from parallel_rl.utils import Config, Schedule, scheduled, setting

CompanionName = Literal["rnd", "icm"]
ROLLOUT = -1
"""As the number of steps for which exploration noise stays: until the next rollout."""
WIDEST = 2**16
"""Units of a layer, at most: a forged file cannot have the memory filled."""


@dataclass(frozen=True)
class PPOConfig(Config):
    """The hyperparameters of `PPO`.

    Raises:
        ValueError: some are out of their ranges, or do not go together; the message names them.
    """

    lr: float | Schedule = setting(
        0.001, "Adam's step size; in Python also a function of the share of the run that remains, 1 to 0.", above=0
    )
    k_epochs: int = setting(7, "Passes over each batch.", above=0)
    policy_clip: float | Schedule = setting(
        0.2, "Clip range of the probability ratio; in Python also a function, as `lr`.", above=0
    )
    GAE_lambda: float = setting(
        0.95, "0 for one-step advantages (bias), 1 for Monte Carlo advantages (variance).", least=0, most=1
    )
    gamma: float = setting(0.995, "Discount of the reward.", least=0, most=1)
    batch_size: int = setting(
        1024, "Transitions that an update waits for; it then learns from all that there are.", above=0
    )
    mini_batch_size: int = setting(
        64, "Transitions in each gradient step, at most: a batch is split into equal minibatches.", above=0
    )
    use_RND: bool = setting(
        False, "Add an intrinsic reward for new observations (Random Network Distillation).", structure=True
    )
    beta: float = setting(0.001, "Factor of RND's intrinsic advantage; that of the extrinsic one is 1.", least=0)
    companions: tuple[CompanionName, ...] = setting(
        (),
        "Losses and intrinsic rewards beside PPO's: rnd is the same as use_RND; in Python also objects of your own.",
        structure=True,
    )
    icm_beta: float = setting(0.001, "Factor of ICM's intrinsic advantage.", least=0)
    icm_forward_share: float = setting(
        0.2, "Share of the forward model's loss in ICM's; the inverse model's is the rest.", fixed=True, least=0, most=1
    )
    squash_actions: bool = setting(
        True, "Squash bounded continuous actions into their bounds by tanh, instead of clipping them.", structure=True
    )
    share_encoder: bool | None = setting(
        None, "One encoder for actor and critic; by default with images or a recurrent core.", structure=True
    )
    core: Literal["none", "gru", "lstm"] = setting("none", "Recurrent core of the policy.", structure=True)
    core_size: int = setting(64, "Units of the recurrent core.", structure=True, least=1, most=WIDEST)
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
        "Initial log standard deviation of continuous actions, before squashing and scaling; with gSDE, of each share.",
        fixed=True,
        least=-700,
        most=700,
    )
    use_sde: bool = setting(
        False,
        "Explore continuous actions by noise that is a function of the state and stays for a while (gSDE).",
        structure=True,
    )
    sde_sample_freq: int = setting(
        ROLLOUT,
        "Steps of an environment after which gSDE samples new noise; -1: after each update.",
        fixed=True,
        above=0,
        beside=ROLLOUT,
    )
    normalize_obs: bool = setting(
        False, "Normalize observations, but for images, by their running statistics, clipped to +-10.", structure=True
    )
    normalize_advantage: Literal["minibatch", "batch", "returns", "none"] = setting(
        "minibatch",
        "Standardize advantages in each minibatch or in the whole batch, or divide them by the standard deviation of "
        "returns.",
    )
    recompute_advantage: bool = setting(False, "Recompute advantages and value targets in each epoch.")
    entropy_coef: float = setting(0.0, "Factor of the entropy bonus.", least=0)
    value_coef: float = setting(0.5, "Factor of the value loss, which is on normalized returns.", least=0)
    value_clip: float | None = setting(None, "Clip range of normalized values in an update; by default none.", above=0)
    max_grad_norm: float = setting(0.5, "Limit on the norm of the policy's gradient.", above=0)
    target_kl: float | None = setting(
        None, "End an update when the policy has moved further than 1.5 times this KL; by default never.", above=0
    )
    anneal_lr: bool = setting(False, "Anneal `lr` linearly to 0 over the run.")
    anneal_clip: bool = setting(False, "Anneal `policy_clip` linearly to 0 over the run.")
    anneal_entropy: bool = setting(False, "Anneal `entropy_coef` linearly to 0 over the run.")
    intrinsic_gamma: float = setting(
        0.99,
        "Discount of the intrinsic rewards of RND and ICM, whose return continues across the ends of episodes.",
        fixed=True,
        least=0,
        most=1,
    )
    rnd_update_proportion: float = setting(
        0.25, "Share of each minibatch that RND's predictor learns from.", fixed=True, least=0, most=1
    )
    rnd_warmup: int = setting(1000, "Observations that RND needs before its reward counts.", fixed=True, least=0)
    learner: Literal["auto", "torch"] = setting(
        "auto",
        "Gradients by autograd (torch), or analytic gradients where they exist (auto: the same, several times faster).",
        incidental=True,
    )
    compile: bool = setting(
        False,
        "Compile autograd's gradients: for long runs with learner=torch or large networks, since it takes seconds.",
        fixed=True,
        incidental=True,
    )
    bf16: bool = setting(
        False,
        "Compute the encoders in bfloat16, by torch: for images and large networks, where the processor has it.",
        fixed=True,
    )
    device: str = setting("cpu", "Device of the networks: cpu, cuda, ...", fixed=True, incidental=True)

    def __post_init__(self) -> None:
        """Check the ranges, and what they have to do with each other."""
        super().__post_init__()
        if self.mini_batch_size > self.batch_size:
            raise ValueError(f"mini_batch_size ({self.mini_batch_size}) is larger than batch_size ({self.batch_size})")
        if unknown := {each for each in self.companions if isinstance(each, str)} - {*get_args(CompanionName)}:
            known = ", ".join(get_args(CompanionName))
            raise ValueError(f"companions must be of {known}, or objects in Python, not {', '.join(sorted(unknown))}")
        for name, value, anneal in (
            ("lr", self.lr, self.anneal_lr),
            ("policy_clip", self.policy_clip, self.anneal_clip),
        ):
            scheduled(name, value, anneal, 0.0)  # a function is not annealed as well
