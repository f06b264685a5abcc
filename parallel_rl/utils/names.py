"""Names of arguments and settings, and what the error for an unknown one suggests."""

from collections.abc import Callable, Collection, Iterable
from difflib import get_close_matches
from functools import wraps
from inspect import Parameter, signature
from typing import ParamSpec, TypeVar, get_args

P = ParamSpec("P")
T = TypeVar("T")

SB3_NAMES: dict[str, tuple[str, ...]] = {
    "learning_rate": ("lr",),
    "clip_range": ("policy_clip",),
    "clip_range_vf": ("value_clip",),
    "n_epochs": ("k_epochs",),
    "n_steps": ("n_step", "batch_size"),
    "gae_lambda": ("GAE_lambda",),
    "ent_coef": ("entropy_coef", "alpha"),
    "vf_coef": ("value_coef",),
    "net_arch": ("hidden_sizes",),
    "activation_fn": ("activation",),
    "gradient_steps": ("utd",),
    "n_sampled_goal": ("replay_k",),
    "goal_selection_strategy": ("hindsight",),
    "target_policy_noise": ("target_noise",),
    "exploration_initial_eps": ("epsilon_start",),
    "exploration_final_eps": ("epsilon_end",),
    "exploration_fraction": ("epsilon_steps",),
    "n_envs": ("num_envs",),
    "total_timesteps": ("steps",),
    "n_timesteps": ("steps",),
    "n": ("steps",),
    "n_eval_episodes": ("eval_episodes", "episodes"),
    "eval_freq": ("eval_every", "every"),
    "eval_env": ("env",),
    "best_model_save_path": ("keep_best",),
    "save_freq": ("every_seconds", "checkpoint_seconds"),
    "save_path": ("directory",),
    "verbose": ("progress",),
    "algo": ("agent",),
    "env": ("env_id",),
    # CleanRL
    "start_e": ("epsilon_start",),
    "end_e": ("epsilon_end",),
    "target_network_frequency": ("target_update_interval",),
    "train_frequency": ("train_freq",),
    "policy_frequency": ("policy_delay",),
    "noise_clip": ("target_noise_clip",),
    "exploration_noise": ("action_noise",),
    "policy_lr": ("lr",),
    "q_lr": ("lr",),
    # pyrl
    "random_steps": ("learning_starts",),
}
"""Arguments of Stable-Baselines3, RL-Zoo and others, and their names here: the first that a caller has."""
SB3_NOTES = {
    ("n_steps", "batch_size"): "n_steps times the environments; the former batch_size is mini_batch_size",
    ("exploration_fraction", "epsilon_steps"): "in environment steps",
    ("gradient_steps", "utd"): "updates for each environment step",
    ("save_freq", "every_seconds"): "seconds of training",
    ("predict", "get_action"): "it returns only the action",
    ("train_frequency", "train_freq"): "utd sets how many updates there are",
    ("target_network_frequency", "target_update_interval"): "in updates",
    ("exploration_noise", "action_noise"): "normal_STD or ou_STD",
}
"""What a value means under the other name, where it is another value."""

SB3_VALUES = {("normalize_advantage", "True"): "minibatch", ("normalize_advantage", "False"): "none"}
"""The value that stands for one of Stable-Baselines3, by the name of the setting and the `repr` of the latter."""
SB3_AGENTS = {
    "a2c": "docs/rollouts.md has a program of it",
    "ppo_lstm": "it is ppo with --core lstm",
    "recurrentppo": "it is ppo with --core lstm",
    "maskableppo": "it is ppo with --action-masks",
}
"""What stands in for agents of Stable-Baselines3 and RL-Zoo that are not here, in lower case."""
SB3_METHODS = {"predict": "get_action", "save": "save_weights", "set_parameters": "load_weights"}
"""Methods of the agents of Stable-Baselines3, and ours."""
SB3_ATTRIBUTES = {
    "exploration_rate": "epsilon of DQN is the current one; epsilon_start=, epsilon_end= and epsilon_steps= set it",
    "num_timesteps": "steps_done of the trainer counts them",
    "replay_buffer": "replay is that of an off-policy agent",
    "ent_coef_tensor": "the metric alpha of SAC is its mean",
}
"""What stands in for attributes of the agents of Stable-Baselines3, which nobody assigns here."""
SB3_HINTS = SB3_ATTRIBUTES | {
    "policy": "networks follow from the spaces; encoder= of PPO takes one of your own",
    "policy_kwargs": "hidden_sizes= and activation= are arguments of their own, as is encoder= of PPO",
    "encoder": "PPO.for_env(env, encoder=...) takes a network of your own; the other agents have none",
    "companions": "PPO takes companions; the other agents have none",
    "demo_path": "DDPG, TD3 and SAC learn from demonstrations; the other agents do not",
    "features_extractor_class": "encoder= of PPO takes a function of `Features`",
    "verbose": "a run shows a progress bar: AsyncPPO(..., progress=False) shows none",
    "tensorboard_log": "the callback TensorBoard(directory) writes it; the command line always does",
    "n_envs": "AsyncPPO(env, agent, num_envs) makes the environments",
    "total_timesteps": "AsyncPPO(env, agent, steps=n).run() trains for n steps",
    "reset_num_timesteps": "another run() goes on",
    "action_noise": "only DDPG and TD3 add noise to actions",
    "parameter_noise": "only DDPG adds noise to parameters",
    "autotune": "SAC learns its temperature, unless alpha= sets it",
    "target_update_interval": "only DQN has it; the other agents update their targets by tau",
    "replay_buffer_class": "hindsight= and prioritized= are arguments of their own",
    "learn": "AsyncTrainer(env, agent, num_envs, steps).run() trains",
    "train": "AsyncTrainer(env, agent, num_envs, steps).run() trains",
    "set_env": "an agent has no environment: AsyncPPO(env, agent) takes both",
    "logger": "a callback adds its own numbers to `metrics` in on_update",
}
"""What stands in for further arguments, attributes and methods of Stable-Baselines3, which have no other name here."""


