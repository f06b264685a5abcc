"""List what can be trained on."""

from contextlib import suppress

import tyro

from presets import has_preset


def envs(text: tyro.conf.Positional[str] = "") -> int:
    """List the environments that are registered, the newest version of each; a * marks those with a preset.

    Args:
        text: only ids that have this in them, in capitals or not.
    """
    import gymnasium as gym

    with suppress(ImportError):
        import ale_py

        gym.register_envs(ale_py)
    with suppress(ImportError):
        from minatar.gym import register_envs

        register_envs()
    newest: dict[tuple[str | None, str], gym.envs.registration.EnvSpec] = {}
    for spec in gym.registry.values():
        name = spec.namespace, spec.name
        if name not in newest or (spec.version or 0) > (newest[name].version or 0):
            newest[name] = spec
    known = sorted(spec.id for spec in newest.values() if text.lower() in spec.id.lower())
    for env_id in known:
        print(f"{'*' if has_preset(env_id) else ' '} {env_id}")
    if not known:
        raise ValueError(f"no environment has {text!r} in its id")
    return 0
