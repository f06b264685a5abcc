"""The command line as a new process, or as a fork of this one, which has already imported torch."""

import multiprocessing
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from parallel_rl import main
from parallel_rl.commands.arguments import parse
from parallel_rl.config import TrainConfig
from tests.processes import SECONDS, wait_until

ROOT = Path(__file__).parent.parent


def config_from(arguments: Sequence[str]) -> TrainConfig:
    return parse(arguments)[0]


def command(*arguments: str, cwd: Path, output: Any = subprocess.PIPE, **kwargs: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, ROOT / "main.py", *arguments],
        cwd=cwd, stdout=output, stderr=subprocess.PIPE, text=True, **kwargs,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def heed_signals() -> None:
    """Be as in a terminal: a suite in the background ignores SIGINT, under nohup SIGHUP, and so would its children."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)


class Forked:
    """`main.py` in a fork of this process, which saves the imports, with its own session and directory."""

    def __init__(self, *arguments: str, cwd: Path, prepare: Callable[[], None] = heed_signals) -> None:
        self._files = [cwd / f"{name} of the fork" for name in ("output", "errors")]
        self._left, theirs = os.pipe()
        run = (arguments, cwd, prepare)
        self._process = multiprocessing.get_context("fork").Process(target=self._run, args=run)
        self._process.start()
        os.close(theirs)  # the fork and its workers have it now
        self.pid: int = self._process.pid  # type: ignore[assignment]

    def _run(self, arguments: tuple[str, ...], cwd: Path, prepare: Callable[[], None]) -> None:
        os.setsid()
        os.chdir(cwd)
        for number, file in enumerate(self._files, 1):
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
            os.dup2(descriptor, number)
        sys.stdout, sys.stderr = open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
        sys.argv = ["main.py", *arguments]
        sys.orig_argv = [sys.executable, *sys.argv]
        prepare()
        main.run()

    def wait_for(self, shown: str | Callable[[], object]) -> None:
        """Wait until the fork has shown a text as an error, or until something else is true."""

        def seen() -> bool:
            assert self._process.is_alive(), self.errors()
            return bool(shown()) if callable(shown) else shown in self.errors()

        wait_until(seen, f"the program does not come to {shown}")

    def output(self) -> str:
        return self._files[0].read_text() if self._files[0].exists() else ""

    def errors(self) -> str:
        return self._files[1].read_text() if self._files[1].exists() else ""

    def send(self, number: int, *, to_group: bool = False) -> None:
        (os.killpg if to_group else os.kill)(self.pid, number)

    def finish(self) -> tuple[int, str, str]:
        """Wait until it and its workers have ended; return its exit code, output and errors."""
        assert select.select([self._left], [], [], 2 * SECONDS)[0], "the program, or a worker of it, does not leave"
        os.close(self._left)
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode, *(file.read_text() for file in self._files)  # type: ignore[return-value]

    def kill(self) -> None:
        self._process.kill()
