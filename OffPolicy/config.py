"""The settings of the off-policy agents, each declared once, and the arguments of `for_env`. It needs no torch."""

from dataclasses import field
from typing import Any, Literal, Self

from gymnasium import spaces

from OffPolicy.her import GoalFunctions
from OffPolicy.noise import make_noise
from parallel_rl.utils import (
    Config,
    Schedule,
    SettingValues,
    check_annealed,
    make_config,
    new_default,
    setting,
    settings_class,
)
from parallel_rl.utils.settings import WIDEST


@settings_class
class OffPolicyConfig(Config):
    """The settings of all off-policy agents.

    Raises:
        ValueError: a setting is out of its range, or two exclude each other; the message names them.
    """

    gamma: float = setting(0.99, "Discount of the reward.", least=0, most=1)
    lr: float | Schedule = setting(
        3e-4,
        "Learning rate of Adam; in Python also a function of the remaining fraction of the run, from 1 to 0.",
        above=0,
    )
    anneal_lr: bool = setting(False, "Anneal `lr` linearly to 0 over the run.")
    batch_size: int = setting(256, "Transitions in each gradient step.", above=0)
    buffer_size: int = setting(1_000_000, "Capacity of the replay buffer, in observations.", fixed=True, least=2)
    replay_in_checkpoint: bool = setting(
        True,
        "Save the replay buffer in checkpoints; otherwise a resumed run is not exact, and collects learning_starts "
        "steps before its next update.",
        incidental=True,
    )
    learning_starts: int = setting(1_000, "Environment steps before the first update.", least=0)
    utd: float = setting(1.0, "Updates for each environment step, however many environments.", above=0, fixed=True)
    train_freq: int = setting(
        1,
        "Least number of environment steps between two groups of updates; utd alone sets how many updates there are.",
        above=0,
    )
    tau: float = setting(0.005, "Update of target networks: target <- (1 - tau) target + tau network.", above=0, most=1)
    n_step: int = setting(1, "Rewards that are summed before the value of the next observation.", above=0)
    reward_scale: float = setting(1.0, "Factor that multiplies all rewards.", above=0)
    prioritized: bool = setting(False, "Sample transitions in proportion to their last TD errors.", fixed=True)
    priority_alpha: float = setting(
        0.6, "Exponent of the TD errors; 0 for uniform sampling.", least=0, most=1, fixed=True, needs="prioritized"
    )
    priority_beta: float = setting(
        0.4,
        "Exponent of the importance weights, annealed linearly to 1 over the run.",
        least=0,
        most=1,
        needs="prioritized",
    )
    hindsight: Literal["none", "future", "final", "episode"] = setting(
        "none",
        "Hindsight experience replay (HER): where it takes its goals from, in goal-conditioned environments.",
        fixed=True,
    )
    replay_k: int = setting(
        4, "Transitions with a hindsight goal for each original one.", least=0, fixed=True, needs="hindsight"
    )
    clip_return: bool = setting(
        False, "Clip value targets to [-1 / (1 - gamma), 0]: rewards are -1 until the goal is reached, and 0 there."
    )
    hidden_sizes: tuple[int, ...] = setting(
        (256, 256), "Units of each hidden layer.", structure=True, least=1, most=WIDEST
    )
    activation: Literal["tanh", "relu", "silu"] = setting("relu", "Activation of the hidden layers.", structure=True)
    normalize_obs: bool = setting(
        False, "Normalize observations, except images, by their running statistics.", structure=True
    )
    obs_clip: float = setting(
        10.0, "Limit on the absolute value of normalized observations.", above=0, structure=True, needs="normalize_obs"
    )
    device: str = setting(
        "cpu",
        "Device of the networks: cpu, cuda, ...; auto: cuda if there is a GPU, else cpu.",
        fixed=True,
        incidental=True,
    )

    @classmethod
    def of(cls, config: "OffPolicyConfig | None", settings: SettingValues, by: str) -> Self:
        """Return the config of an agent, which gets either a whole one or single settings.

        Args:
            config: the whole one, or None.
            settings: the single ones, by name.
            by: the name of the agent, for the message.

        Raises:
            TypeError: it got both, or the config of another agent, or a setting is unknown.
            ValueError: a setting is out of its range.
        """
        if config is None:
            return make_config(cls, settings, by=by)
        if not isinstance(config, cls):
            raise TypeError(f"{by} takes a {cls.__name__}, not a {type(config).__name__}")
        if settings:
            raise TypeError(f"{by} takes either config= or single settings: {', '.join(settings)}")
        return config

    def check_relations(self) -> None:
        """Raise a `ValueError` if settings exclude each other."""
        check_annealed("lr", self.lr, self.anneal_lr)
        if self.hindsight != "none" and (self.n_step > 1 or self.prioritized):
            raise ValueError("hindsight needs n_step=1 and prioritized=False: a new goal changes rewards and errors")
        if self.clip_return and self.gamma == 1:
            raise ValueError("clip_return needs gamma < 1")


