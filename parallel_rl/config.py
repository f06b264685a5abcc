"""The configuration of a training run, which it records: the agent, its settings, and those of the run."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from parallel_rl.agents import agent_kind
from parallel_rl.utils import Config, setting, settings_class
from parallel_rl.utils.settings import hints

DEFAULT_AGENT = "ppo"

environment_setting = partial(setting, group="environment")
collection_setting = partial(setting, group="collection")
evaluation_setting = partial(setting, group="evaluation")
several_setting = partial(setting, group="several")


@settings_class
class RunConfig(Config):
    """The environment of a run, its length, and where the results go.

    Raises:
        ValueError: a setting is out of its range; the message names all such settings.
    """

    env_id: str = environment_setting(
        "CartPole-v1",
        "Environment; known ones have a preset of settings (presets.py), others defaults for their spaces.",
    )
    env_kwargs: tuple[str, ...] = environment_setting(
        (), "Arguments of the environment, NAME=VALUE: --env-kwargs is_slippery=False map_name=8x8."
    )
    wrapper: tuple[str, ...] = environment_setting(
        (),
        "Wrappers of the environment, MODULE:CLASS, innermost first: --wrapper gymnasium.wrappers:FlattenObservation.",
    )
    action_masks: bool = environment_setting(
        False, "Choose only allowed actions, given by the environment's action_masks() or its info's action_mask."
    )
    num_envs: int = collection_setting(32, "Number of parallel environments.", least=1)
    steps: int = setting(100_000, "Environment steps, over all parallel environments together.", least=1)
    seed: int = setting(0, "Seed of the weights, the actions and the environments.", least=0)
    mode: Literal["streaming", "mask"] = collection_setting(
        "streaming", "Update as soon as there is a batch, or (mask) when every environment has finished its episode."
    )
    acting: Literal["auto", "central", "replicas"] = collection_setting(
        "auto",
        "Query the agent in every step (central), or let replicas of the policy act in the processes that step; auto: "
        "replicas where possible, otherwise central.",
    )
    lag: Literal[0, 1] = collection_setting(
        0,
        "1: collect the next batch during an update, with the weights from before it; for agents that act in the main "
        "process. On two cores it gains little or nothing.",
    )
    backend: Literal["auto", "inline", "process", "vector"] = collection_setting(
        "auto",
        "Step the environments in the main process or in workers (auto measures which is faster), or with EnvPool, if "
        "it is installed (vector).",
    )
    num_workers: int | None = collection_setting(
        None, "Processes that step, the main process included; by default one for each core.", least=1
    )
    on_env_error: Literal["raise", "restart"] = collection_setting(
        "raise", "End the run when an environment fails or its process dies, or restart that environment."
    )
    step_timeout: float | None = collection_setting(
        None, "Seconds that a step or reset of an environment may take; by default without a limit.", above=0
    )
    start_method: Literal["auto", "fork", "spawn", "forkserver"] = collection_setting(
        "auto", "How workers start; auto forks where the system supports it and the main process can be forked."
    )
    close_timeout: float = collection_setting(
        5.0, "Seconds that workers may take to close their environments before they are killed.", least=0
    )
    run_dir: str | None = setting(
        None, "Directory for the results; by default runs/ENV_ID/DATE_TIME (tune: runs/ENV_ID/tune_AGENT)."
    )
    load_weights: str | None = setting(
        None,
        "Start from the weights of a run directory, with its settings; or from a directory of weights, with the usual "
        "settings.",
    )
    eval_episodes: int = evaluation_setting(100, "Deterministic episodes of the evaluation at the end.", above=0)
    eval_envs: int | None = evaluation_setting(
        None, "Parallel environments of an evaluation; by default at most num_envs.", above=0
    )
    eval_every: int | None = evaluation_setting(
        None,
        "Environment steps between evaluations in the background; the weights of the best one are kept. By default a "
        "tenth of the run; 0 for none.",
        least=0,
    )
    checkpoint_seconds: float = evaluation_setting(
        60.0, "Seconds between checkpoints; a killed run loses at most these and one update.", above=0
    )
    keep_checkpoints: int = evaluation_setting(3, "Number of the newest checkpoints to keep.", above=0)
    info_keys: tuple[str, ...] = evaluation_setting(
        (), "Numbers in an episode's last info to report as means: --info-keys distance. is_success needs no key."
    )
    copies: int = several_setting(
        1, "Copies of the agent, each with its own environments, that are combined while they train.", least=1
    )
    combine: Literal["mean", "best", "explore"] = several_setting(
        "mean",
        "mean: all copies continue from the mean of their weights; best: all continue from the best copy; explore: the "
        "worst copies continue from one of the best, with lr and entropy_coef changed by 20% up or down.",
        needs="copies",
    )
    combine_every: int = several_setting(1024, "Steps of each copy between two combinations.", least=1, needs="copies")
    callback: tuple[str, ...] = evaluation_setting(
        (), "Your own callbacks, MODULE:CLASS, called without arguments: --callback my_callbacks:Curriculum."
    )
    track: Literal["none", "wandb", "mlflow"] = evaluation_setting(
        "none", "Report the run to Weights & Biases or MLflow, if it is installed (pip install wandb)."
    )
    max_seconds: float | None = setting(None, "End the run after this many seconds of training.", above=0)
    target_return: float | None = setting(
        None, "End the run when the last 100 episodes, or an evaluation, reach this mean return."
    )

    def trainer_arguments(self) -> dict[str, Any]:
        """Return the settings that are arguments of `AsyncTrainer`, under the same names."""
        return self.stepping_arguments() | {
            name: getattr(self, name) for name in ("mode", "acting", "lag", "seed", "info_keys")
        }

    def stepping_arguments(self) -> dict[str, Any]:
        """Return the settings about stepping, which are arguments of the trainer and of `evaluate`."""
        names = ("backend", "num_workers", "on_env_error", "step_timeout", "start_method", "close_timeout")
        return {name: getattr(self, name) for name in names}

    def evaluation_arguments(self) -> dict[str, Any]:
        """Return the arguments of `evaluate` for a run's evaluations."""
        return self.stepping_arguments() | {"num_envs": self.eval_envs or self.num_envs, "info_keys": self.info_keys}


