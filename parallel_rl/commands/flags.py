"""The flags of `train` and `tune`, made from the settings of a run and of its agent; and how flags are parsed."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import field, fields, make_dataclass
from functools import partial
from inspect import signature
from io import StringIO
from itertools import groupby
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import tyro
from typing_extensions import Doc
from tyro.conf import arg
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from parallel_rl.agents import AGENTS, agent_kind
from parallel_rl.commands.program import DISTRIBUTION, NAME
from parallel_rl.config import RunConfig, setting_names, setting_types, several_setting, train_config
from parallel_rl.utils import Config, setting, settings_class, settings_in
from parallel_rl.utils.names import nearest, sb3_hint
from parallel_rl.utils.settings import hints

REGISTRY = ConstructorRegistry()
GROUPED = (tyro.conf.OmitArgPrefixes, tyro.conf.HelptextFromCommentsOff)
"""A group of flags is only a box in the help: its name is not part of theirs.

Comments are not meant as help, and take time to find.
"""
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
        annotations = Doc(help), arg(help_behavior_hint=_default)
        groups[group].append((name.lower(), Annotated[hint, *annotations], field(default=value)))

    add("run", "agent", Literal[tuple(AGENTS)], "Algorithm; --agent NAME --help lists its settings.", agent)
    for config in (RunConfig, of_agent, others):
        for name, about in settings_in(config).items():
            if not (brief and name in WITHOUT_EFFECT_IN_TUNE):
                group = "agent" if config is of_agent else about.group or "run"
                add(group, name, types[name], about.help, default[name])
    made = {name: _flags_class(name, group, GROUPS[name]) for name, group in groups.items() if group}
    parts = [(name, kind, field(default_factory=kind)) for name, kind in made.items()]
    return _flags_class("CommandLine", parts, TUNE_HELP if tuning else TRAIN_HELP)


def _default(shown: str) -> str:
    """Return what the help adds about a default; nothing for None, no values and no text, which the help explains."""
    return f"(default: {shown})" if shown not in {"", "None", "''"} else ""


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

SEVERAL = re.compile(r"\d+(\.\.\d+|(,\d+)+)")
"""Several seeds: a range such as 0..4, or a list such as 0,3,7."""


class UsageError(ValueError):
    """A command line has an unknown flag, or a value of the wrong kind, or lacks one."""


def check_flags(arguments: Sequence[str], known: Mapping[str, object], prog: str, agent: str | None = None) -> None:
    """Check that the flags in a command line exist, that switches have no value, and that `--seed` has one seed.

    Args:
        arguments: of the command line.
        known: the names of its flags, and their defaults.
        prog: the name of the program, in its help.
        agent: whose flags they are; None: those of no agent.

    Raises:
        UsageError: one does not exist; the message names the agents that have it, or suggests another flag. Or a switch
            has a value, or `--seed` has several.
    """
    for word, following in zip(arguments, [*arguments, ""][1:], strict=True):
        flag, equals, value = word.partition("=")
        no = "no_" if flag.startswith("--no-") else ""
        name = flag[2:].replace("-", "_").removeprefix(no).lower()
        if not flag.startswith("--") or name == "help":
            continue
        if name in known:
            if isinstance(known[name], bool) and (equals or following.lower() in {"true", "false"}):
                raise UsageError(f"{flag} takes no value: there are {flag_of(name)} and {flag_of(f'no_{name}')}")
            value = value if equals else following
            if name == "seed" and "seeds" in known and SEVERAL.fullmatch(value):
                raise UsageError(f"--seed takes one seed: --seeds {value} trains with each of them")
            continue
        if agent and (owners := [other for other in AGENTS if name in setting_names(other)]):
            raise UsageError(f"{flag} is a flag of the agent {' and '.join(owners)}, not of {agent}")
        hint = sb3_hint(name, known) if agent else ""
        if found := None if hint else nearest(name, known):
            hint = f": did you mean {flag_of(no + found[0])}?{found[1]}"
        raise UsageError(f"no flag {flag}{hint or f'; {prog} --help lists them'}")


def flags_with_defaults(command: Callable[..., int]) -> dict[str, Any]:
    """Return the names and defaults of the flags of a command: of its parameters, those that are not positional."""
    parameters = signature(command).parameters.values()
    return {each.name: each.default for each in parameters if get_origin(each.annotation) is not Annotated}


def flag_of(name: str) -> str:
    """Return the flag of a setting."""
    return f"--{name.lower().replace('_', '-')}"


def parsed(kind: Any, name: str, arguments: Sequence[str], **options: Any) -> Any:
    """Parse a command line; return an instance of a class of arguments, or the call of a function that takes them.

    Args:
        kind: the class or function.
        name: of the program, in its help.
        arguments: the words of the command line.
        options: of `tyro.cli`.

    Raises:
        UsageError: a value is missing or of the wrong kind, or there is a word too many.
    """
    made = kind if isinstance(kind, type) else _call_of(kind)
    told = StringIO()
    try:
        with redirect_stderr(told):
            return tyro.cli(made, prog=name, args=arguments, registry=REGISTRY, config=GROUPED, **options)
    except SystemExit as leaving:
        if leaving.code == 0:  # the help
            raise
        raise UsageError(_first_part(told.getvalue())) from None


def _call_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that takes the arguments of another, and returns its call with them."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return partial(function, *args, **kwargs)

    about = arg(help_behavior_hint=_default)
    call.__annotations__ = {name: Annotated[hint, about] for name, hint in function.__annotations__.items()}
    call.__doc__, call.__signature__ = function.__doc__, signature(function)  # type: ignore[attr-defined]
    return call


def _first_part(box: str) -> str:
    """Return what a box of tyro says is wrong, as one line; below the first rule is the help of the argument."""
    rows = [row.strip("│| ") for row in re.sub(r"\x1b\[[\d;]*m", "", box).splitlines()[1:]]  # without the title
    parts = [" ".join(part) for is_rule, part in groupby(rows, lambda row: not row.strip("─-╰╯+")) if not is_rule]
    said = " ".join(parts[0].split()).removeprefix("Error parsing ") if parts else box.strip()
    said = re.sub(r"^Missing from .*?: (\S+) (.*) \(required\)$", r"\1 is missing: \2", said)
    return re.sub(r"^Missing value for argument '(\S+)'.*", r"\1 needs a value", said)


def whole_number(text: str) -> int:
    """Return the whole number in a text such as 1000000, 1_000_000 or 1e6.

    Raises:
        ValueError: it is not a whole number.
    """
    try:
        return int(text)
    except ValueError:
        with suppress(ValueError):
            number = float(text)
            if number.is_integer():
                return int(number)
        raise ValueError(f"{text!r} is not a whole number") from None


def number(text: str) -> float:
    """Return the number in a text.

    Raises:
        ValueError: it is not a number.
    """
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None


NUMBERS: dict[type, Callable[[str], float]] = {int: whole_number, float: number}
"""By type of a number: what reads it."""


@REGISTRY.primitive_rule
def _number(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """Read a number, or a number or None: tyro's own error for the latter names neither."""
    parts = get_args(info.type) if info.type_origin in {Union, UnionType} else (info.type,)
    kinds = [part for part in parts if part is not NoneType]
    if len(kinds) != 1 or kinds[0] not in NUMBERS:
        return None
    kind, optional = kinds[0], NoneType in parts
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{{None}}|{kind.__name__.upper()}" if optional else kind.__name__.upper(),
        instance_from_str=lambda words: None if optional and words[0] == "None" else NUMBERS[kind](words[0]),
        is_instance=lambda value: isinstance(value, int | kind) or (optional and value is None),
        str_from_instance=lambda value: [str(value)],
    )


@REGISTRY.primitive_rule
def _whole_numbers(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    if info.type_origin is not tuple or get_args(info.type) != (int, ...):
        return None
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="[INT [INT ...]]",
        instance_from_str=lambda words: tuple(whole_number(part) for word in words for part in word.split(",") if part),
        is_instance=lambda value: isinstance(value, tuple) and all(isinstance(part, int) for part in value),
        str_from_instance=lambda value: [*map(str, value)],
    )
