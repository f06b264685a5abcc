"""Ranks on the machines of a Ray cluster (Moritz et al. 2018, arXiv:1712.05889): Ray places and watches them.

Gradients and experience do not pass through Ray.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from parallel_rl.utils import RankError


class Machines:
    """The machines of a Ray cluster; each has one rank at most. This one has the rank of node 0, without Ray."""

    def __init__(self) -> None:
        context = ray.get_runtime_context()
        self.address = ray.util.get_node_ip_address()
        self._taken = {context.get_node_id()}
        self._times = Counter[str]()

    def take(self) -> dict[str, Any] | None:
        """Return a machine that has no rank, or None; it is taken then.

        It is one that was taken least often: others have lost a rank, and may be gone. Ray notes that after seconds.
        """
        free = [machine for machine in ray.nodes() if machine["Alive"] and machine["NodeID"] not in self._taken]
        machine = min(free, key=lambda each: self._times[each["NodeID"]], default=None)
        if machine is not None:
            self._taken.add(machine["NodeID"])
            self._times[machine["NodeID"]] += 1
        return machine

    def free(self, machine: dict[str, Any]) -> None:
        """Give a machine back."""
        self._taken.discard(machine["NodeID"])


@contextmanager
def connected() -> Iterator[Machines]:
    """Connect to the Ray cluster of this machine during a block.

    Raises:
        RankError: there is none.
    """
    try:
        ray.init(address="auto", logging_level=logging.WARNING)
    except ConnectionError as error:
        raise RankError("no Ray cluster here: `ray start --head`, or `ray start --address HEAD:6379`") from error
    try:
        yield Machines()
    finally:
        ray.shutdown()


class RayRank:
    """A rank on another machine of the cluster, as soon as one has none."""

    def __init__(self, machines: Machines, work: Callable[[], int]) -> None:
        """Store the machines, and what to do on one of them: it returns an exit code, a negative one if killed."""
        self._machines, self._work = machines, work
        self._machine: dict[str, Any] | None = None
        self._actor: Any = None
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, -1 if the machine was lost, or None until then."""
        if self._machine is None:
            self._start()
        elif self._code is None and ray.wait([self._future], timeout=0)[0]:
            self._machines.free(self._machine)
            try:
                self._code = ray.get(self._future)
            except (ray.exceptions.RayActorError, ray.exceptions.ActorUnschedulableError):  # the machine is gone
                self._code = -1
        return self._code

    def _start(self) -> None:
        self._machine = self._machines.take()
        if self._machine is None:
            return
        where = NodeAffinitySchedulingStrategy(self._machine["NodeID"], soft=False)
        cores = self._machine["Resources"].get("CPU", 0)
        self._actor = ray.remote(RankActor).options(num_cpus=cores, scheduling_strategy=where).remote()
        self._future = self._actor.run.remote(self._work)

    def kill(self) -> None:
        """Kill it."""
        if self._machine is not None and self._code is None:
            with suppress(ray.exceptions.RayError):
                ray.kill(self._actor)
            self._machines.free(self._machine)


class RankActor:
    """Does the work of a rank on its machine."""

    def run(self, work: Callable[[], int]) -> int:
        """Return the exit code."""
        return work()