@settings_class
class DQNConfig(OffPolicyConfig):
    """The hyperparameters of `DQN`."""

    lr = new_default(5e-4)
    batch_size = new_default(128)
    buffer_size = new_default(100_000)
    utd = new_default(0.25)
    tau = new_default(0.01)
    hidden_sizes = new_default((128, 128))
    target_update_interval: int = setting(
        1,
        "Updates of the network for each update of its target. (Stable-Baselines3 counts environment steps.)",
        above=0,
    )
    double: bool = setting(True, "Choose the next action by the online network, and evaluate it by the target network.")
    dueling: bool = setting(False, "Compute action values as the state's value plus advantages.", structure=True)
    epsilon_start: float = setting(1.0, "Initial probability of a random action.", least=0, most=1)
    epsilon_end: float = setting(0.02, "Final probability of a random action.", least=0, most=1)
    epsilon_steps: int = setting(
        10_000, "Environment steps over which epsilon goes from epsilon_start to epsilon_end.", least=0
    )
    max_grad_norm: float = setting(10.0, "Limit on the norm of the gradient.", above=0)

    @classmethod
    def defaults_for(cls, observation_space: spaces.Space, action_space: spaces.Space) -> SettingValues:
        """Return the defaults for spaces: 3-step returns, except with goals, where hindsight needs single steps."""
        has_goals = isinstance(observation_space, spaces.Dict) and "desired_goal" in observation_space.spaces
        return {} if has_goals else {"n_step": 3}


@settings_class
class ContinuousConfig(OffPolicyConfig):
    """The settings of all agents for continuous actions."""

    eps_greedy: float = setting(0.0, "Probability of a random action, for each environment.", least=0, most=1)
    action_l2: float = setting(0.0, "Factor of the mean squared action in the loss of the actor.", least=0)
    compile: bool = setting(
        False,
        "Compile updates on a CPU, which takes half a minute and a C++ compiler: for long runs with small networks.",
        fixed=True,
        incidental=True,
    )
    demo_path: str | None = setting(None, "Demonstrations to learn from: an .npz file, or minari:ID.", fixed=True)
    demo_batch_size: int = setting(
        32, "Demonstrated transitions in addition to each minibatch.", above=0, needs="demo_path"
    )
    demo_weight: float = setting(
        1.0, "Factor of the behavior-cloning loss in the loss of the actor.", least=0, needs="demo_path"
    )
    q_filter: bool = setting(
        False, "Clone only actions that the critic prefers to those of the policy.", needs="demo_path"
    )


@settings_class
class DeterministicConfig(ContinuousConfig):
    """The settings of `DDPG` and `TD3`."""

    lr = new_default(1e-3)
    action_noise: str = setting("normal_0.1", "Noise on actions in [-1, 1]: normal_STD, ou_STD or none.", fixed=True)

    def __post_init__(self) -> None:
        """Also check the name of the noise, first, since its message says what it may be."""
        make_noise(self.action_noise, 1)
        super().__post_init__()


@settings_class
class DDPGConfig(DeterministicConfig):
    """The hyperparameters of `DDPG`."""

    parameter_noise: float = setting(
        0.0, "Size of the change in actions that parameter noise aims at; 0 for no such noise.", least=0, fixed=True
    )


@settings_class
class TD3Config(DeterministicConfig):
    """The hyperparameters of `TD3`."""

    policy_delay: int = setting(
        2, "Updates of the critics for each update of the actor and the target networks.", above=0
    )
    target_noise: float = setting(0.2, "Standard deviation of the noise on the target policy's actions.", least=0)
    target_noise_clip: float = setting(0.5, "Limit on the noise of the target policy's actions.", least=0)


@settings_class
class SACConfig(ContinuousConfig):
    """The hyperparameters of `SAC`."""

    alpha: float | None = setting(
        None, "Temperature, the factor of the entropy; by default it is learned.", above=0, fixed=True
    )
    initial_alpha: float = setting(
        1.0, "Temperature at the start, if it is learned; much less than 1 for sparse rewards.", above=0, initial=True
    )
    target_entropy: float | None = setting(
        None, "Target entropy of the learned temperature, in nats; by default -1 for each dimension of actions."
    )


@settings_class
class ForEnv(OffPolicyConfig):
    """The arguments of `for_env` of all agents, for type checkers and editors."""

    env: Any = field(kw_only=False)
    config: OffPolicyConfig | None = None
    goal_functions: GoalFunctions | None = None
    seed: int | None = None


@settings_class
class ForDQN(DQNConfig, ForEnv):
    """The arguments of `DQN.for_env`."""


@settings_class
class ForDDPG(DDPGConfig, ForEnv):
    """The arguments of `DDPG.for_env`."""


@settings_class
class ForTD3(TD3Config, ForEnv):
    """The arguments of `TD3.for_env`."""


@settings_class
class ForSAC(SACConfig, ForEnv):
    """The arguments of `SAC.for_env`."""
