"""Gloo: ranks that are connected by torch.distributed."""

import os
import socket
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch.distributed import AllreduceOptions, PrefixStore, ProcessGroupGloo, Store, rendezvous

from parallel_rl.utils import Cluster, RankError, state_from, state_to_bytes

RING_BYTES = 1_000_000
"""From this size on, sums go by gloo's ring, which sends fewer bytes than recursive doubling, in more messages."""
TIMEOUT = 300.0
REPORT_SECONDS = 1.0
"""How long to wait until a rank whose connections are closed reports why."""
BLOCK = 1024
"""Bytes of a tree that `gather` sends at once."""
CONNECTED, CLOSED = "connected", "closed"
"""The state of a rank in the store: it has come, or it has noticed a failure and closed its connections."""
FAILURE = "failure"
"""The store's key for what ended the run; the first rank that knows writes it."""


class Exchange(NamedTuple):
    """A step of recursive doubling."""

    to: list[int]
    """The ranks that this one sends to."""
    source: int
    """The rank that this one receives from."""
    own: slice
    """The ranks whose sum, or rows, this one has before."""
    other: slice
    """The ranks whose sum, or rows, it receives."""


class Connected(ABC):
    """A rank that tells the others of an error in its block, as a context manager, and then closes its connections."""

    node: int

    @abstractmethod
    def _report_failure(self, message: str) -> None:
        """Tell the others what ended the run."""

    @abstractmethod
    def _close(self) -> None:
        """Close the connections."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell the others of an error, and close the connections."""
        if error is not None and not isinstance(error, RankError):
            message = str(error) or type(error).__name__
            with suppress(RuntimeError):  # the store is gone: the others will see the connections closed
                self._report_failure(f"rank {self.node} on {socket.gethostname()} failed: {message}")
        self._close()


class Gloo(Connected, Cluster):
    """Ranks that sum vectors by messages between them."""

    def __init__(
        self, store: Store, number: int, count: int, timeout: float = TIMEOUT, connect_timeout: float | None = None
    ) -> None:
        """Connect to the other ranks.

        Args:
            store: the same for all ranks.
            number: of this rank, from 0.
            count: the number of ranks.
            timeout: seconds to wait for another rank.
            connect_timeout: seconds to wait until all are connected; by default `timeout`.

        Raises:
            RankError: not all of them came in that time; the message names those that did not.
        """
        self.rank = self.node = number
        self.world_size = self.nodes = count
        self._store, self._timeout, self._limit = store, timeout, timedelta(seconds=timeout)
        self._exchanges = exchanges(number, count)
        self._hosts: dict[int, str] = {}
        self._gpus: Any = None
        store.set(key_of(number), CONNECTED)
        try:  # nothing but this attribute may refer to the group, so that `__exit__` closes its connections
            within = self._limit if connect_timeout is None else timedelta(seconds=connect_timeout)
            self._group: Any = ProcessGroupGloo(PrefixStore("gloo", store), number, count, within)
        except RuntimeError as error:
            missing = {rank for rank in range(count) if not store.check([key_of(rank)])}
            self._explain(error, missing or {*range(count)})
        self._hosts = dict(enumerate(self.all_gather(socket.gethostname())))  # no rank leaves before all have come

    def all_reduce(self, vector: torch.Tensor) -> torch.Tensor:
        """Return the sum `(P,)` of the vectors of all ranks, pairwise in the order of the ranks unless it is large.

        NCCL sums vectors on GPUs if every rank has a GPU of its own.
        """
        if vector.is_cuda and self._have_own_gpus(vector.device):
            return self.ring(vector)
        own = vector.cpu()
        return (self.ring(own) if own.nbytes >= RING_BYTES else self.doubling(own)).to(vector.device)

    def _have_own_gpus(self, device: torch.device) -> bool:
        """Return whether every rank has a GPU of its own, and connect them the first time."""
        if self._gpus is None:
            gpus = self.all_gather(f"{socket.gethostname()} {torch.cuda.get_device_properties(device).uuid}")
            self._gpus = len({*gpus}) == self.world_size and nccl_group(
                self._store, self.rank, self.world_size, self._limit
            )
        return bool(self._gpus)

    def ring(self, own: torch.Tensor) -> torch.Tensor:
        """Return the sum of the vectors of all ranks, by the ring of gloo, or that of NCCL for vectors on GPUs."""
        total = own.clone()
        try:
            options = AllreduceOptions()
            options.timeout = self._limit
            (self._gpus if own.is_cuda else self._group).allreduce([total], options).wait()
        except RuntimeError as error:
            self._explain(error, {(self.rank + step) % self.world_size for step in (-1, 1)})
        return total

    def doubling(self, total: torch.Tensor) -> torch.Tensor:
        """Return the sum of the vectors of all ranks, by recursive doubling."""
        for exchange in self._exchanges:
            received = torch.empty_like(total)
            self._swap(exchange, total, received)
            total = total + received
        return total

    def _swap(self, exchange: Exchange, own: torch.Tensor, received: torch.Tensor) -> None:
        """Send `own`, and receive."""
        sent: list[Any] = []
        try:
            sent += [self._group.send([own], rank, 0) for rank in exchange.to]
            self._group.recv([received], exchange.source, 0).wait(self._limit)
            for each in sent:
                each.wait(self._limit)
        except RuntimeError as error:
            sent.clear()  # they refer to the group
            self._explain(error, {exchange.source, *exchange.to})

    def all_gather(self, tree: Any) -> list[Any]:
        """Return what every rank gave, in their order."""
        content = np.frombuffer(state_to_bytes(tree), np.uint8)
        size = np.frombuffer(np.int64(len(content)).tobytes(), np.uint8)
        table = self._table(np.append(size, content[:BLOCK]), size.nbytes + BLOCK)
        sizes = table[:, : size.nbytes].copy().view(np.int64)[:, 0]
        blocks = table[:, size.nbytes :]
        if (rest := int(sizes.max()) - BLOCK) > 0:
            blocks = np.concatenate([blocks, self._table(content[BLOCK:], rest)], axis=1)
        return [state_from(block[:size].tobytes()) for block, size in zip(blocks, sizes, strict=True)]

    def gather(self, tree: Any) -> list[Any] | None:
        """Return what every rank gave, in their order, on rank 0; None on the others."""
        content = np.frombuffer(bytearray(state_to_bytes(tree)), np.uint8)
        sizes, peers = self.all_gather(len(content)), {*range(1, self.world_size)} if self.rank == 0 else {0}
        rows = [torch.from_numpy(content), *(torch.empty(size, dtype=torch.uint8) for size in sizes[1:])]
        messages: list[Any] = []
        try:
            if self.rank:
                messages.append(self._group.send(rows[:1], 0, 0))
            else:
                messages += [self._group.recv([rows[rank]], rank, 0) for rank in peers]
            for message in messages:
                message.wait(self._limit)
        except RuntimeError as error:
            messages.clear()  # they refer to the group
            self._explain(error, peers)
        return None if self.rank else [state_from(each.numpy().tobytes()) for each in rows]

    def _table(self, content: np.ndarray, width: int) -> np.ndarray:
        """Return the bytes of every rank `(count, width)`."""
        table = np.zeros((self.world_size, width), np.uint8)
        table[self.rank, : len(content)] = content
        rows = torch.from_numpy(table)
        for exchange in self._exchanges:
            self._swap(exchange, rows[exchange.own], rows[exchange.other])
        return table

    def _explain(self, error: Exception, peers: set[int]) -> None:
        """Raise a `RankError` that says which rank failed, from what it wrote, or from its silence."""
        self._group = None  # so all ranks that wait notice, and say so
        noticed = time.monotonic()
        try:
            self._store.set(key_of(self.rank), CLOSED)
            while not self._store.check([FAILURE]):
                seconds = time.monotonic() - noticed
                lost = self._silent(peers) if seconds > REPORT_SECONDS else set()
                if lost or seconds > 2 * REPORT_SECONDS:  # otherwise these noticed it, too, and the others will say
                    self._report_failure(f"{self._named(lost or peers)} {_cause_of(error, self._timeout)}")
                time.sleep(0.01)
            message = self._store.get(FAILURE).decode()
        except RuntimeError:
            message = f"the store of the ranks is gone, and with it {self._named(peers)}"
        raise RankError(message) from error

    def _named(self, peers: set[int]) -> str:
        others = sorted(peers - {self.rank})
        return " or ".join(
            f"rank {rank} on {self._hosts[rank]}" if rank in self._hosts else f"rank {rank}" for rank in others
        )

    def _silent(self, peers: set[int]) -> set[int]:
        """Return those of some ranks that have not noticed a failure."""
        keys = {rank: key_of(rank) for rank in peers - {self.rank}}
        return {
            rank
            for rank, key in keys.items()
            if not self._store.check([key]) or self._store.get(key).decode() != CLOSED
        }

    def _report_failure(self, message: str) -> None:
        self._store.compare_set(FAILURE, "", message)

    def _close(self) -> None:
        self._group = self._gpus = None


