"""The driver of elastic ranks: starts them, watches them, replaces those that are lost."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from parallel_rl.utils import RankError

POLL_SECONDS = 0.02
SILENT_SECONDS = 1.0
"""How long ranks have to report a failure; a rank that others cannot reach, and that reports nothing, is lost."""
START_SECONDS = 10.0
"""How long a run waits for all nodes before it begins with fewer, or says what it waits for."""
GRACE_SECONDS = 15.0
"""How long ranks may take to end after one of them has ended or failed, before they are killed."""
MOST_LOSSES = 3
"""How often in a row the rank of a node may be lost before it has joined."""
SIGNALED = 128
"""Exit codes from here on are those of ranks that a signal has stopped."""


class Process(Protocol):
    """The process of a rank."""

    def poll(self) -> int | None:
        """Return its exit code, a negative one if it was lost, or None while it runs."""

    def kill(self) -> None:
        """Kill it."""


@dataclass
class RankProcess:
    """A rank that belongs, or will belong, to the run."""

    number: int
    node: int
    process: Process


class Driver:
    """Keeps a run on `nodes` ranks.

    It publishes the generations of `Elastic` ranks in a store, which lives with it.
    """

    def __init__(
        self,
        store: Any,
        nodes: int,
        min_nodes: int,
        start: Callable[[int, int], Process],
        say: Callable[[str], None] = lambda words: None,
    ) -> None:
        """Store the arguments; `run` starts the ranks.

        Args:
            store: for all ranks.
            nodes: the number of ranks that the run should have.
            min_nodes: with fewer ranks it waits for others. It also waits for that of node 0, which writes its files.
            start: starts the process of a rank, given its number among all that the run ever had, and its node.
            say: is told of losses and joins.
        """
        self._store, self._nodes, self._min_nodes, self._start, self._say = store, nodes, min_nodes, start, say
        self._members = dict[int, RankProcess]()
        self._started, self._generation, self._ranks = 0, -1, list[int]()
        self._joining, self._losses = list[int](), [0] * nodes
        self._since = 0.0
        self._failed_at: float | None = None
        self._unconnected = 0  # the number of generations in a row that could not connect
        self._ends, self._waits_for = False, ""

    def run(self, signals: Sequence[int] = ()) -> int:
        """Start the ranks, and keep their number until they end.

        Args:
            signals: those received so far; until the ranks have begun, the first one ends the run.

        Returns:
            The exit code of the rank of node 0. If a rank failed, that of node 0 has printed the error.

        Raises:
            RankError: the run ended without node 0, for example since all ranks are lost.
        """
        try:
            self._replace()
            self._since = time.monotonic()  # not before: a fork server may take seconds to start
            while (code := self._step()) is None:
                if signals and self._generation < 0:
                    return SIGNALED + signals[0]
                time.sleep(POLL_SECONDS)
            return code
        finally:
            for member in self._members.values():
                member.process.kill()

    def _step(self) -> int | None:
        """Watch the ranks; return the exit code of the run once it is over."""
        code = self._check_exits()
        if code is not None:
            return code
        if max(self._losses) >= MOST_LOSSES:
            node = self._losses.index(max(self._losses))
            return self._end(f"rank {node} was lost {MOST_LOSSES} times in a row before it had joined")
        left = [number for number in self._ranks if number in self._members]
        if self._generation < 0:
            self._begin()
        elif not left:
            return self._end("all ranks were lost; the run can be resumed from its last checkpoint")
        elif self._unconnected == MOST_LOSSES:
            return self._end(
                "the ranks cannot connect: does GLOO_SOCKET_IFNAME name the network interface between them?"
            )
        elif len(left) < len(self._ranks) and (not self._ends or self._failed()):
            self._continue_with(left)
        elif self._failed():
            self._drop_silent(left)
        elif not self._ends:
            self._admit()
        if not self._ends:
            self._replace()
        return None

    def _check_exits(self) -> int | None:
        """Note which ranks have ended; return the exit code of the run if it is over with that."""
        for member, code in [(each, each.process.poll()) for each in self._members.values()]:
            if code is None:
                continue
            del self._members[member.number]
            if code < 0:
                self._count_loss(member)
            elif 0 < code < SIGNALED:
                return self._end(f"rank {member.node} failed", printed=member.node == 0)
            elif member.node == 0:
                self._store_generation({"reason": "the run is over"})  # to those that wait to join
                self._await_all()
                return code
            self._ends = self._ends or code >= 0
        return None

    def _begin(self) -> None:
        ready, waited = self._ready(), time.monotonic() - self._since
        if len(ready) == self._nodes or (waited > START_SECONDS and not self._missing(ready)):
            self._publish(ready)
        elif waited > START_SECONDS and self._waits_for != (missing := self._missing(ready)):
            self._say(f"waiting   for {missing}")
            self._waits_for = missing

    def _missing(self, ranks: list[int]) -> str:
        """Return what these ranks lack to be enough, in words."""
        if 0 not in {self._members[number].node for number in ranks}:
            return "node 0"
        more = self._min_nodes - len(ranks)
        return f"{more} more of {self._nodes} nodes" if more > 0 else ""

    def _ready(self) -> list[int]:
        return [number for number in self._members if self._store.check([f"ready/{number}"])]

    def _admit(self) -> None:
        """Publish a generation with the ranks that are ready, once the last one has met."""
        self._joining = [number for number in self._joining if not self._store.check([f"joined/{number}"])]
        if self._joining or not self._store.check([f"formed/{self._generation}"]):
            return
        self._unconnected = 0
        new = [number for number in self._ready() if number not in self._ranks]
        if new:
            for number in new:
                self._say(f"joins     rank {self._members[number].node}")
            self._publish(self._ranks + new, new)

    def _failed(self) -> bool:
        """Return whether a rank has said that this generation failed."""
        return self._store.check([f"failed/{self._generation}"])

    def _drop_silent(self, left: list[int]) -> None:
        """Kill ranks that others cannot reach, and go on without them; if there are none, let all connect again."""
        self._failed_at = self._failed_at or time.monotonic()
        if time.monotonic() < self._failed_at + SILENT_SECONDS:
            return
        keys = {number: f"failed/{self._generation}/{number}" for number in left}
        reports = {number: json.loads(self._store.get(key)) for number, key in keys.items() if self._store.check([key])}
        silent = {peer for peers in reports.values() for peer in peers} - reports.keys()
        for number in silent & self._members.keys():
            self._drop(number)
        connected = self._store.check([f"formed/{self._generation}"])
        self._unconnected = 0 if connected else self._unconnected + 1
        self._continue_with([number for number in left if number not in silent])

    def _continue_with(self, left: list[int]) -> None:
        """Publish a generation of ranks that are left; those that had not yet joined are started again."""
        joined = [number for number in left if number not in self._joining or self._store.check([f"joined/{number}"])]
        for number in {*left} - {*joined}:
            self._drop(number)
        self._publish(joined)

    def _publish(self, ranks: list[int], joining: list[int] | None = None) -> None:
        self._ranks = sorted(ranks, key=lambda number: self._members[number].node)
        self._joining, self._failed_at = joining or [], None
        missing = "" if self._ends else self._missing(self._ranks)
        if missing:
            self._say(f"waiting   for {missing}")
        self._store_generation({"members": self._ranks, "joining": self._joining, "enough": not missing})

    def _store_generation(self, record: dict[str, Any]) -> None:
        self._generation += 1
        self._store.set(f"generation/{self._generation}", json.dumps({"number": self._generation} | record))
        self._store.set("newest", str(self._generation))

    def _replace(self) -> None:
        """Start a rank on each node that has none."""
        for node in sorted({*range(self._nodes)} - {member.node for member in self._members.values()}):
            self._members[self._started] = RankProcess(self._started, node, self._start(self._started, node))
            self._started += 1

    def _drop(self, number: int) -> None:
        member = self._members.pop(number)
        member.process.kill()
        self._count_loss(member)

    def _count_loss(self, member: RankProcess) -> None:
        self._say(f"lost      rank {member.node}")
        had_joined = member.number in self._ranks and member.number not in self._joining
        self._losses[member.node] = 0 if had_joined else self._losses[member.node] + 1

    def _end(self, reason: str, *, printed: bool = False) -> int:
        """Tell all ranks that the run is over; return 1 if the rank of node 0 has printed why (or `printed`).

        Raises:
            RankError: it has not; the message says why.
        """
        reason = self._store.get("reason").decode() if self._store.check(["reason"]) else reason
        self._store_generation({"reason": reason})
        self._await_all()
        if printed or any(each.node == 0 and (each.process.poll() or 0) > 0 for each in self._members.values()):
            return 1
        raise RankError(reason)

    def _await_all(self) -> None:
        until = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < until and any(each.process.poll() is None for each in self._members.values()):
            time.sleep(POLL_SECONDS)
