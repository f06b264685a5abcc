"""Presets: settings for known environments. `--agent` and `--env-id` select one; others have defaults for their spaces.

They were chosen on seeds from 100 up; results are reported for seeds 0 to 4. Most MuJoCo tasks share one, tuned on
HalfCheetah-v5; Hopper, InvertedDoublePendulum, Reacher and Swimmer differ in a few numbers. Walker2d has the defaults.
"""

from dataclasses import dataclass, field
from typing import Any

from parallel_rl.agents import agent_kind
from parallel_rl.config import train_config
from parallel_rl.utils import SettingValues, bare_id, spaces_in
from PPO.config import CONTINUOUS, IMAGES

MUJOCO: SettingValues = {
    "steps": 1_000_000,
    "num_envs": 64,
    "batch_size": 2048,
    "mini_batch_size": 64,
    "lr": 3e-4,
    "anneal_lr": True,
    "recompute_advantage": True,
    "log_std": -0.5,
    "normalize_obs": True,
}
"""For most of MuJoCo."""
LUNAR_LANDER: SettingValues = {
    "steps": 1_000_000,
    "gamma": 0.995,
    "GAE_lambda": 0.97,
    "batch_size": 4096,
    "k_epochs": 6,
    "anneal_lr": True,
}
BY_ENV: dict[str, SettingValues] = {
    "CartPole-v1": {},
    "Acrobot-v1": {"steps": 200_000},
    "LunarLander-v3": LUNAR_LANDER | {"entropy_coef": 0.01},
    "LunarLanderContinuous-v3": LUNAR_LANDER | {"normalize_advantage": "returns", "log_std": -0.5},
    "BipedalWalker-v3": {
        "steps": 2_000_000,
        "num_envs": 32,
        "batch_size": 4096,
        "anneal_lr": True,
        "squash_actions": False,
    },
    "MountainCar-v0": {"steps": 500_000, "normalize_obs": True},
    "MountainCarContinuous-v0": {
        "num_envs": 8,
        "batch_size": 2048,
        "mini_batch_size": 64,
        "gamma": 0.999,
        "anneal_lr": True,
        "normalize_obs": True,
        "log_std": 1.0,
    },
    "Ant-v5": MUJOCO,
    "HalfCheetah-v5": MUJOCO,
    "Hopper-v5": MUJOCO
    | {"num_envs": 8, "gamma": 0.995, "squash_actions": False, "recompute_advantage": False, "log_std": 0.0},
    "Humanoid-v5": MUJOCO,
    "InvertedDoublePendulum-v5": MUJOCO | {"num_envs": 8, "k_epochs": 4, "normalize_advantage": "returns"},
    "InvertedPendulum-v5": MUJOCO,
    "Pusher-v5": MUJOCO,
    "Reacher-v5": MUJOCO | {"gamma": 0.95},
    "Walker2d-v5": CONTINUOUS | {"steps": 1_000_000, "normalize_obs": True},
    "Swimmer-v5": MUJOCO | {"num_envs": 8, "gamma": 0.9999, "GAE_lambda": 0.98},
    "Pendulum-v1": {"steps": 300_000, "num_envs": 8, "gamma": 0.95, "log_std": 0.5, "anneal_lr": True},
}
"""By environment id."""
ATARI: SettingValues = IMAGES | {"steps": 10_000_000}
"""For all of `ALE/...`; not tuned here."""
MINATAR: SettingValues = {
    "steps": 5_000_000,
    "num_envs": 64,
    "batch_size": 2048,
    "mini_batch_size": 256,
    "k_epochs": 4,
    "anneal_lr": True,
    "policy_clip": 0.1,
    "entropy_coef": 0.01,
    "hidden_sizes": (),
}
"""For all of `MinAtar/...`; found on Asterix and Breakout."""
WITH_RND: dict[str, SettingValues] = {
    "CartPole-v1": {},
    "MountainCar-v0": {"beta": 1.0},
    "MountainCarContinuous-v0": {"num_envs": 4, "batch_size": 1024, "gamma": 0.99, "log_std": 0.5, "beta": 1.0},
}
"""By environment id: changes to the above with `--use-rnd`."""
RECURRENT: SettingValues = {"num_envs": 8, "normalize_advantage": "returns"}
"""Changes to all of the above with a recurrent core; benchmarks/memory.py measures what they do."""


