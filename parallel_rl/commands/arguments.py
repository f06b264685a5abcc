"""The command line of `train`: from arguments to a config."""

import argparse
from collections.abc import Collection, Sequence
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from AsyncPPO.acting import can_lag
from AsyncPPO.factory import sample_env
from parallel_rl.agents import AGENTS, agent_kind
from parallel_rl.commands.build import factory_of
from parallel_rl.commands.flags import command_line, flat_flags, with_defaults
from parallel_rl.commands.parsing import UsageError, check_flags, flag_of, gathered, parsed
from parallel_rl.commands.program import NAME
from parallel_rl.commands.run_directory import CONFIG_FILE, config_in
from parallel_rl.commands.trust import check_trust
from parallel_rl.commands.values import checked
from parallel_rl.config import DEFAULT_AGENT, RunConfig, TrainConfig, setting_names, setting_types, train_config
from parallel_rl.presets import defaults_for, has_preset, preset
from parallel_rl.utils import SettingValues, read_json, settings_in
from parallel_rl.utils.names import sb3_name, suggestion

NO_PRESET = "none"
"""The value of `--preset` for none."""
HELP = {"-h", "--help"}
PRESET_OF_RUN = ("steps", "num_envs", "mode")
"""Settings of a run that the file of a preset may hold, besides those of the agent."""


def parse(arguments: Sequence[str], *, tuning: bool = False) -> tuple[TrainConfig, Any]:
    """Return the config of a command line, and all its flags.

    The config has the defaults, then the preset (the environment's, or that of `--preset`) or the settings that suit
    the environment's spaces, then the flags. The file of `--config`, or the config of a run in `--load-weights`,
    replaces all but the flags and the file of `--preset`. The seed of a run in `--load-weights` is increased by 1, so
    that the new run does not repeat the old one.

    Args:
        arguments: of the command line.
        tuning: whether they are flags of `tune`, not of `train`.

    Raises:
        ValueError: a setting is out of its range, a flag belongs to another agent, or the run's config names a module
            that is not trusted.
    """
    arguments = gathered(arguments)
    agent, source, before, from_file = _agent_in(arguments)
    flags: Any = command_line(agent, tuning=tuning)
    prog = f"{NAME} tune" if tuning else NAME
    without_help = [argument for argument in arguments if argument not in HELP]
    check_flags(without_help, flat_flags(flags()), prog, agent)
    typed: Any = SimpleNamespace(**flat_flags(parsed(flags, prog, without_help)))
    if before is not None:
        origin, settings = f"those of {source}", before.flat() | {"run_dir": None, "load_weights": None}
        settings["seed"] += typed.config is None
    else:
        origin, settings = _preset_or_suited(agent, typed)
    settings = {name.lower(): value for name, value in (settings | from_file).items()}
    if len(without_help) < len(arguments):
        shown = command_line(agent, tuning=tuning, brief=tuning)
        parsed(shown, prog, arguments, default=with_defaults(shown, settings))  # prints the help and exits
    defaults, given = flat_flags(with_defaults(flags, settings)), _named_in(arguments)
    values = defaults | {name: value for name, value in vars(typed).items() if name in given}
    if {"seed", "seeds"} <= given:
        raise ValueError("give either --seed or --seeds")
    config = train_config(agent, {name: values[name] for name in setting_names(agent)})
    _check_together(config, given)
    if source is not None:
        check_trust(config.run, source, typed.trust_env_module, typed=typed)
    return config, SimpleNamespace(**values, origin=origin + _by_flags(agent, values, defaults))


def _check_together(config: TrainConfig, given: Collection[str]) -> None:
    """Check that no flag contradicts another, or has no effect without it.

    Args:
        config: of the command line.
        given: the names of its flags.

    Raises:
        ValueError: one does; the message names the flags.
    """
    run = config.run
    for settings in (run, config.settings):
        changed = {each.name for each in fields(settings) if getattr(settings, each.name) != each.default}
        for name, about in settings_in(type(settings)).items():
            needs = about.needs.split()
            if name in changed and name.lower() in given and needs and changed.isdisjoint(needs):
                others = " and ".join(f"{other}={getattr(settings, other)!r}" for other in needs)
                raise ValueError(f"{flag_of(name)} has no effect with {others}")
    if run.lag and not can_lag(agent_kind(config.agent).agent_class, run.acting, run.mode):
        raise ValueError("--lag 1 needs an on-policy agent (--agent ppo), --mode streaming, and no --acting replicas")


