"""The command line of `train`: from arguments to a config."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from parallel_rl.commands.program import NAME
from parallel_rl.commands.run_directory import CONFIG_FILE, config_of
from parallel_rl.commands.trust import check_trust
from parallel_rl.config import DEFAULT_AGENT, TrainConfig, check_flags, command_line, train_config
from parallel_rl.presets import preset

NO_SETTINGS = {"agent", "seeds", "trust_env_module"}
"""Flags that are not settings."""
REPEATABLE = ("--env-kwargs", "--wrapper", "--info-keys")
"""Flags that may be given several times, each time with one or more values."""


def parse(arguments: Sequence[str]) -> TrainConfig:
    """Return the config of a command line: the defaults, the environment's preset, then the flags.

    If `--load-weights` names a run, its config replaces defaults and preset, and its seed plus 1 is the new default, so
    that the new run does not repeat the old one.

    Raises:
        ValueError: a setting is out of its range, a flag belongs to another agent, or the run's config names a module
            that is not trusted.
    """
    arguments = _gathered(arguments)
    agent, before = _agent_in(arguments)
    flags: Any = command_line(agent)
    without_help = [argument for argument in arguments if argument not in {"-h", "--help"}]
    typed, unknown = tyro.cli(flags, prog=NAME, args=without_help, return_unknown_args=True)
    check_flags(agent, unknown)
    use_rnd = getattr(typed, "use_rnd", False) or "rnd" in getattr(typed, "companions", ())
    settings = preset(agent, typed.env_id, use_rnd) | {"env_id": typed.env_id}
    if before is not None:
        settings = before.flat() | {"run_dir": None, "seed": before.run.seed + 1}
    defaults = flags(**{name.lower(): value for name, value in settings.items()})
    values = vars(tyro.cli(flags, prog=NAME, args=arguments, default=defaults))
    config = train_config(agent, {name: value for name, value in values.items() if name not in NO_SETTINGS})
    if before is not None:
        check_trust(config.run, Path(typed.load_weights) / CONFIG_FILE, typed.trust_env_module, typed=typed)
    return config


def _agent_in(arguments: Sequence[str]) -> tuple[str, TrainConfig | None]:
    """Return the agent that a command line names, and the config of the run that `--load-weights` names, if any.

    Raises:
        ValueError: the agent is unknown, or differs from the run's.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--agent", default=None)
    parser.add_argument("--load-weights", "--load_weights", default=None)
    named, _ = parser.parse_known_args(arguments)
    if named.load_weights is None or not (Path(named.load_weights) / CONFIG_FILE).is_file():
        return named.agent or DEFAULT_AGENT, None
    before = config_of(Path(named.load_weights))
    if named.agent not in (None, before.agent):
        raise ValueError(f"the weights in {named.load_weights} are of the agent {before.agent!r}, not {named.agent!r}")
    return before.agent, before


def _gathered(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with each flag of `REPEATABLE` once, with all its values: tyro would use only the last."""
    values: dict[str, list[str]] = {}
    rest: list[str] = []
    into = rest
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        flag = flag.replace("_", "-")
        if flag in REPEATABLE:
            into = values.setdefault(flag, [])
            into += [value] if equals else []
            continue
        if argument.startswith("-"):
            into = rest
        into.append(argument)
    return rest + [word for flag, given in values.items() for word in (flag, *given)]
