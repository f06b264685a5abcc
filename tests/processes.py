"""Helpers for tests about processes."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECONDS = 100.0
"""After how long something that is to happen has not."""
FORK: dict[str, Any] = {"backend": "process", "num_workers": 2, "start_method": "fork"}


def wait_until(condition: Callable[[], bool], what: str, seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