def check_resume(arguments: Sequence[str], known: Collection[str]) -> None:
    """Check that no flag of `resume` is a setting of an agent.

    Args:
        arguments: of the command line.
        known: the names of its flags.

    Raises:
        UsageError: one is; the message says how `--override` changes it.
    """
    for word, following in zip(arguments, [*arguments, "VALUE"][1:], strict=True):
        flag, _, value = word.partition("=")
        name = flag.removeprefix("--").replace("-", "_").lower()
        if not flag.startswith("--") or name in known:
            continue
        names = {name.lower(): name for agent in AGENTS for name in settings_in(agent_kind(agent).config_class)}
        theirs = sb3_name(name, names.values())
        if found := names.get(name) or (theirs and theirs[0]):
            raise UsageError(f"resume has no flag {flag}: pass --override {found}={value or following}")


def _named_in(arguments: Sequence[str]) -> set[str]:
    """Return the names of the flags in a command line; `--no-NAME` is one of `NAME`."""
    names = {word[2:].partition("=")[0].replace("-", "_") for word in arguments if word.startswith("--")}
    return names | {name.removeprefix("no_") for name in names}


def _preset_or_suited(agent: str, typed: Any) -> tuple[str, SettingValues]:
    """Return in words where the settings of a new run come from; and the settings: a preset's or those for the spaces.

    With `--preset FILE` they are empty but for the environment: the caller adds those of the file.
    """
    own = {"env_id": typed.env_id}
    if typed.preset not in (None, NO_PRESET):
        return f"the preset {typed.preset}", own
    recurrent = getattr(typed, "core", "none") != "none"
    if typed.preset is None and has_preset(typed.env_id, agent):
        use_rnd = getattr(typed, "use_rnd", False) or "rnd" in getattr(typed, "companions", ())
        origin, settings = f"the preset of {typed.env_id}", preset(agent, typed.env_id, use_rnd, recurrent)
    else:
        run = RunConfig(**{each.name: getattr(typed, each.name) for each in fields(RunConfig)})
        with sample_env(factory_of(run)) as env:
            origin, settings = "defaults for the spaces of the environment", defaults_for(agent, env, recurrent)
    if getattr(typed, "hindsight", "none") != "none":  # which needs single steps
        settings = {name: value for name, value in settings.items() if name != "n_step"}
    return origin, settings | own


def _by_flags(agent: str, values: SettingValues, defaults: SettingValues) -> str:
    """Return the flags, in words, that change the settings which a preset may hold."""
    names = [name.lower() for name in (*PRESET_OF_RUN, *settings_in(agent_kind(agent).config_class))]
    flags = [flag_of(name) for name in names if values[name] != defaults[name]]
    return f", and {' '.join(flags)}" if flags else ""


def _agent_in(arguments: Sequence[str]) -> tuple[str, Path | None, TrainConfig | None, SettingValues]:
    """Return the agent, the file and the config of `--config` or `--load-weights` (or None), and the preset.

    Raises:
        ValueError: the agent is unknown, or differs from that of a file, or a file is not valid.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("agent", "config", "load-weights", "preset"):
        parser.add_argument(f"--{name}", f"--{name.replace('-', '_')}", nargs="?")  # `parse` tells if it is missing
    named, _ = parser.parse_known_args(arguments)
    sources: dict[str, str] = {}
    source, config, content = None, None, SettingValues()
    if named.load_weights is not None and (Path(named.load_weights) / CONFIG_FILE).is_file():
        source = Path(named.load_weights) / CONFIG_FILE
        config = config_in(source)
        sources[f"the weights in {named.load_weights} are"] = config.agent
    if named.config is not None:
        source = Path(named.config)
        source = source / CONFIG_FILE if source.is_dir() else source
        config = config_in(source)
        sources[f"{source} is"] = config.agent
    if named.preset is not None:
        content = {} if named.preset == NO_PRESET else read_json(named.preset)
        if "agent" in content:
            sources[f"{named.preset} is"] = str(content.pop("agent"))
    agent = named.agent or next(iter(sources.values()), DEFAULT_AGENT)
    for what, other in sources.items():
        if other != agent:
            raise ValueError(f"{what} of the agent {other!r}, not {agent!r}")
    return agent, source, config, _checked_preset(named.preset, agent, content)


def _checked_preset(file: str, agent: str, content: SettingValues) -> SettingValues:
    """Check the settings of a preset, and convert them to their types.

    Raises:
        ValueError: the agent or a preset has no such setting, or a value has a wrong type.
    """
    types = setting_types(agent)
    known = {name: types[name] for name in (*PRESET_OF_RUN, *settings_in(agent_kind(agent).config_class))}
    for name in content:
        if name not in known:
            raise ValueError(f"{file}: a preset of {agent} has no setting {name!r}{suggestion(name, known)}")
    try:
        return {name: checked(name, value, known[name]) for name, value in content.items()}
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
