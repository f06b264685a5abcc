"""The command `envs`."""

from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

import tyro

from parallel_rl.presets import has_preset

if TYPE_CHECKING:
    from gymnasium.envs.registration import EnvSpec


def envs(text: tyro.conf.Positional[str] = "") -> int:
    """List the environments that are registered, the newest version of each; a * marks those with a preset.

    Args:
        text: list only ids that contain this text (upper and lower case are the same). MODULE: before it lists the
            environments of a module: minigrid: lists all, minigrid:empty some.
    """
    module, colon, text = text.rpartition(":")
    newest: dict[tuple[str | None, str], EnvSpec] = {}
    for spec in _brought_by(module) if colon else _registered():
        name = spec.namespace, spec.name
        if name not in newest or (spec.version or 0) > (newest[name].version or 0):
            newest[name] = spec
    known = sorted(spec.id for spec in newest.values() if text.lower() in spec.id.lower())
    for env_id in known:
        print(f"{'*' if has_preset(env_id) else ' '} {module}{colon}{env_id}")
    if not known:
        raise ValueError(f"no environment{f' of {module}' if module else ''} has {text!r} in its id")
    return 0


def _registered() -> "list[EnvSpec]":
    """Return the environments that are registered without importing a further module."""
    import gymnasium as gym

    with suppress(ImportError):
        import ale_py

        gym.register_envs(ale_py)
    with suppress(ImportError):
        from minatar.gym import register_envs

        register_envs()
    return [*gym.registry.values()]


def _brought_by(module: str) -> "list[EnvSpec]":
    """Return the environments of a module: those registered by importing it, or before that if it is a plugin."""
    import gymnasium as gym

    before = {*gym.registry}
    try:
        import_module(module)
    except (ImportError, ValueError) as error:
        raise ValueError(f"no module {module!r} ({error})") from None
    return [spec for env_id, spec in gym.registry.items() if env_id not in before or _lies_in(spec, module)]


def _lies_in(spec: "EnvSpec", module: str) -> bool:
    entry = spec.entry_point
    home = entry.partition(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", "")
    return f"{home}.".startswith(f"{module}.")