def check_names(names: Iterable[str], known: Collection[str], others: Iterable[str], by: str) -> None:
    """Check the names of keyword arguments.

    Args:
        names: those given.
        known: those that exist.
        others: the names of further arguments, which the message may suggest.
        by: the name of the caller, for the message.

    Raises:
        TypeError: a name is unknown; the message suggests the nearest one, or ours for one of Stable-Baselines3.
    """
    for name in names:
        if name not in known:
            known = [*known, *others]
            hint = sb3_hint(name, known) or suggestion(name, known)
            raise TypeError(f"{by}() got an unexpected keyword argument {name!r}{hint}")


def names_checked(function: Callable[P, T]) -> Callable[P, T]:
    """Let the error for an unknown keyword argument of a function, or of a class's `__init__`, suggest a name.

    A parameter `**settings: Unpack[T]` stands for the names in the typed dict T.
    """
    parameters, by = signature(function).parameters, function.__qualname__.removesuffix(".__init__")
    unpacked = (get_args(each.annotation) for each in parameters.values() if each.kind is Parameter.VAR_KEYWORD)
    known = {*parameters, *(name for (names,) in unpacked for name in names.__annotations__)}

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        check_names(kwargs, known, (), by)
        return function(*args, **kwargs)

    return checked


def takes_no_environment(init: Callable[P, None]) -> Callable[P, None]:
    """Let the error of an agent's `__init__` name `for_env` if it gets an environment, as in Stable-Baselines3."""

    @wraps(init)
    def checked(*args: P.args, **kwargs: P.kwargs) -> None:
        if "env" in kwargs or any(isinstance(value, str) or hasattr(value, "reset") for value in args[1:3]):
            name = type(args[0]).__name__
            raise TypeError(f"{name}() takes spaces, not an environment: {name}.for_env(env) takes one")
        init(*args, **kwargs)

    return checked


def fault_of_call(function: Callable[..., object], *args: object, **kwargs: object) -> str | None:
    """Return why a function cannot be called with some arguments; None if it can, or if its signature is unknown."""
    try:
        parameters = signature(function)
    except (TypeError, ValueError):  # written in C: a wrong call will fail later
        return None
    try:
        parameters.bind(*args, **kwargs)
    except TypeError as error:
        return str(error)
    return None


def check_changes(changes: Collection[str], agent: type, settings: Collection[str]) -> None:
    """Check the names of the arguments that an agent is loaded with.

    Args:
        changes: those given.
        agent: the class of the agent.
        settings: the names of its settings.

    Raises:
        TypeError: one is unknown, or an environment, as in Stable-Baselines3.
    """
    by = f"{agent.__name__}.load"
    if "env" in changes:
        raise TypeError(f"{by}() takes no environment: {SB3_HINTS['set_env']}")
    check_names(changes, {*signature(agent).parameters, *settings}, (), by)


def sb3_name(name: str, known: Collection[str]) -> tuple[str, str] | None:
    """Return our name for an argument of Stable-Baselines3, and a note in brackets or an empty text; None if unknown.

    Args:
        name: of the argument.
        known: our names, of which one is returned.
    """
    ours = next((ours for ours in SB3_NAMES.get(name, ()) if ours in known), None)
    return None if ours is None else (ours, _note(name, ours))


def sb3_hint(name: str, known: Collection[str]) -> str:
    """Return `: ` and what stands in for an argument of Stable-Baselines3, or an empty text if a known name does."""
    return f": {SB3_HINTS[name]}" if name in SB3_HINTS and sb3_name(name, known) is None else ""


def sb3_attribute(name: str, known: Collection[str]) -> str:
    """Return what the error for an unknown attribute of an agent adds if Stable-Baselines3 has it, or an empty text.

    Args:
        name: of the attribute.
        known: the names of the agent's settings.
    """
    if name in SB3_HINTS:
        return f": {SB3_HINTS[name]}"
    method = SB3_METHODS.get(name)
    found = (method, _note(name, method)) if method else sb3_name(name, known)
    return f": did you mean {found[0]!r}?{found[1]}" if found else ""


def _note(name: str, ours: str) -> str:
    note = SB3_NOTES.get((name, ours))
    return f" ({note})" if note else ""


def nearest(name: str, known: Collection[str], similarity: float = 0.6) -> tuple[str, str] | None:
    """Return the nearest name to an unknown one, and a note in brackets or an empty text; None if no name is near.

    For a name of Stable-Baselines3, also a misspelled one, it is ours.

    Args:
        name: an unknown name.
        known: those that exist.
        similarity: the least similarity of a near name, from 0 to 1.
    """
    theirs = {other: pair for other in SB3_NAMES if other not in known and (pair := sb3_name(other, known))}
    near = get_close_matches(name, [*known, *theirs], 1, similarity)
    return theirs.get(near[0], (near[0], "")) if near else None


def suggestion(name: str, known: Collection[str], similarity: float = 0.6) -> str:
    """Return `: did you mean 'NAME'?` with what `nearest` finds, or an empty text if that is nothing."""
    found = nearest(name, known, similarity)
    return f": did you mean {found[0]!r}?{found[1]}" if found else ""