@dataclass(frozen=True)
class Presets:
    """Settings for one agent, where they differ from the defaults of the command line."""

    by_env: dict[str, SettingValues] = field(default_factory=dict)
    """By environment id."""
    by_namespace: dict[str, SettingValues] = field(default_factory=dict)
    """For all environments of a namespace, such as `ALE/...`."""
    with_rnd: dict[str, SettingValues] = field(default_factory=dict)
    """By environment id: changes to the above with an intrinsic reward."""
    recurrent: SettingValues = field(default_factory=dict)
    """Changes to the above with a recurrent core."""


N_STEP: SettingValues = {"n_step": 3}
"""For DQN: 3-step returns, with which values approach those of the horizon of 100 steps three times as fast."""
CARTPOLE: SettingValues = {
    "steps": 50_000,
    "reward_scale": 0.1,
    "lr": 2e-3,
    "anneal_lr": True,
    "tau": 0.02,
    "buffer_size": 20_000,
}
"""For DQN: values of at most 10, experience of recent policies, and a policy that does not change at the end."""
DQN: dict[str, SettingValues] = {
    "CartPole-v1": N_STEP | CARTPOLE,
    "Acrobot-v1": N_STEP | {"steps": 100_000, "reward_scale": 0.1, "lr": 1e-3, "anneal_lr": True, "utd": 0.5},
    "MountainCar-v0": {
        "steps": 120_000,
        "num_envs": 1,
        "lr": 4e-3,
        "anneal_lr": True,
        "gamma": 0.98,
        "n_step": 4,
        "utd": 0.5,
        "train_freq": 16,
        "tau": 1.0,
        "target_update_interval": 300,
        "buffer_size": 50_000,
        "hidden_sizes": (256, 256),
        "epsilon_steps": 24_000,
        "epsilon_end": 0.07,
    },
    "LunarLander-v3": {
        "steps": 300_000,
        "num_envs": 8,
        "reward_scale": 0.1,
        "lr": 5e-3,
        "anneal_lr": True,
        "n_step": 4,
        "utd": 0.125,
        "tau": 1.0,
        "target_update_interval": 250,
        "dueling": True,
        "buffer_size": 200_000,
        "epsilon_steps": 150_000,
    },
}
SMALL: SettingValues = {"num_envs": 4, "lr": 1e-3, "hidden_sizes": (64, 64), "batch_size": 128, "buffer_size": 50_000}
"""For continuous control with few dimensions: small networks, which need a third of the time."""
NOISE: SettingValues = {
    "steps": 50_000,
    "action_noise": "ou_0.5",
    "utd": 0.5,
    "learning_starts": 100,
    "gamma": 0.999,
    "tau": 0.01,
    "anneal_lr": True,
}
"""For MountainCarContinuous: correlated noise, since uncorrelated noise never reaches the goal, and a long horizon."""
GOALS: SettingValues = {"hindsight": "future", "clip_return": True, "normalize_obs": True, "gamma": 0.98}
"""For Fetch: episodes of 50 steps, and rewards of -1 and 0."""
FETCH_REACH: SettingValues = SMALL | GOALS | {"steps": 7_500, "learning_starts": 500}
PICK_AND_PLACE: SettingValues = GOALS | {
    "steps": 100_000,
    "num_envs": 8,
    "lr": 1e-3,
    "anneal_lr": True,
    "hidden_sizes": (128, 128),
    "tau": 0.05,
    "utd": 0.5,
    "learning_starts": 2_000,
    "initial_alpha": 0.05,
    "demo_batch_size": 64,
    "q_filter": True,
}
"""For FetchPickAndPlace with demonstrations; without, it has not been run."""
LOCOMOTION: SettingValues = {
    "steps": 1_000_000,
    "num_envs": 8,
    "lr": 1e-3,
    "hidden_sizes": (128, 128),
    "learning_starts": 10_000,
}
"""For MuJoCo: the learning rate of Tianshou's actor and critics, and half its units, which need half the time."""
DETERMINISTIC: dict[str, SettingValues] = {
    "FetchReach-v4": FETCH_REACH | {"eps_greedy": 0.2},
    "Pendulum-v1": SMALL | {"steps": 20_000},
    "MountainCarContinuous-v0": SMALL | NOISE,
    "LunarLanderContinuous-v3": {"steps": 300_000, "num_envs": 4, "learning_starts": 10_000, "gamma": 0.98},
    "HalfCheetah-v5": LOCOMOTION,
}
SWIMMER: SettingValues = LOCOMOTION | {"gamma": 0.9999, "anneal_lr": True}
"""A swimming stroke takes many steps."""
RL_ZOO: SettingValues = {"num_envs": 8, "lr": 7e-4, "anneal_lr": True, "learning_starts": 10_000}
"""For SAC in Box2D, after RL-Zoo."""
SAC: dict[str, SettingValues] = {
    "FetchReach-v4": FETCH_REACH | {"initial_alpha": 0.05},
    "FetchPickAndPlace-v4": PICK_AND_PLACE,
    "Pendulum-v1": SMALL | {"steps": 12_000},
    "BipedalWalker-v3": RL_ZOO | {"steps": 500_000, "tau": 0.02, "gamma": 0.98, "hidden_sizes": (128, 128)},
    "LunarLanderContinuous-v3": RL_ZOO | {"steps": 300_000, "tau": 0.01},
    "HalfCheetah-v5": LOCOMOTION,
    "Hopper-v5": LOCOMOTION | {"anneal_lr": True},
}
PRESETS: dict[str, Presets] = {
    "ppo": Presets(BY_ENV, {"ALE": ATARI, "MinAtar": MINATAR}, WITH_RND, RECURRENT),
    "dqn": Presets(DQN),
    "ddpg": Presets(DETERMINISTIC),
    "td3": Presets(DETERMINISTIC | {"Swimmer-v5": SWIMMER}),
    "sac": Presets(SAC),
}
"""By agent."""


