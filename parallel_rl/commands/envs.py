"""The command `envs`."""

from typing import TYPE_CHECKING

import tyro

from parallel_rl.presets import has_preset
from parallel_rl.utils import environments_of, registered

if TYPE_CHECKING:
    from gymnasium.envs.registration import EnvSpec


def envs(text: tyro.conf.Positional[str] = "") -> int:
    """List the environments that are registered, the newest version of each; a * marks those with a preset.

    Args:
        text: list only ids that contain it, in any case. With MODULE: before it, the environments of a module:
            minigrid: or minigrid:empty.
    """
    module, colon, text = text.rpartition(":")
    newest: dict[tuple[str | None, str], EnvSpec] = {}
    for spec in environments_of(module) if colon else registered():
        name = spec.namespace, spec.name
        if name not in newest or (spec.version or 0) > (newest[name].version or 0):
            newest[name] = spec
    known = sorted(spec.id for spec in newest.values() if text.lower() in spec.id.lower())
    for env_id in known:
        print(f"{'*' if has_preset(env_id) else ' '} {module}{colon}{env_id}")
    if not known:
        raise ValueError(f"no environment{f' of {module}' if module else ''} has {text!r} in its id")
    return 0
