"""The configuration of a training run: the agent, its settings, and those of the run.

`TrainConfig` is what a run records; `command_line` makes the flags of `train` from the same fields.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, make_dataclass
from functools import partial
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from typing_extensions import Doc

from parallel_rl.agents import AGENTS, agent_kind
from parallel_rl.utils import Config, setting, settings_class, settings_in
from parallel_rl.utils.names import SB3_HINTS, sb3_name
from parallel_rl.utils.settings import hints

DEFAULT_AGENT = "ppo"

environment_setting = partial(setting, group="environment")
collection_setting = partial(setting, group="collection")
evaluation_setting = partial(setting, group="evaluation")
copies_setting = partial(setting, group="copies")


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
        (), "Wrappers of the environment, MODULE:CLASS, innermost first: --wrapper minigrid.wrappers:ImgObsWrapper."
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
        "1: collect the next batch during an update, with the weights from before it; for agents that act in this "
        "process. On two cores it gains little or nothing.",
    )
    backend: Literal["auto", "inline", "process", "vector"] = collection_setting(
        "auto",
        "Step the environments in this process or in workers (auto measures which is faster), or with EnvPool, if "
        "it is installed (vector).",
    )
    num_workers: int | None = collection_setting(
        None, "Processes that step, this one included; by default one for each core.", least=1
    )
    on_env_error: Literal["raise", "restart"] = collection_setting(
        "raise", "End the run when an environment fails or its process dies, or restart that environment."
    )
    step_timeout: float | None = collection_setting(
        None, "Seconds that a step or reset of an environment may take; by default without a limit.", above=0
    )
    start_method: Literal["auto", "fork", "spawn", "forkserver"] = collection_setting(
        "auto", "How workers start; auto forks where the system supports it and this process can be forked safely."
    )
    close_timeout: float = collection_setting(
        5.0, "Seconds that workers may take to close their environments before they are killed.", least=0
    )
    run_dir: str | None = setting(None, "Directory for the results; by default runs/ENV_ID/DATE_TIME.")
    load_weights: str | None = setting(
        None, "A run directory, to start from its weights with its settings; or any directory of weights."
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
        60.0, "Seconds between checkpoints: a killed run loses no more.", above=0
    )
    keep_checkpoints: int = evaluation_setting(3, "Number of the newest checkpoints to keep.", above=0)
    info_keys: tuple[str, ...] = evaluation_setting(
        (), "Numbers in an episode's last info to report as means: --info-keys distance. is_success needs no key."
    )
    copies: int = copies_setting(
        1, "Copies of the agent, each with its own environments, that are combined while they train.", least=1
    )
    combine: Literal["mean", "best", "explore"] = copies_setting(
        "mean",
        "mean: all copies continue from the mean of their weights; best: all continue from the best copy; explore: the "
        "worst copies continue from one of the best, with a perturbed learning rate.",
    )
    combine_every: int = copies_setting(1024, "Steps of each copy between two combinations.", least=1)
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


def check_flags(agent: str, unknown: Sequence[str]) -> None:
    """Check that no argument that is unknown to an agent is a flag of another agent, or of Stable-Baselines3.

    Raises:
        ValueError: one is such a flag; the message names the agents that have it, or our flag.
    """
    for flag in (argument.partition("=")[0] for argument in unknown if argument.startswith("--")):
        name = flag.removeprefix("--").removeprefix("no-").replace("-", "_").lower()
        if owners := [other for other in AGENTS if name in setting_names(other)]:
            raise ValueError(f"{flag} is a flag of the agent {' and '.join(owners)}, not of {agent}")
        if found := sb3_name(name, {"agent", *setting_types(agent)}):
            raise ValueError(f"no flag {flag}: did you mean {flag_of(found[0])}?{found[1]}")
        if name in SB3_HINTS:
            raise ValueError(f"no flag {flag}: {SB3_HINTS[name]}")


def flag_of(name: str) -> str:
    """Return the flag of a setting."""
    return f"--{name.lower().replace('_', '-')}"


def setting_types(agent: str) -> dict[str, Any]:
    """Return the types of the settings of a run and of its agent, as files and flags can hold them: no functions."""
    types = {**hints(RunConfig), **hints(agent_kind(agent).config_class)}
    return {name: _without_functions(hint) for name, hint in types.items()}


def _without_functions(hint: Any) -> Any:
    kinds = tuple(kind for kind in get_args(hint) if get_origin(kind) is not Callable)
    return hint if len(kinds) == len(get_args(hint)) else Union[kinds]  # noqa: UP007


Flag = tuple[str, Any, str, Any]
"""Name, type, help and default of a flag that is not a setting."""
PRESET: Flag = (
    "preset",
    str | None,
    "A JSON file of settings, such as the one that tune writes, in place of the environment's preset; none: only the "
    "defaults for the environment's spaces.",
    None,
)
CONFIG: Flag = (
    "config",
    str | None,
    "A run directory, or its config.json, whose settings replace the defaults and the environment's preset.",
    None,
)
SEEDS: Flag = (
    "seeds",
    str | None,
    "Train once with each of these seeds (0..4 or 0,3,7), in parallel, each in its own directory.",
    None,
)
CLUSTER: Flag = (
    "cluster",
    Literal["none", "local", "ray"],
    "Train on several ranks, each with its own environments; local: processes on this machine; ray: one on each "
    "machine of a Ray cluster (pip install ray).",
    "none",
)
NODES: Flag = ("nodes", int, "Number of ranks of --cluster.", 1)
MIN_NODES: Flag = (
    "min_nodes",
    int | None,
    "Replace lost ranks while the others go on; with fewer than this, wait. By default a lost rank ends a local run, "
    "and a run on Ray waits for all ranks.",
    None,
)
PREEMPT: Flag = (
    "preempt",
    float | None,
    "Once this fraction of the ranks has collected its share of a batch, the others stop collecting (0.6 in DD-PPO).",
    None,
)
TRIALS: Flag = ("trials", int, "Number of trials in all, over all processes and earlier calls.", 30)
TRUST: Flag = (
    "trust_env_module",
    bool,
    "Import the modules that --config or the run in --load-weights names; those in other flags are always imported.",
    False,
)


GROUPS = {
    "run": "What is trained, for how long, and where the results go.",
    "environment": "What the agent acts in.",
    "collection": "How experience is collected.",
    "evaluation": "What is evaluated, saved and reported.",
    "copies": "Copies of the agent that are combined.",
    "agent": "The settings of the agent.",
}
"""The groups of flags in the help, and their sentences."""


def command_line(agent: str, *, tuning: bool = False) -> type:
    """Return a dataclass of the flags of `train` or `tune` for an agent, with the defaults and help of the settings.

    Its fields are the groups, dataclasses themselves; `flat_flags` and `with_defaults` look through them.
    """
    types, default = setting_types(agent), train_config(agent).flat()
    settings = [*fields(RunConfig), *fields(agent_kind(agent).config_class)]
    flags = [
        ("agent", Literal[tuple(AGENTS)], "Algorithm; --agent NAME --help lists its settings.", agent),
        *(
            (each.name.lower(), types[each.name], each.metadata["setting"].help, default[each.name])
            for each in settings
        ),
        CONFIG,
        PRESET,
        *([TRIALS] if tuning else [SEEDS, CLUSTER, NODES, MIN_NODES, PREEMPT]),
        TRUST,
    ]
    group_of = dict.fromkeys(map(str.lower, settings_in(agent_kind(agent).config_class)), "agent")
    group_of |= {name: about.group or "run" for name, about in settings_in(RunConfig).items()}
    groups: dict[str, list[Any]] = {name: [] for name in GROUPS}
    for name, hint, help, value in flags:
        groups[group_of.get(name, "run")].append((name, Annotated[hint, Doc(help)], field(default=value)))
    made = {name: _flags_class(name, group, GROUPS[name]) for name, group in groups.items()}
    parts = [(name, kind, field(default_factory=kind)) for name, kind in made.items()]
    return _flags_class("CommandLine", parts, TUNE_HELP if tuning else TRAIN_HELP)


def _flags_class(name: str, flags: Any, help: str) -> type:
    return make_dataclass(name, flags, frozen=True, namespace={"__doc__": help})


def flat_flags(parsed: Any) -> dict[str, Any]:
    """Return the values of all flags in an instance of a `command_line`, by name."""
    return {name: value for group in vars(parsed).values() for name, value in vars(group).items()}


def with_defaults(flags: Any, values: Mapping[str, Any]) -> Any:
    """Return an instance of a `command_line` with some values."""
    groups = {}
    for each in fields(flags):
        kind: Any = each.default_factory
        groups[each.name] = kind(**{flag.name: values[flag.name] for flag in fields(kind) if flag.name in values})
    return flags(**groups)


TRAIN_HELP = """Train an agent on a Gymnasium environment.

The defaults are those of the environment's preset or, if it has none, those for its spaces.

Other commands, each with its own --help: tune, resume, evaluate, record, watch, plot, export, envs.
"""
TUNE_HELP = """Search for better settings of an agent by Optuna, each trial a short training run.

The flags are those of train; the first trial has their settings. The same command continues a search, and may run in
several processes at once.
"""