def connect(timeout: float = TIMEOUT) -> Gloo:
    """Connect to the ranks that the environment variables of torchrun name.

    Raises:
        RankError: they cannot be reached.
    """
    take_gpu(int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or 0))
    try:
        store, number, count = next(rendezvous("env://", timeout=timedelta(seconds=timeout)))
    except (RuntimeError, ValueError) as error:
        raise RankError(f"the other ranks cannot be reached: {error}") from error
    return Gloo(store, number, count, timeout)


def nccl_group(store: Store, number: int, count: int, timeout: timedelta) -> Any:
    """Return the connection of the GPUs of all ranks, one of each."""
    from torch.distributed import ProcessGroupNCCL  # builds of torch for the CPU lack it

    options = ProcessGroupNCCL.Options()
    options._timeout = timeout
    return ProcessGroupNCCL(PrefixStore("nccl", store), number, count, options)


def take_gpu(number: int) -> None:
    """Hide all GPUs of this machine but one from this process, so that `device="cuda"` means that one.

    Args:
        number: of the rank among those of this machine; ranks share the GPUs if there are not enough.
    """
    if (count := torch.cuda.device_count()) > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[number % count]


def exchanges(number: int, count: int) -> list[Exchange]:
    """Return the steps after which a rank has the sum of all, added pairwise in their order: log2(count) of them.

    In a step of size d, blocks of d ranks get the sum of the block beside them. The last block of all may be smaller;
    then its ranks send to several.
    """
    steps, size = [], 1
    while size < count:
        first = number - number % (2 * size)
        blocks = [[*range(first, first + size)], [*range(first + size, min(first + 2 * size, count))]]
        if blocks[1]:
            own, other = blocks if number < first + size else blocks[::-1]
            place = own.index(number)
            ranges = (slice(block[0], block[-1] + 1) for block in (own, other))
            steps.append(Exchange(other[place :: len(own)], other[place % len(other)], *ranges))
        size *= 2
    return steps


def key_of(number: int) -> str:
    """Return the key of the store that tells of a rank."""
    return f"rank/{number}"


def _cause_of(error: Exception, timeout: float) -> str:
    if "timed out" in str(error).lower() or "timeout" in str(error).lower():
        return f"has not answered for {timeout:g} seconds"
    return "is gone: it was killed, or its network is down"
