"""WorkerPool: custom tasks, and how their results, errors, hangs and deaths are reported."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from AsyncPPO import EnvError, EnvVectorizer
from AsyncPPO.backends.tasks import TASKS as ENV_TASKS
from AsyncPPO.workers import Channel, SharedBuffers, Worker, WorkerError, WorkerPool, WorkerSpec
from tests.contracts.test_backends import BACKENDS
from tests.envs import Counter
from tests.processes import SECONDS, runs

pytestmark = pytest.mark.covering


class Adder:
    """A context that adds to an initial number."""

    def __init__(self, start: int, file: Path | None = None) -> None:
        self.sum, self.file = start, file

    def close(self) -> None:
        if self.file is not None:
            self.file.touch()


def make_adder(start: int, channel: Channel, file: Path | None = None) -> Adder:
    return Adder(start * channel.number, file)


def add(adder: Adder, *numbers: Any) -> Any:
    adder.sum += sum(numbers)
    return adder.sum


def nothing(adder: Adder) -> None:
    """Return nothing."""


def fail(adder: Adder) -> None:
    raise ValueError("no sums today")


def hang(adder: Adder) -> None:
    time.sleep(1000)


def die_once(adder: Adder, file: str) -> str:
    if not Path(file).exists():
        Path(file).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def lock(adder: Adder) -> Any:
    return threading.Lock()


def wait_for_file(adder: Adder, file: str) -> int:
    while not Path(file).exists():
        time.sleep(0.001)
    return 7


TASKS = {task.__name__: task for task in (add, nothing, fail, hang, die_once, lock, wait_for_file)}
Make = Callable[..., WorkerPool]


@pytest.fixture(params=["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    made: list[WorkerPool] = []

    def make(workers: int = 2, **options: Any) -> WorkerPool:
        specs = [WorkerSpec(f"adder {number}", partial(make_adder, 100)) for number in range(1, workers + 1)]
        made.append(WorkerPool(specs, TASKS, start_method=request.param, **options))
        return made[-1]

    yield make
    for pool in made:
        pool.close()
    assert not multiprocessing.active_children(), "a worker was left behind"


def test_every_worker_returns_its_result(make: Make) -> None:
    pool = make()
    assert pool.run("add", 1, 2) == {1: 103, 2: 203}
    assert pool.run("add", 2.5) == {1: 105.5, 2: 205.5}
    assert pool.run("nothing") == {1: None, 2: None}


@pytest.mark.parametrize("numbers", [(), (-1, 2**62), (2**70,), (1, 2, 3, 4, 5), (True,), (np.int64(3),)], ids=str)
def test_task_arguments_arrive_unchanged(make: Make, numbers: tuple[Any, ...]) -> None:
    assert make(1).run("add", *numbers) == {1: 100 + sum(numbers)}


def test_this_process_takes_part_where_it_has_a_context(make: Make) -> None:
    pool = make(make_local=lambda: Adder(5))
    assert pool.run("add", 1) == {0: 6, 1: 101, 2: 201}
    assert pool.run("add", 1, processes=2) == {0: 7, 1: 102}
    assert make(0, make_local=lambda: Adder(5)).run("lock").keys() == {0}, "nothing has to be sent"


def test_a_task_is_begun_without_waiting(make: Make, tmp_path: Path) -> None:
    pool, file = make(), tmp_path / "go"
    pool.begin(pool.job("wait_for_file", str(file)))
    assert not pool.ready()
    with pytest.raises(RuntimeError, match=r"the workers are busy: wait\(\) first"):
        pool.begin(pool.job("add", 1))
    file.touch()
    assert pool.ready(SECONDS)
    assert pool.wait() == {1: 7, 2: 7}


def test_an_error_names_the_worker_and_closes(make: Make) -> None:
    pool = make()
    with pytest.raises(WorkerError, match=r"(?s)adder \d failed: Traceback.*in fail\n.*ValueError: no sums today"):
        pool.run("fail")
    with pytest.raises(RuntimeError, match="the worker pool is closed"):
        pool.run("add", 1)
    with pytest.raises(ValueError, match="there is no task 'multiply', but add, nothing"):
        make().run("multiply")


def test_a_result_that_cannot_be_sent_is_an_error(make: Make) -> None:
    with pytest.raises(WorkerError, match="the result of adder 1 cannot be pickled: TypeError: cannot pickle"):
        make(1).run("lock")


def test_a_hang_is_an_error_within_seconds(make: Make) -> None:
    pool, start = make(timeout=0.5, close_timeout=0.1), time.monotonic()
    assert pool.run("add", 1) == {1: 101, 2: 201}
    with pytest.raises(WorkerError, match=r"adder \d hung: the task 'hang' has taken more than 0\.5 seconds"):
        pool.run("hang")
    assert time.monotonic() < start + SECONDS


def test_a_death_is_an_error(make: Make, tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"adder 1 \(pid \d+\) was killed by SIGKILL"):
        make(1).run("die_once", str(tmp_path / "died"))


class Restarts:
    """Stores the argument."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def prepare(self, worker: Worker) -> None:
        self.told.append(f"prepare {worker.channel.number}")

    def interrupted(self, worker: Worker, error: WorkerError) -> None:
        self.told.append(f"interrupted {worker.channel.number}: {error}")


