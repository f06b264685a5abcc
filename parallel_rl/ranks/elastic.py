"""Elastic ranks: some may be lost, and others may join, while the run goes on.

A generation is a set of ranks that does not change; the `Driver` publishes each in a store.

- After a loss, the next generation has the ranks that are left. They undo the update that they are in, and repeat it.
- When another rank is ready, the next generation has it, too. The ranks change to that generation after an update, and
  one of them sends the new rank the state of the run.
"""

import json
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar

import torch
from torch.distributed import PrefixStore, Store

from parallel_rl.ranks.gloo import CLOSED, TIMEOUT, Connected, Gloo, key_of
from parallel_rl.utils import Cluster, RankError, Ranks, State

Result = TypeVar("Result")
POLL_SECONDS = 0.005
SHORT_SECONDS = 0.1
"""How often ranks that are too few look for others."""
CONNECT_SECONDS = 10.0
"""How long ranks that have all arrived may take to connect."""
NEWEST, REASON = "newest", "reason"
"""Keys of the store: the number of the newest generation, and what ended the run."""


class LostError(RankError):
    """A sum failed; `peers` may be lost."""

    def __init__(self, peers: Iterable[int] = ()) -> None:
        super().__init__("a rank is lost")
        self.peers = peers


class Generation(Gloo):
    """The ranks of a generation."""

    def all_reduce(self, vector: torch.Tensor) -> torch.Tensor:
        """Return the sum `(P,)`, made by the CPUs: NCCL would end the processes that are left after a loss."""
        return super().all_reduce(vector.cpu()).to(vector.device)

    def _explain(self, error: Exception, peers: set[int]) -> None:
        """Raise a `LostError` at once; the driver finds out who is lost."""
        self._group = None  # so all ranks that wait notice
        with suppress(RuntimeError):
            self._store.set(key_of(self.rank), CLOSED)
        raise LostError(peers - {self.rank}) from error


