"""Ranks on this machine: `python -m benchmarks.scale_out {sums,learning}`.

sums: the time of a sum by recursive doubling and by gloo's ring, and that of all messages of an update of CartPole.
learning: the return on CartPole after 30,000 steps, of one rank and of four, for six seeds.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from AsyncPPO import AsyncPPO
from parallel_rl.presets import preset
from parallel_rl.utils import ALONE, Ranks
from PPO import PPO

SIZES = (10_000, 50_000, 100_000, 400_000, 1_700_000)
REPEATS = 20
SEEDS, STEPS = range(6), 30_000


def on_ranks(count: int, work: Callable[[Ranks], Any]) -> Any:
    """Return what `work` returned on the first of some ranks, each a process."""
    context = get_context("fork")
    with TemporaryDirectory() as directory:
        results = context.SimpleQueue()
        processes = [
            context.Process(target=_rank, args=(Path(directory) / "store", number, count, work, results))
            for number in range(count)
        ]
        for process in processes:
            process.start()
        result = results.get()
        for process in processes:
            process.join()
    return result


def _rank(path: Path, number: int, count: int, work: Callable[[Ranks], Any], results: Any) -> None:
    from torch.distributed import FileStore

    from parallel_rl.ranks.gloo import Gloo

    with Gloo(FileStore(str(path), count), number, count) as ranks:
        result = work(ranks)
        if number == 0:
            results.put(result)


def milliseconds_of_sums(ranks: Any) -> list[tuple[float, float]]:
    """Return the median times of a sum of each size, by doubling and by the ring."""
    import torch

    def median(add: Callable[[torch.Tensor], Any], size: int) -> float:
        vector, times = torch.ones(size), []
        for _ in range(REPEATS):
            start = time.perf_counter()
            add(vector)
            times.append(time.perf_counter() - start)
        return float(np.median(times)) * 1e3

    return [(median(ranks.doubling, size), median(ranks.ring, size)) for size in SIZES]


class Timed:
    """Ranks that add up the time of their messages."""

    def __init__(self, ranks: Ranks) -> None:
        """Store the ranks."""
        self.number, self.count, self._ranks = ranks.number, ranks.count, ranks
        self.seconds = 0.0

    def total(self, vector: np.ndarray) -> np.ndarray:
        """Return the sum."""
        return self._timed(self._ranks.total, vector)

    def gather(self, tree: Any) -> list[Any]:
        """Return what every rank gave."""
        return self._timed(self._ranks.gather, tree)

    def _timed(self, method: Callable[[Any], Any], argument: Any) -> Any:
        start = time.perf_counter()
        result = method(argument)
        self.seconds += time.perf_counter() - start
        return result


def trainer_of(ranks: Ranks, seed: int, steps: int) -> AsyncPPO:
    """Return a trainer of CartPole with its preset."""
    names = {*vars(PPO.for_env("CartPole-v1").config)}
    settings = {name: value for name, value in preset("ppo", "CartPole-v1", False).items() if name in names}
    agent = PPO.for_env("CartPole-v1", seed=seed, **settings)
    return AsyncPPO("CartPole-v1", agent, 32, steps, seed=seed, backend="inline", progress=False, ranks=ranks)


def milliseconds_of_an_update(ranks: Ranks) -> tuple[float, int]:
    """Return the time of the messages in an update, waiting for others included, and the number of updates."""
    timed = Timed(ranks)
    with trainer_of(timed, 0, 20_000) as trainer:
        updates = len(trainer.run())
    return timed.seconds / updates * 1e3, updates


def mean_return(seed: int, ranks: Ranks) -> float:
    """Return the mean return of the last 100 episodes after `STEPS`."""
    with trainer_of(ranks, seed, STEPS) as trainer:
        trainer.run()
        return trainer.mean_return


def main() -> None:
    """Print a table."""
    if sys.argv[1:] == ["sums"]:
        for count in (2, 4, 8):
            for size, (doubling, ring) in zip(SIZES, on_ranks(count, milliseconds_of_sums), strict=True):
                print(f"| {count} ranks | {size:,} floats | doubling {doubling:.2f} ms | ring {ring:.2f} ms |")
            milliseconds, updates = on_ranks(count, milliseconds_of_an_update)
            print(f"| {count} ranks | an update of CartPole, of {updates} | {milliseconds:.1f} ms | |")
    elif sys.argv[1:] == ["learning"]:
        returns = []
        for seed in SEEDS:
            returns.append((mean_return(seed, ALONE), on_ranks(4, partial(mean_return, seed))))
            print("| seed {} | {:.1f} | {:.1f} |".format(seed, *returns[-1]), flush=True)
        print("| mean | {:.1f} | {:.1f} |".format(*np.mean(returns, axis=0)))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