def test_a_worker_that_is_supervised_begins_its_task_again(make: Make, tmp_path: Path) -> None:
    supervisor = Restarts()
    pool = make(1, supervisor=supervisor)
    assert pool.run("die_once", str(tmp_path / "died")) == {1: "alive"}
    assert supervisor.told[0] == "prepare 1"
    assert "interrupted 1: adder 1 (pid" in supervisor.told[1]
    assert pool.run("add", 1) == {1: 101}, "its context is new"
    (tmp_path / "died").unlink()
    with pytest.raises(WorkerError, match="was killed by SIGKILL"):
        pool.run("die_once", str(tmp_path / "died"), repeatable=False)


def refuse(channel: Channel) -> Any:
    raise OSError("no numbers")


def test_a_context_that_cannot_be_made_is_an_error_at_once_or_of_the_first_task() -> None:
    spec = WorkerSpec("the adder", refuse)
    with pytest.raises(WorkerError, match=r"(?s)the adder failed: .*OSError: no numbers"):
        WorkerPool([spec], TASKS)
    with (
        WorkerPool([spec], TASKS, wait_for_contexts=False) as pool,
        pytest.raises(WorkerError, match=r"(?s)the adder failed: .*OSError: no numbers"),
    ):
        pool.run("add", 1)


def test_contexts_are_closed_and_share_memory(tmp_path: Path) -> None:
    def write(buffer: np.ndarray, value: int) -> None:
        buffer[:] = value

    shared = SharedBuffers("fork")
    array = np.frombuffer(shared.allocate(16), np.float64)
    with WorkerPool(
        [WorkerSpec("the writer", lambda channel: np.frombuffer(channel.buffers[0], np.float64))],
        {"write": write}, shared=shared, start_method="fork",
    ) as pool:  # fmt: skip
        pool.run("write", 3)
        assert array.tolist() == [3.0, 3.0]
    file = tmp_path / "closed"
    with WorkerPool([WorkerSpec("the adder", partial(make_adder, 1, file=file))], TASKS):
        pass
    assert file.exists()


def test_a_pool_that_kills_does_not_wait() -> None:
    with WorkerPool([WorkerSpec("the adder", partial(make_adder, 1))], TASKS, close_timeout=None) as pool:
        pool.begin(pool.job("hang"))
        pid = pool.workers[0].process.pid
    assert not runs(pid)


@pytest.mark.parametrize("backend", ["inline", "process-fork", "process-asynchronous"])
def test_workers_of_environments_take_another_task(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def lengths(context: Any) -> list[int]:
        return [env.unwrapped.length for env in context.block.envs]

    def broken(context: Any) -> None:
        raise EnvError("environment 1 is tired")

    monkeypatch.setitem(ENV_TASKS, "lengths", lengths)  # type: ignore[arg-type]
    monkeypatch.setitem(ENV_TASKS, "broken", broken)  # type: ignore[arg-type]
    with EnvVectorizer([partial(Counter, length) for length in range(1, 6)], **BACKENDS[backend]) as env:
        env.reset()
        results = env.pool.run("lengths")
        assert [*chain(*(results[number] for number in sorted(results)))] == [1, 2, 3, 4, 5]
        assert len(env.step([0] * 5)[0]) == 5
        with pytest.raises(EnvError, match="environment 1 is tired"):
            env.pool.run("broken")
        with pytest.raises(RuntimeError, match="this EnvVectorizer is closed"):
            env.reset()