def preset(agent: str, env_id: str, use_rnd: bool = False, recurrent: bool = False) -> SettingValues:
    """Return the settings that differ from the defaults for an agent in an environment."""
    of = PRESETS.get(agent, Presets())
    env_id = bare_id(env_id)
    settings = of.by_env.get(env_id) or of.by_namespace.get(env_id.partition("/")[0], {})
    return settings | (of.with_rnd.get(env_id, {}) if use_rnd else {}) | (of.recurrent if recurrent else {})


def defaults_for(agent: str, env: Any, recurrent: bool = False) -> SettingValues:
    """Return the settings that differ from the defaults of a preset where there is none: those for the spaces.

    Args:
        agent: its name.
        env: an environment, or its id.
        recurrent: whether the policy has a recurrent core.

    Raises:
        TypeError: a space is not supported.
    """
    values = agent_kind(agent).config_class.defaults_for(*spaces_in(env))
    return values | (PRESETS.get(agent, Presets()).recurrent if recurrent else {})


def settings_of(
    env: Any, agent: str = "ppo", *, use_rnd: bool = False, core: str = "none"
) -> tuple[SettingValues, SettingValues]:
    """Return the settings with which the command line trains on an environment, for scripts.

    Args:
        env: the id of an environment, with or without a preset; or an environment, which has none.
        agent: its name on the command line.
        use_rnd: whether PPO gets an intrinsic reward.
        core: the recurrent core of PPO.

    Returns:
        The arguments of the agent (`PPO.for_env(env, **settings)`) and of the run (`AsyncPPO(env, ppo, **run)`).

    Raises:
        ValueError: an unknown agent.
        TypeError: the environment has no preset, and a space that is not supported.
    """
    known, recurrent = isinstance(env, str) and has_preset(env, agent), core != "none"
    values = preset(agent, env, use_rnd, recurrent) if known else defaults_for(agent, env, recurrent)
    requested = ({"use_RND": True} if use_rnd else {}) | ({"core": core} if recurrent else {})
    config = train_config(agent, values | requested)
    return vars(config.settings), {name: getattr(config.run, name) for name in ("num_envs", "steps", "mode")}


def has_preset(env_id: str, agent: str | None = None) -> bool:
    """Return whether an agent has settings for an environment; None for any agent."""
    env_id = bare_id(env_id)
    known = [presets for name, presets in PRESETS.items() if agent in (None, name)]
    return any(env_id in of.by_env or env_id.partition("/")[0] in of.by_namespace for of in known)
