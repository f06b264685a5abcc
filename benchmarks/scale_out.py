"""Ranks on this machine: `python -m benchmarks.scale_out {sums,learning,speed,loss,silence,engine}`.

sums: the time of a sum by recursive doubling and by gloo's ring, and that of all messages of an update of CartPole.
learning: the return on CartPole after 30,000 steps, of one rank and of four, for six seeds.
speed: steps per second of 1, 2, 4 and 8 ranks with 8 workers each, updates included, beside linear scaling; a picture.
loss: how long the others wait when one of three ranks is killed, and when another joins.
silence: the same when it is stopped, so that it is silent but not dead.
engine: how much longer an update takes on a rank that can be replaced; there is one, so that none waits for others.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from AsyncPPO import AsyncPPO, AsyncTrainer
from AsyncPPO.callbacks import Callback
from benchmarks.scaling import Sleeper
from parallel_rl.presets import preset
from parallel_rl.utils import ALONE, Cluster, Metrics, Ranks
from PPO import PPO

SIZES = (10_000, 50_000, 100_000, 400_000, 1_700_000)
REPEATS = 20
SEEDS, STEPS = range(6), 30_000
WORKERS, HORIZON, UPDATES = 8, 128, 5
NODES, KILLED_AFTER = 3, 10
SILENCE_TIMEOUT = 3.0
HERE = "127.0.0.1"
PICTURE = Path(__file__).parents[1] / "docs" / "scale-out.png"


def on_ranks(count: int, work: Callable[[Cluster], Any]) -> Any:
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


def _rank(path: Path, number: int, count: int, work: Callable[[Cluster], Any], results: Any) -> None:
    from torch.distributed import FileStore

    from parallel_rl.ranks.gloo import Gloo

    with Gloo(FileStore(str(path), count), number, count) as ranks:
        result = work(ranks)
        if number == 0:
            results.put(result)


def milliseconds_of_sums(ranks: Any) -> list[tuple[float, float]]:
    """Return the median times of a sum of each size, by doubling and by the ring."""

    def median(add: Callable[[torch.Tensor], Any], size: int) -> float:
        vector, times = torch.ones(size), []
        for _ in range(REPEATS):
            start = time.perf_counter()
            add(vector)
            times.append(time.perf_counter() - start)
        return float(np.median(times)) * 1e3

    return [(median(ranks.doubling, size), median(ranks.ring, size)) for size in SIZES]


class Timed(Cluster):
    """Ranks that add up the time of their messages."""

    def __init__(self, ranks: Ranks) -> None:
        """Store the ranks."""
        self.rank = self.node = ranks.rank
        self.world_size = self.nodes = ranks.world_size
        self._ranks = ranks
        self.seconds = 0.0

    def all_reduce(self, vector: torch.Tensor) -> torch.Tensor:
        """Return the sum."""
        return self._timed(self._ranks.all_reduce, vector)

    def all_gather(self, tree: Any) -> list[Any]:
        """Return what every rank gave."""
        return self._timed(self._ranks.all_gather, tree)

    def gather(self, tree: Any) -> list[Any] | None:
        """Return what every rank gave, on the first one."""
        return self._timed(self._ranks.gather, tree)

    def _timed(self, method: Callable[[Any], Any], argument: Any) -> Any:
        start = time.perf_counter()
        result = method(argument)
        self.seconds += time.perf_counter() - start
        return result


def trainer_of(ranks: Cluster, seed: int, steps: int) -> AsyncPPO:
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


def mean_return(seed: int, ranks: Cluster) -> float:
    """Return the mean return of the last 100 episodes after `STEPS`."""
    with trainer_of(ranks, seed, STEPS) as trainer:
        trainer.run()
        return trainer.mean_return


def steps_per_second(ranks: Cluster) -> float:
    """Return the median over the updates of a run in which 8 workers of each rank sleep 10 ms a step."""
    envs = WORKERS * ranks.nodes
    agent = PPO(False, 8, 2, batch_size=HORIZON * envs, mini_batch_size=HORIZON * envs // 4, k_epochs=4, seed=0)
    with AsyncPPO(
        Sleeper, agent, envs, UPDATES * HORIZON * envs, seed=0, backend="process", num_workers=WORKERS, progress=False,
        ranks=ranks,
    ) as trainer:  # fmt: skip
        seconds = [row["seconds"] for row in trainer.updates()]
    return HORIZON * envs / float(np.median(np.diff(seconds)))


def draw_speed(speeds: dict[int, float]) -> None:
    """Draw steps per second against workers, and linear scaling from one rank."""
    from matplotlib.figure import Figure

    from parallel_rl.utils.plots import save_figure

    workers = [WORKERS * count for count in speeds]
    figure = Figure((5, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(workers, [*speeds.values()], "o", markersize=8, label="measured, updates included")
    axes.plot(workers, [speeds[1] * count for count in speeds], "--", color="black", linewidth=1, label="linear")
    axes.set(xlabel="workers (ranks)", ylabel="steps per second", ylim=(0, None))
    axes.set_xticks(workers, [f"{WORKERS * count}\n({count})" for count in speeds])
    axes.legend(frameon=False)
    save_figure(figure, PICTURE)


class Noting(Callback):
    """Notes when each update was done, and with how many environments; kills or stops the last of the first ranks."""

    def __init__(self, directory: Path, number: int) -> None:
        """Write into a directory; send this signal."""
        self.directory, self.number = directory, number
        self.notes, self.pause = list[tuple[float, int]](), 0.0

    def admit(self, admit: Callable[..., bool], *arguments: Any) -> bool:
        """Let ranks join; note the longest time that this takes."""
        start = time.monotonic()
        result = admit(*arguments)
        self.pause = max(self.pause, time.monotonic() - start)
        return result

    def on_update(self, trainer: AsyncTrainer, metrics: Metrics) -> None:
        """Note; stop the run some updates after the lost environments have come again."""
        ranks, self.notes = trainer.ranks, [*self.notes, (time.monotonic(), trainer.running_envs)]
        if ranks.node == NODES - 1 and not ranks.joined and len(self.notes) == KILLED_AFTER:
            (self.directory / "killed").write_text(str(time.monotonic()))
            os.kill(os.getpid(), self.number)
        all_of_them = [envs == trainer.num_envs for _, envs in self.notes]
        if ranks.node == 0 and not all(all_of_them) and all(all_of_them[-KILLED_AFTER:]):
            (self.directory / "notes").write_text(json.dumps([self.pause, self.notes]))
            trainer.stop("enough")


def _train_noting(directory: Path, number: int, ranks: Cluster) -> int:
    noting = Noting(directory, number)
    ranks.admit = partial(noting.admit, ranks.admit)  # type: ignore[method-assign]
    with trainer_of(ranks, 0, 10_000_000) as trainer:
        trainer.callbacks.append(noting)
        trainer.run()
    return 0


def on_elastic_ranks(count: int, work: Callable[[Cluster], int], timeout: float) -> None:
    """Do the work of each of some ranks, of which one may be lost and is replaced."""
    from torch.distributed import TCPStore

    from parallel_rl.commands.cluster import LocalRank, elastic_rank
    from parallel_rl.ranks.driver import Driver

    store = TCPStore(HERE, 0, is_master=True, wait_for_workers=False)

    def start(member: int, node: int) -> LocalRank:
        return LocalRank(node, partial(elastic_rank, HERE, store.port, member, node, count, None, timeout), work)

    Driver(store, count, max(1, count - 1), start, print).run()


def milliseconds_of_loss(number: int, timeout: float = 300.0) -> dict[str, float]:
    """Return the time from a signal to the next update, an update's usual time, and what a join takes."""
    with TemporaryDirectory() as name:
        directory = Path(name)
        on_elastic_ranks(NODES, partial(_train_noting, directory, number), timeout)
        killed = float((directory / "killed").read_text())
        pause, notes = json.loads((directory / "notes").read_text())
        times, envs = np.array(notes).T
    updates, before = np.diff(times), KILLED_AFTER
    back = before + int(np.argmax(envs[before:] < envs[0]))
    back += int(np.argmax(envs[back:] == envs[0]))
    return {
        "usual update": float(np.median(updates[: before - 1])) * 1e3,
        f"from {signal.Signals(number).name} to the next update": (times[before] - killed) * 1e3,
        "pause in which a rank joins": pause * 1e3,
        "longest update around the join": float(updates[back - 2 : back + 1].max()) * 1e3,
    }


