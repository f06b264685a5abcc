"""Ranks from the command line: processes that `--cluster` starts, or that torchrun or Slurm started."""

import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from AsyncPPO.backends.choice import available_cores
from AsyncPPO.share import check_enough
from AsyncPPO.workers import choose_start_method
from AsyncPPO.workers.contexts import context_of
from AsyncPPO.workers.processes import free, kill, start_child
from parallel_rl.commands.flags import ClusterName
from parallel_rl.commands.output import note, say
from parallel_rl.commands.stopping import last_line, passed_on, run_in_child
from parallel_rl.ranks import ranks_of_environment
from parallel_rl.ranks.driver import GRACE_SECONDS, SIGNALED
from parallel_rl.utils import Cluster, counted, reason_of

Work = Callable[[Cluster], int]
"""What a rank does; returns an exit code."""
Connect = Callable[[], AbstractContextManager[Cluster]]
"""Connects a rank to the others."""
HERE = "127.0.0.1"


@dataclass(frozen=True)
class Nodes:
    """The flags about a cluster."""

    where: ClusterName
    count: int
    least: int | None
    """With fewer nodes the run waits; None: it ends when one is lost."""
    preempt: float | None


def checked_nodes(
    cluster: ClusterName, nodes: int, min_nodes: int | None, preempt: float | None, num_envs: int
) -> Nodes | None:
    """Return the nodes of a cluster for a run of N environments; None without one.

    Raises:
        ValueError: there are nodes without a cluster, or less than one, or fewer than `min_nodes`, or more than
            environments.
    """
    counted("--nodes", nodes)
    if cluster == "none" and (nodes > 1 or min_nodes is not None):
        raise ValueError(f"--nodes {nodes} needs --cluster" if min_nodes is None else "--min-nodes needs --cluster")
    if min_nodes is not None and counted("--min-nodes", min_nodes) > nodes:
        raise ValueError(f"--min-nodes {min_nodes} is more than --nodes {nodes}")
    if preempt is not None and not 0 < preempt <= 1:
        raise ValueError(f"--preempt must be above 0, and at most 1, not {preempt:g}")
    if preempt is not None and (cluster == "none" or (cluster == "local" and min_nodes is None)):
        raise ValueError("--preempt needs --cluster ray, or --cluster local with --min-nodes")
    if cluster == "none":
        return None
    check_enough(num_envs, nodes)
    return Nodes(cluster, nodes, nodes if cluster == "ray" and min_nodes is None else min_nodes, preempt)


def work_on_ranks(nodes: Nodes | None, work: Work) -> int:
    """Do the work of a rank: in new processes, or as the rank that the environment variables name.

    Args:
        nodes: of the new processes; None without them.
        work: of each rank.

    Returns:
        The exit code of the first rank.
    """
    if nodes is not None:
        if nodes.where == "local" and nodes.count > available_cores():
            note(f"warning: {nodes.count} ranks on {available_cores()} cores; each rank takes about 450 MB of memory")
        return _work_locally(nodes.count, work) if nodes.least is None else _work_elastically(nodes, work)
    with ranks_of_environment() as ranks:
        return work(ranks)