@dataclass(frozen=True)
class TrainConfig:
    """A training run: `train_config` makes one."""

    agent: str
    """The name of the agent in `agents.AGENTS`."""
    run: RunConfig
    settings: Any
    """The agent's config."""

    @property
    def run_dir(self) -> Path:
        """The directory of the results, once it has been chosen."""
        return Path(str(self.run.run_dir))

    def flat(self) -> dict[str, Any]:
        """Return all settings by name."""
        return vars(self.run) | vars(self.settings)

    def changed(self, values: Mapping[str, Any]) -> "TrainConfig":
        """Return a config with other values of some settings.

        Raises:
            ValueError: a value is out of its range.
        """
        return train_config(self.agent, self.flat() | dict(values))

    def with_workers(self, num_workers: int | None) -> "TrainConfig":
        """Return a config with this number of processes that step, unless it has one."""
        return self if self.run.num_workers else self.changed({"num_workers": num_workers})

    def record(self) -> dict[str, Any]:
        """Return the entries of `config.json` that hold the configuration."""
        return {"agent": self.agent, "run": asdict(self.run), "settings": asdict(self.settings)}


def train_config(agent: str = DEFAULT_AGENT, values: Mapping[str, Any] | None = None) -> TrainConfig:
    """Return the config of a run with some settings; the others have the defaults of the command line.

    Args:
        agent: its name.
        values: settings of `RunConfig` and of the agent's config, by name; names in lower case, as in flags, are valid.

    Raises:
        ValueError: the agent or a setting is unknown, or a value is out of its range.
    """
    kind = agent_kind(agent)
    names = setting_names(agent)
    values = kind.own_defaults | {names.get(name.lower(), name): value for name, value in (values or {}).items()}
    if unknown := values.keys() - {*names.values()}:
        raise ValueError(f"{agent} has no setting {', '.join(sorted(unknown))}")
    run, settings = (
        {each.name: values[each.name] for each in fields(config) if each.name in values}
        for config in (RunConfig, kind.config_class)
    )
    return TrainConfig(agent, RunConfig(**run), kind.config_class(**settings))


def setting_names(agent: str) -> dict[str, str]:
    """Return the names of the settings of a run and of its agent, by the name in lower case, as in flags."""
    return {name.lower(): name for name in setting_types(agent)}


def setting_types(agent: str) -> dict[str, Any]:
    """Return the types of the settings of a run and of its agent, as files and flags can hold them: no functions."""
    types = {**hints(RunConfig), **hints(agent_kind(agent).config_class)}
    return {name: _without_functions(hint) for name, hint in types.items()}


def _without_functions(hint: Any) -> Any:
    kinds = tuple(kind for kind in get_args(hint) if get_origin(kind) is not Callable)
    return hint if len(kinds) == len(get_args(hint)) else Union[kinds]  # noqa: UP007
