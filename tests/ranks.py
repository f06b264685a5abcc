"""Several ranks as threads of this process."""

import threading
from collections.abc import Callable
from typing import Any

from torch.distributed import HashStore

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
