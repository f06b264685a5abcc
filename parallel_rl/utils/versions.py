"""Versions of this project and its libraries, recorded in files."""

import platform
from importlib.metadata import version

VERSION = "0.2.0"
"""The version of this project, as in pyproject.toml and CITATION.cff."""
LIBRARIES = ("torch", "gymnasium", "numpy")


def versions() -> dict[str, str]:
    """Return the versions that results may depend on, by name."""
    return {"project": VERSION, "python": platform.python_version()} | {name: version(name) for name in LIBRARIES}
