"""Settings for environments that the defaults do not serve; `main.py` looks them up by `--env-id`."""

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {}
"""By environment id."""
RND_PRESETS: dict[str, dict[str, Any]] = {}
"""By environment id: on top of the above, with `--use-rnd`."""


def preset(env_id: str, use_rnd: bool = False) -> dict[str, Any]:
    """Return the settings of `TrainConfig` in which an environment differs from the defaults."""
    return PRESETS.get(env_id, {}) | (RND_PRESETS.get(env_id, {}) if use_rnd else {})
