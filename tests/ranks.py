"""Several ranks as threads of this process."""

import threading
from collections.abc import Callable
from typing import Any

from torch.distributed import HashStore

from parallel_rl.ranks.driver import Driver
from parallel_rl.ranks.elastic import Elastic, Generation
from parallel_rl.ranks.gloo import Gloo
from parallel_rl.utils import RankError, Ranks


def on_ranks(count: int, body: Callable[[Ranks], Any], timeout: float = 30.0) -> list[Any]:
    """Return the results of `body` on each of some ranks; raise the first error that is not about another rank."""
    results: list[Any] = [None] * count
    errors = errors_on_ranks(count, body, timeout, results)
    for error in sorted(filter(None, errors), key=lambda error: isinstance(error, RankError)):
        raise error
    return results


def errors_on_ranks(
    count: int, body: Callable[[Ranks], Any], timeout: float = 30.0, results: list[Any] | None = None
) -> list[BaseException | None]:
    """Return what `body` raised on each rank."""
    store, errors = HashStore(), [None] * count

    def run(number: int) -> None:
        try:
            with Gloo(store, number, count, timeout) as ranks:
                result = body(ranks)
                if results is not None:
                    results[number] = result
        except BaseException as error:
            errors[number] = error  # type: ignore[call-overload]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


class Killed(BaseException):
    """Ends a rank as if its process had been killed."""


class Fragile(Generation):
    """Ranks, of which that of this thread is killed when it has sent and received so many messages."""

    lives = threading.local()

    def _swap(self, *arguments: Any) -> None:
        left = getattr(self.lives, "left", None)
        if left == 0:
            raise Killed
        if left is not None:
            self.lives.left = left - 1
        super()._swap(*arguments)


class Thread:
    """A rank as a thread, for the `Driver`."""

    def __init__(self, store: HashStore, ranks: Elastic, body: Callable[[Elastic], Any]) -> None:
        self.ranks, self.result, self.error, self._code = ranks, None, None, None
        self._body = body
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        code = 1
        try:
            with self.ranks as ranks:
                try:
                    self.result = self._body(ranks)
                    code = 0
                except Killed:
                    code = -9
        except BaseException as error:
            self.error = error
        self._code = code

    def poll(self) -> int | None:
        return None if self._thread.is_alive() else self._code

    def kill(self) -> None:
        """Do nothing: no thread can be killed; one that hangs is left behind."""


def on_elastic_ranks(
    nodes: int,
    body: Callable[[Elastic], Any],
    min_nodes: int = 1,
    timeout: float = 30.0,
    preempt: float | None = None,
    said: list[str] | None = None,
) -> dict[int, Thread]:
    """Run `body` on elastic ranks until that of node 0 ends; return all that ever were, by their number."""
    store, threads = HashStore(), dict[int, Thread]()

    def start(member: int, node: int) -> Thread:
        threads[member] = Thread(store, Elastic(store, member, node, nodes, preempt, timeout), body)
        return threads[member]

    Driver(store, nodes, min_nodes, start, [].append if said is None else said.append).run()
    return threads