def milliseconds_of_updates(ranks: Cluster) -> float:
    """Return the median time of an update of CartPole."""
    with trainer_of(ranks, 0, 50_000) as trainer:
        return float(np.median(np.diff([row["seconds"] for row in trainer.updates()]))) * 1e3


def milliseconds_of_engine() -> tuple[float, float]:
    """Return the median times of an update of one rank, without and with an engine that would replace it."""

    def work(ranks: Cluster) -> int:
        milliseconds = milliseconds_of_updates(ranks)
        if ranks.node == 0:
            file.write_text(str(milliseconds))
        return 0

    with TemporaryDirectory() as name:
        file = Path(name) / "milliseconds"
        on_elastic_ranks(1, work, 300.0)
        return milliseconds_of_updates(ALONE), float(file.read_text())


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
    elif sys.argv[1:] == ["speed"]:
        speeds = {count: on_ranks(count, steps_per_second) for count in (1, 2, 4, 8)}
        for count, speed in speeds.items():
            linear = speed / (speeds[1] * count)
            print(f"| {count} ranks, {WORKERS * count} workers | {speed:,.0f} steps/s | {linear:.2f} of linear |")
        draw_speed(speeds)
    elif sys.argv[1:] in (["loss"], ["silence"]):
        silence = sys.argv[1] == "silence"
        how = (signal.SIGSTOP, SILENCE_TIMEOUT) if silence else (signal.SIGKILL,)
        for what, milliseconds in milliseconds_of_loss(*how).items():
            print(f"| {what} | {milliseconds:,.0f} ms |")
    elif sys.argv[1:] == ["engine"]:
        for _ in range(3):
            alone, elastic = milliseconds_of_engine()
            print(f"| an update of one rank | alone {alone:.1f} ms | may be replaced {elastic:.1f} ms |", flush=True)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
