"""The name of this program on the command line, and its commit."""

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from parallel_rl.utils.versions import VERSION

DISTRIBUTION = "parallel-rl"
"""The name of the installed package, and of its console command."""
CHECKOUT = Path(__file__).parents[2]
"""Where main.py is, unless the package is installed."""


def _program() -> str:
    """Return what a user types to call this program from the current directory with this interpreter."""
    script = CHECKOUT / "main.py"
    if Path(sys.argv[0]).stem == DISTRIBUTION or not script.is_file():
        return DISTRIBUTION
    python = "python" if shutil.which("python") == sys.executable else _from_here(sys.executable)
    return f"{python} {_from_here(script)}"


def _from_here(path: str | Path) -> str:
    """Return a path relative to the current directory; on another drive of Windows, the path itself."""
    try:
        return os.path.relpath(path)
    except ValueError:
        return str(path)


PROGRAM = _program()
NAME = PROGRAM.rpartition("/")[2].rpartition(" ")[2]
"""Its name in the help."""


def version() -> str:
    """Return the version of this program, and its commit if known."""
    known = commit()
    return VERSION if known is None else f"{VERSION} ({known})"


def commit() -> str | None:
    """Return the commit of this program, with a `+` if the checkout has uncommitted changes; None if unknown.

    For an installed package git is not used: it would find the repository of the project that the package is installed
    in. The source of the installation is in direct_url.json (PEP 610).
    """
    if not (CHECKOUT / ".git").exists():
        try:
            origin = json.loads(metadata.distribution(DISTRIBUTION).read_text("direct_url.json") or "{}")
        except metadata.PackageNotFoundError:
            return None
        return origin.get("vcs_info", {}).get("commit_id")
    try:
        head, changed = (
            subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=False)
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except OSError:
        return None
    return head.stdout.strip() + ("+" if changed.stdout else "") if head.returncode == 0 else None
