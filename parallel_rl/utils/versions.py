"""What a file was written by."""

import platform
from importlib.metadata import version

VERSION = "0.1.0"
"""Of this project: that of CITATION.cff."""
LIBRARIES = ("torch", "gymnasium", "numpy")


def versions() -> dict[str, str]:
    """Return the versions that numbers may depend on, by name."""
    return {"project": VERSION, "python": platform.python_version()} | {name: version(name) for name in LIBRARIES}
