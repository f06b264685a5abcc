"""Ranks from the command line: processes that `--cluster local` starts here, or that torchrun or Slurm started."""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from AsyncPPO.backends.choice import available_cores
from AsyncPPO.workers import choose_start_method
from AsyncPPO.workers.processes import free, kill, start_child
from parallel_rl.commands.output import note
from parallel_rl.commands.seeds import end_by_signals, passed_on
from parallel_rl.config import TrainConfig
from parallel_rl.ranks import ranks_of_environment
from parallel_rl.utils import Ranks, counted

Cluster = Literal["none", "local"]
Work = Callable[[Ranks], int]
"""What a rank does; returns an exit code."""
GRACE_SECONDS = 15.0
"""How long ranks may take to end after one of them has failed, before they are killed."""


def checked_nodes(cluster: str, nodes: int) -> int | None:
    """Return the number of nodes of a cluster; None without one.

    Raises:
        ValueError: there are nodes without a cluster, or less than one.
    """
    counted("--nodes", nodes)
    if cluster == "none" and nodes > 1:
        raise ValueError(f"--nodes {nodes} needs --cluster local")
    return None if cluster == "none" else nodes


def work_on_ranks(nodes: int | None, work: Work) -> int:
    """Do the work of a rank: in new processes on this machine, or as the rank that the environment variables name.

    Args:
        nodes: the number of new processes; None without them.
        work: of each rank.

    Returns:
        The exit code of the first rank.
    """
    if nodes is not None:
        return _work_locally(nodes, work)
    with ranks_of_environment() as ranks:
        return work(ranks)


def share_of_cores(config: TrainConfig, nodes: int | None) -> TrainConfig:
    """Return the config of each of several ranks on this machine: they share its cores."""
    if nodes is None or config.run.num_workers is not None:
        return config
    return config.changed({"num_workers": max(1, available_cores() // nodes)})


def _work_locally(nodes: int, work: Work) -> int:
    context: Any = get_context(choose_start_method("auto")[0])
    with TemporaryDirectory(prefix="ranks-") as directory:
        ranks: list[Any] = []
        with passed_on(lambda: ranks):
            try:
                for number in range(nodes):
                    ranks.append(
                        start_child(context, f"rank {number}", _be_a_rank, Path(directory), number, nodes, work)
                    )
                codes = _codes_of(ranks)
            finally:
                for process in ranks:
                    kill(process)
                    free(process)
        return _told(codes, Path(directory))


def _codes_of(ranks: list[Any]) -> list[int]:
    """Wait for all ranks, or for some time after the first failure; return their exit codes, of killed ones -9."""
    until = None
    while running := [process for process in ranks if process.is_alive()]:
        if until is None and any(process.exitcode for process in ranks):
            until = time.monotonic() + GRACE_SECONDS
        if until is not None and time.monotonic() > until:
            break
        wait([process.sentinel for process in running], 1.0)
    return [-signal.SIGKILL if process.exitcode is None else process.exitcode for process in ranks]


def _told(codes: list[int], directory: Path) -> int:
    """Return the exit code of the run; say what happened unless the first rank has."""
    if codes[0] > 0 or not any(codes):
        return codes[0]
    failed = codes.index(next(code for code in codes if code))
    how = f"was killed by {signal.Signals(-codes[failed]).name}" if codes[failed] < 0 else "failed"
    log = _log_of(directory, failed)
    last = log.read_text(errors="replace").splitlines()[-1:] if log.exists() else []
    note(f"error: rank {failed} on {socket.gethostname()} {': '.join([how, *last])}")
    return 1


def _be_a_rank(directory: Path, number: int, count: int, work: Work) -> None:
    """Do the work of a rank in this child process; only the first one shows its output."""
    if number:
        log = open(_log_of(directory, number), "a", buffering=1)  # noqa: SIM115
        sys.stdout = sys.stderr = log
        for descriptor in (1, 2):
            os.dup2(log.fileno(), descriptor)
    try:
        end_by_signals()
        from torch.distributed import FileStore

        from parallel_rl.ranks.gloo import Gloo

        with Gloo(FileStore(str(directory / "store"), count), number, count) as ranks:
            code = work(ranks)
    except KeyboardInterrupt as interrupt:
        code = interrupt.args[0] if interrupt.args else 130
    except Exception as error:
        note(f"error: {error}")
        code = 1
    sys.exit(code)


def _log_of(directory: Path, number: int) -> Path:
    return directory / f"rank_{number}.txt"
