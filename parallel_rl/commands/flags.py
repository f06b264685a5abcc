"""The flags of `train` and `tune`, made from the settings of a run and of its agent."""

from collections.abc import Mapping
from dataclasses import field, fields, make_dataclass
from typing import Annotated, Any, Literal

from typing_extensions import Doc

from parallel_rl.agents import AGENTS, agent_kind
from parallel_rl.commands.parsing import ABOUT_DEFAULTS
from parallel_rl.commands.program import DISTRIBUTION, NAME
from parallel_rl.config import RunConfig, setting_types, several_setting, train_config
from parallel_rl.utils import Config, setting, settings_class, settings_in
from parallel_rl.utils.settings import hints

ClusterName = Literal["none", "local", "ray"]
TYPED = NAME if NAME == DISTRIBUTION else f"./{NAME}"
"""What a user types to start this program without an interpreter."""


@settings_class
class Flags(Config):
    """The flags of `train` and `tune` that are neither settings of the run nor of the agent."""

    config: str | None = setting(
        None, "A run directory, or its config.json, whose settings replace the defaults and the environment's preset."
    )
    preset: str | None = setting(
        None,
        "A JSON file of settings, such as the one that tune writes, in place of the environment's preset; none: only "
        "the defaults for the environment's spaces.",
    )
    trust_env_module: bool = setting(
        False,
        "Import the modules that --config or the run in --load-weights names; those in other flags are always "
        "imported.",
    )


@settings_class
class TrainFlags(Flags):
    """Those of `train`."""

    seeds: str | None = several_setting(
        None, "Train once with each of these seeds (0..4 or 0,3,7), in parallel, each in its own directory."
    )
    cluster: ClusterName = several_setting(
        "none",
        "Train on several ranks, each with its own environments; local: processes on this machine; ray: one on each "
        "machine of a Ray cluster (pip install ray).",
    )
    nodes: int = several_setting(1, "Number of ranks of --cluster.")
    min_nodes: int | None = several_setting(
        None,
        "Replace lost ranks while the others go on; with fewer than this, wait. By default a lost rank ends a local "
        "run, and a run on Ray waits for all ranks.",
    )
    preempt: float | None = several_setting(
        None,
        "Once this fraction of the ranks has collected its share of a batch, the others stop collecting (0.6 in "
        "DD-PPO).",
    )


@settings_class
class TuneFlags(Flags):
    """Those of `tune`."""

    trials: int = setting(30, "Number of trials in all, over all processes and earlier calls.")


GROUPS = {
    "run": "What is trained, for how long, and where the results go.",
    "environment": "What the agent acts in.",
    "collection": "How experience is collected.",
    "evaluation": "What is evaluated, saved and reported.",
    "several": "Several seeds, copies of the agent, or machines.",
    "agent": "The settings of the agent.",
}
"""The groups of flags in the help, and their sentences."""
WITHOUT_EFFECT_IN_TUNE = {
    *("copies", "combine", "combine_every"),
    *("eval_every", "checkpoint_seconds", "keep_checkpoints", "track"),
}
"""Flags that `tune` shares with `train`, but does not use."""


def command_line(agent: str, *, tuning: bool = False, brief: bool = False) -> type:
    """Return a dataclass of the flags of `train` or `tune` for an agent, with the defaults and help of the settings.

    Its fields are the groups, dataclasses themselves; `flat_flags` and `with_defaults` look through them.

    Args:
        agent: its name.
        tuning: whether the flags are those of `tune`.
        brief: leave out the flags of `train` that have no effect on `tune`.
    """
    of_agent, others = agent_kind(agent).config_class, TuneFlags if tuning else TrainFlags
    types = {**setting_types(agent), **hints(others)}
    default = train_config(agent).flat() | vars(others())
    groups: dict[str, list[Any]] = {name: [] for name in GROUPS}

    def add(group: str, name: str, hint: Any, help: str, value: Any) -> None:
        groups[group].append((name.lower(), Annotated[hint, Doc(help), ABOUT_DEFAULTS], field(default=value)))

    add("run", "agent", Literal[tuple(AGENTS)], "Algorithm; --agent NAME --help lists its settings.", agent)
    for config in (RunConfig, of_agent, others):
        for name, about in settings_in(config).items():
            if not (brief and name in WITHOUT_EFFECT_IN_TUNE):
                group = "agent" if config is of_agent else about.group or "run"
                add(group, name, types[name], about.help, default[name])
    made = {name: _flags_class(name, group, GROUPS[name]) for name, group in groups.items() if group}
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


TRAIN_HELP = f"""Train an agent on a Gymnasium environment.

The defaults shown are for the environment (--env-id, by default CartPole-v1): those of its preset or, if it has none,
those for its spaces.

Other commands, each with its own --help: tune, resume, evaluate, record, watch, plot, export, envs; --version. Tab
completion in bash: source <({TYPED} --tyro-print-completion bash). The commands of pyrl (ddpg-train, ...) are in
docs/offpolicy.md.
"""
TUNE_HELP = """Search for better settings of an agent by Optuna, each trial a short training run.

The flags are those of train; the first trial has their settings. The same command continues a search, and may run in
several processes at once.
"""