def workers_of_rank(nodes: Nodes | None) -> int | None:
    """Return the number of processes that step on each rank: those on this machine share its cores. None: the usual."""
    return None if nodes is None or nodes.where == "ray" else max(1, available_cores() // nodes.count)


class LocalRank:
    """An elastic rank in a process of this machine."""

    def __init__(self, node: int, connect: Connect, work: Work, method: str = "auto") -> None:
        log, context = None if node == 0 else os.devnull, context_of(choose_start_method(method)[0])
        self.process = start_child(context, f"rank {node}", _run_rank, log, connect, work)

    def poll(self) -> int | None:
        """Return its exit code, or None while it runs."""
        return None if self.process.is_alive() else self.process.exitcode

    def kill(self) -> None:
        """Kill it."""
        kill(self.process)


def _work_elastically(nodes: Nodes, work: Work) -> int:
    """Do the work of a rank in new processes, of which those that are lost are replaced."""
    from torch.distributed import TCPStore

    from parallel_rl.ranks.driver import Driver

    local: list[LocalRank] = []
    with ExitStack() as ends:
        machines: Any = None
        if nodes.where == "ray":
            try:
                from parallel_rl.ranks.on_ray import RayRank, connected
            except ImportError as error:
                raise ImportError(reason_of(error)) from error

            machines = ends.enter_context(connected())
        address = HERE if machines is None else machines.address
        store = TCPStore(address, 0, is_master=True, wait_for_workers=False)

        def start(member: int, node: int) -> Any:
            connect = partial(elastic_rank, address, store.port, member, node, nodes.count, nodes.preempt)
            if node and machines is not None:
                return RayRank(machines, partial(_work_as_child, node, connect, work))
            local.append(LocalRank(node, connect, work))
            return local[-1]

        signals = ends.enter_context(passed_on(lambda: [rank.process for rank in local]))
        return Driver(store, nodes.count, nodes.least or nodes.count, start, say).run(signals)


def _work_as_child(node: int, connect: Connect, work: Work) -> int:
    """Do the work of a rank in a child process: a worker of Ray has threads, and handles signals in its own way."""
    process = LocalRank(node, connect, work, "spawn").process
    process.join()
    return process.exitcode


def _work_locally(nodes: int, work: Work) -> int:
    context = context_of(choose_start_method("auto")[0])
    with TemporaryDirectory(prefix="ranks-") as directory:
        ranks: list[Any] = []
        with passed_on(lambda: ranks):
            try:
                for number in range(nodes):
                    log = _log_of(directory, number) if number else None
                    connect = partial(_fixed_rank, directory, number, nodes)
                    ranks.append(start_child(context, f"rank {number}", _run_rank, log, connect, work))
                codes = _codes_of(ranks)
            finally:
                for process in ranks:
                    if process.is_alive():  # one that ended long ago may have passed its number on to another program
                        kill(process)
                    free(process)
        return _exit_code(codes, directory)


def _codes_of(ranks: list[Any]) -> list[int]:
    """Wait for all ranks, or for some time after the first failure; return their exit codes, of killed ones -9."""
    until = None
    while running := [process for process in ranks if process.is_alive()]:
        if until is None and any(_is_failure(process.exitcode or 0) for process in ranks):
            until = time.monotonic() + GRACE_SECONDS
        if until is not None and time.monotonic() > until:
            break
        wait([process.sentinel for process in running], 1.0)
    return [-signal.SIGKILL if process.exitcode is None else process.exitcode for process in ranks]


def _is_failure(code: int) -> bool:
    """Return whether an exit code is that of a rank that failed or was killed, not one that a signal has stopped."""
    return code != 0 and code < SIGNALED


def _exit_code(codes: list[int], directory: str) -> int:
    """Return the exit code of the run; say what happened unless the first rank has, or a signal stopped another."""
    failed = next((rank for rank, code in enumerate(codes) if _is_failure(code)), None)
    if codes[0] > 0 or failed is None:
        return codes[0]
    how = f"was killed by {signal.Signals(-codes[failed]).name}" if codes[failed] < 0 else "failed"
    last = last_line(_log_of(directory, failed))
    note(f"error: rank {failed} on {socket.gethostname()} {how}{f': {last}' if last else ''}")
    return 1


def _run_rank(log: str | Path | None, connect: Connect, work: Work) -> None:
    """Do the work of a rank in this child process; its output goes into the file `log`, or where the parent's goes."""

    def connect_and_work() -> int:
        with connect() as ranks:
            return work(ranks)

    run_in_child(connect_and_work, log)


def _fixed_rank(directory: str, number: int, count: int) -> Any:
    from torch.distributed import FileStore

    from parallel_rl.ranks.gloo import Gloo, take_gpu

    take_gpu(number)
    return Gloo(FileStore(f"{directory}/store", count), number, count)


def elastic_rank(address: str, port: int, *arguments: Any) -> Any:
    """Return an `Elastic` with these arguments; it is given the store of its driver by the address."""
    from torch.distributed import TCPStore

    from parallel_rl.ranks.elastic import Elastic
    from parallel_rl.ranks.gloo import take_gpu

    ranks = Elastic(TCPStore(address, port), *arguments)
    take_gpu(ranks.node)
    return ranks


def _log_of(directory: str, number: int) -> Path:
    return Path(directory) / f"rank_{number}.txt"
