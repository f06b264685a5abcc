"""The settings of a PPO as plain values: to save them, restore an agent from them, and compare two agents."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from gymnasium import spaces

from parallel_rl.networks.weights import Settings
from parallel_rl.utils import Features, choices_of, leaves, make_space, settings_in
from parallel_rl.utils.parts import Numbers
from parallel_rl.utils.records import in_words, plain
from parallel_rl.utils.schedules import LostSchedule
from PPO.actor_critic import ActorCritic
from PPO.companions import Companion
from PPO.config import PPOConfig
from PPO.spaces import BOUNDS, ForEnv, is_finite, rebounded, unit_of

DEFAULTS = {each.name: each.default for each in fields(ForEnv) if each.name != "env"}
"""The values of arguments that older versions lacked."""
CALLABLES = ("encoder", "actor_critic")
"""Arguments that cannot be saved."""
SCHEDULES = ("lr", "policy_clip")
"""Settings of which only the name is saved if they are functions."""


def plain_arguments(arguments: Mapping[str, Any]) -> Settings:
    """Return arguments of `PPO` as plain values, without `device`; functions and classes as their names."""
    return {name: _plain(value) for name, value in arguments.items() if name != "device"}


def arguments_of(settings: Settings, given: dict[str, Any]) -> dict[str, Any]:
    """Return arguments of `PPO`.

    Args:
        settings: the result of `plain_arguments`.
        given: arguments that replace saved ones.

    Raises:
        ValueError: the settings describe no spaces, a callable is missing, or a given argument is out of its range.
    """
    arguments = dict(settings)
    for name in CALLABLES:
        if arguments.pop(name, None) is not None and name not in given:
            raise ValueError(f"the agent had its own {name}, {settings[name]}, which no file holds: give {name}=")
    for name in SCHEDULES:
        if isinstance(arguments.get(name), str):
            arguments[name] = LostSchedule(name, arguments[name])
    own = [companion["is"] for companion in arguments.get("companions", []) if isinstance(companion, dict)]
    if own and "companions" not in given:
        raise ValueError(f"the agent had companions, {', '.join(own)}, which no file holds: give companions=")
    for name in ("observation_space", "action_space"):
        arguments[name] = make_space(arguments.get(name))
    if not given.keys().isdisjoint(BOUNDS):
        space = arguments["action_space"]
        arguments["action_space"] = rebounded(space, settings, given) if isinstance(space, spaces.Box) else None
    return arguments | given


def differences(saved: Settings, own: Settings, *, learning: bool = False) -> list[str]:
    """Return the differences between settings that change what weights mean, in words.

    Args:
        saved: a result of `plain_arguments`, also of an older version, which had fewer.
        own: the settings of the current agent.
        learning: whether to compare also the settings of the update.

    Raises:
        ValueError: this version does not know some of the saved settings.
    """
    saved = plain_arguments(DEFAULTS) | saved
    if unknown := saved.keys() - own.keys():
        raise ValueError(f"there are settings that this version does not know: {', '.join(sorted(unknown))}")
    there, here = (_meaning(settings) | (_learning(settings) if learning else {}) for settings in (saved, own))
    different = [name for name in here if there[name] != here[name]]
    different = [name for name in different if saved[name] != own[name]] or different  # the others follow from these
    return in_words(different, saved, own, _text)


def _meaning(settings: Settings) -> dict[str, Any]:
    """Return, in one form each, the settings that weights depend on: the same setting may be written differently.

    A setting that has no effect here is None, so that it may differ.
    """
    features = Features.of(make_space(settings["observation_space"]))
    flat = len(features.numbers) == 1 and features == Features((Numbers((), features.numbers[0].shape),), ())
    actions = [*leaves(make_space(settings["action_space"]))]
    bounded = any(isinstance(part, spaces.Box) and is_finite(part) for _, part in actions)
    usual, recurrent = settings["encoder"] is None, settings["core"] != "none"
    companions = _companions(settings)
    share = recurrent or bool(features.images) if settings["share_encoder"] is None else settings["share_encoder"]
    structure = {name: settings[name] for name, about in settings_in(PPOConfig).items() if about.structure}
    return structure | {
        "observation_space": features.columns if flat else features,
        "action_space": [(keys, _range(part)) for keys, part in actions],
        "action_scaling": unit_of(make_space(settings["action_space"]), settings["action_scaling"]).tolist(),
        "squash_actions": settings["squash_actions"] and bounded,
        "share_encoder": share,
        "core_size": settings["core_size"] if recurrent else None,
        "hidden_sizes": settings["hidden_sizes"] if usual else None,
        "activation": settings["activation"] if usual and settings["hidden_sizes"] else None,
        "normalize_obs": settings["normalize_obs"] and bool(features.vector),
        "use_RND": "rnd" in companions,
        "companions": [companion["is"] if isinstance(companion, dict) else companion for companion in companions],
        **{name: settings[name] is None for name in CALLABLES},
    }


def _range(space: spaces.Space) -> Any:
    """Return the bounds or the choices of a space without parts."""
    if isinstance(space, spaces.Box):
        return [bound.astype(np.float32).flatten().tolist() for bound in (space.low, space.high)]
    return choices_of(space)


def _learning(settings: Settings) -> dict[str, Any]:
    """Return the settings that learning depends on, but not the meaning of the weights."""
    return {
        name: settings[name]
        for name, about in settings_in(PPOConfig).items()
        if not (about.structure or about.incidental)
    } | {"companions": _companions(settings)}


def _companions(settings: Settings) -> list[Any]:
    """Return all companions, as names or as the settings of objects; `use_RND` counts as the name rnd."""
    named = [*settings["companions"]]
    return ["rnd"] * (settings["use_RND"] and "rnd" not in named) + named


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, Companion):
        return {"is": plain(type(value)), **value.settings()}
    return None if value is ActorCritic else plain(value)


def _text(value: Any) -> str:
    return str(make_space(value)) if isinstance(value, dict) else repr(value)
