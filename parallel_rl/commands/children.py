"""What a child process of a command does with its output, signals and errors."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from parallel_rl.commands.output import note
from parallel_rl.commands.stopping import end_by_signals


def run_in_child(work: Callable[[], int], log: str | Path | None) -> NoReturn:
    """Do the work of this child process, and exit with the code that it returns.

    Args:
        work: returns an exit code.
        log: a file for the output; None: it goes where the parent's goes.
    """
    if log is not None:
        sys.stdout = sys.stderr = output = open(log, "a", buffering=1)  # noqa: SIM115
        for descriptor in (1, 2):
            os.dup2(output.fileno(), descriptor)
    try:
        end_by_signals()
        code = work()
    except KeyboardInterrupt as interrupt:
        code = interrupt.args[0] if interrupt.args else 130
    except Exception as error:
        note(f"error: {error}")
        code = 1
    sys.exit(code)