class Elastic(Connected, Cluster):
    """The ranks of a run, which may change. As a context manager it tells the driver of an error in the block."""

    elastic = True

    def __init__(
        self,
        store: Store,
        member: int,
        node: int,
        nodes: int,
        preempt: float | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        """Store the arguments; `join` connects.

        Args:
            store: that of the driver.
            member: the number of this rank among all that ever belonged to the run.
            node: which share of the environments it has.
            nodes: the number of shares.
            preempt: once this fraction of the ranks has collected its share, the others stop; None: never.
            timeout: seconds to wait for another rank.
        """
        self.node, self.nodes, self.joined = node, nodes, max(0, member - nodes + 1)
        self.preempt, self._store, self._member, self._timeout = preempt, store, member, timeout
        self._ranks: Any = None
        self._record: dict[str, Any] = {"number": -1}
        self._passed, self._last_message = 0, None  # the number of messages to all, and the last of them

    def all_reduce(self, vector: torch.Tensor) -> torch.Tensor:
        """Return the sum `(P,)` of the vectors of all ranks of the generation. `attempt` handles losses."""
        return self._ranks.all_reduce(vector)

    def all_gather(self, tree: Any) -> list[Any]:
        """Return what every rank gave. If one is lost meanwhile, the others still all return the same."""
        while True:
            try:
                message = self._ranks.all_gather(tree)
            except LostError as error:
                if not self._regroup(error):
                    continue
                message = self._last_message
            self._passed, self._last_message = self._passed + 1, message
            return message

    def gather(self, tree: Any) -> list[Any] | None:
        """Return on rank 0 of the generation what every rank gave, and None on the others. `attempt` handles losses."""
        return self._ranks.gather(tree)

    def attempt(self, work: Callable[[Ranks], Result], savepoint: Callable[[], Callable[[], None]]) -> Result:
        """Do work on all ranks or on none: if a rank is lost, the others undo the work, and repeat it.

        Args:
            work: is called with the ranks of the generation.
            savepoint: returns a function that undoes the work.

        Returns:
            What `work` returns.
        """
        while True:
            undo = savepoint()
            try:
                result = work(self._ranks)
                self._ranks.all_gather(None)
            except LostError as error:
                if not self._regroup(error):  # otherwise another rank knows that all have done it
                    undo()
                    continue
            self._passed, self._last_message = self._passed + 1, None
            return result

    def enough_have_collected(self, *, own: bool = False) -> bool:
        """Return whether the fraction `preempt` of the ranks has collected its share; `own`: this rank now has."""
        have = self._store.add(f"collected/{self._record['number']}/{self._passed}", int(own))
        return have >= (self.preempt or 1) * self.world_size

    def join(self) -> State | None:
        """Connect to the others; return the state of the run that they gave, or None if it begins now.

        Raises:
            RankError: the run is over.
        """
        if self._ranks is not None:
            return None
        self._store.set(f"ready/{self._member}", "")
        return self._connect(admits=True)[1]

    def candidates(self) -> list[Any]:
        """Return the numbers of this generation and of the newest one, and whether this one has enough ranks."""
        return [self._record["number"], self._newest(), self._record["enough"]]

    def admit(self, candidates: list[list[Any]], state: Callable[[], State]) -> bool:
        """Let ranks join that are ready, or wait if there are too few; return whether to call this again.

        Args:
            candidates: of all ranks. They alone determine the result: a rank may be in a later generation by now.
            state: returns the state of the run.
        """
        newest = max(newest for _, newest, _ in candidates)
        again = any(newest > number or not enough for number, _, enough in candidates)
        if newest > self._record["number"]:
            self._connect(admits=True, state=state)
        elif again:
            time.sleep(SHORT_SECONDS)
        return again

    def _newest(self) -> int:
        return int(self._store.get(NEWEST))

    def _regroup(self, error: LostError) -> bool:
        """Connect to the ranks that are left; return whether one of them has passed where this one failed."""
        self._report_loss(error)
        return self._connect()[0]

    def _report_loss(self, error: LostError) -> None:
        """Tell the driver that this generation has failed, and which members may be lost."""
        number, members = self._record["number"], self._record["members"]
        self._store.set(f"failed/{number}/{self._member}", json.dumps([members[peer] for peer in error.peers]))
        self._store.set(f"failed/{number}", "")

    def _connect(self, *, admits: bool = False, state: Callable[[], State] | None = None) -> tuple[bool, State | None]:
        """Connect to the newest generation.

        Args:
            admits: whether it may have ranks that join.
            state: for them.

        Returns:
            Whether another rank has received a message that this one has missed, which is now in `_last_message`; and
            for a rank that joins, the state.
        """
        while True:
            self._await_generation(admits=admits)
            number, members = self._record["number"], self._record["members"]
            try:
                store, own = PrefixStore(f"generation {number}", self._store), members.index(self._member)
                self._ranks = Generation(store, own, len(members), self._timeout, CONNECT_SECONDS)
                self.rank, self.world_size = own, len(members)
                self._store.set(f"formed/{number}", "")
                return self._catch_up(state)
            except LostError as error:
                self._report_loss(error)

    def _await_generation(self, *, admits: bool) -> None:
        """Wait until all ranks of the newest generation have come; store its record in `_record`."""
        while True:
            record = json.loads(self._store.get(f"generation/{self._newest()}"))
            if REASON in record:
                raise RankError(record[REASON])
            number, new = record["number"], record["number"] > self._record["number"]
            if new and self._member in record["members"] and (admits or not record["joining"]):
                self._store.set(f"arrived/{number}/{self._member}", "")
                keys = [f"arrived/{number}/{member}" for member in record["members"]]
                while self._newest() == number:
                    if self._store.check(keys):
                        self._record = record
                        return
                    time.sleep(POLL_SECONDS)
            time.sleep(POLL_SECONDS)

    def _catch_up(self, state: Callable[[], State] | None) -> tuple[bool, State | None]:
        """Take the message that this rank has missed from another one; return what `_connect` returns."""
        joins = self._member in self._record["joining"]
        passed = self._ranks.all_gather(-1 if joins else self._passed)
        most = max(passed)
        if min(passed) == most:
            return False, None
        sender = passed.index(most)
        sent = [self._last_message, state and state()] if self.rank == sender else None
        message, run_state = self._ranks.all_gather(sent)[sender]
        behind = self._passed < most and not joins
        if behind:
            self._last_message = message
        if joins:
            self._passed = most
            self._store.set(f"joined/{self._member}", "")
        return behind, run_state

    def _report_failure(self, message: str) -> None:
        self._store.compare_set(REASON, "", message)

    def _close(self) -> None:
        self._ranks = None
