"""Processes that step environments: how they start and end, and what environments may do in them."""

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from AsyncPPO import AsyncPPO, EnvError, EnvVectorizer
from AsyncPPO.evaluation import BackgroundEvaluation
from PPO import PPO
from tests.envs import Counter
from tests.processes import FORK, SECONDS, runs, wait_until

WAYS = ["fork", pytest.param("spawn", marks=pytest.mark.slow), pytest.param("forkserver", marks=pytest.mark.slow)]


class Sleeper(Counter):
    """Starts a program, and writes its process id and its own into a directory."""

    def __init__(self, directory: Path, close_seconds: float = 0.0) -> None:
        super().__init__(length=10**9)
        self.program = subprocess.Popen(["sleep", "120"])
        self.close_seconds = close_seconds
        (directory / str(self.program.pid)).touch()

    def step(self, action: int) -> Any:
        if action == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)

    def close(self) -> None:
        time.sleep(self.close_seconds)
        self.program.terminate()
        self.program.wait()


def programs(directory: Path) -> list[int]:
    return [int(path.name) for path in directory.iterdir()]


@pytest.mark.parametrize("start_method", WAYS)
def test_programs_of_environments_end_with_them(tmp_path: Path, start_method: Any) -> None:
    with EnvVectorizer(
        lambda: Sleeper(tmp_path), 2, backend="process", num_workers=2, start_method=start_method, asynchronous=True
    ) as env:
        env.reset()
    assert len(programs(tmp_path)) == 3, "one to look at, and two"
    assert not any(runs(pid) for pid in programs(tmp_path))


def test_programs_of_a_killed_worker_end_with_it(tmp_path: Path) -> None:
    with EnvVectorizer(lambda: Sleeper(tmp_path), 2, **FORK, on_env_error="restart") as env:
        env.reset()
        assert env.step([0, 1])[3].tolist() == [False, True]
        wait_until(lambda: sum(runs(pid) for pid in programs(tmp_path)) == 2, "the first worker's program goes on")
    wait_until(lambda: not any(runs(pid) for pid in programs(tmp_path)), "a program was left behind")


def test_close_waits_for_close_timeout(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for seconds, told in [(SECONDS, 0), (0.0, 1)]:
        with EnvVectorizer(lambda: Sleeper(tmp_path, 0.1), 2, **FORK, close_timeout=seconds) as env:
            env.reset()
        assert [record.levelname for record in caplog.records].count("WARNING") == told
        wait_until(lambda: not any(runs(pid) for pid in programs(tmp_path)), "a program was left behind")


class Forks(Counter):
    """Lets its own child process take its steps."""

    def __init__(self) -> None:
        super().__init__()
        self.mine, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.get_context("fork").Process(target=self._serve, args=(theirs,))
        self.process.start()

    def _serve(self, pipe: Any) -> None:
        while True:
            pipe.send(pipe.recv())

    def step(self, action: int) -> Any:
        self.mine.send(action)
        return super().step(self.mine.recv())

    def close(self) -> None:
        self.process.terminate()
        self.process.join()


def test_environments_may_start_processes_of_multiprocessing(caplog: pytest.LogCaptureFixture) -> None:
    with EnvVectorizer(Forks, 4, **FORK) as env:
        env.reset()
        assert env.step([0, 1, 2, 0])[1].tolist() == [1, 1, 1, 1]
    assert not caplog.records, "their processes heed SIGTERM"
    assert not multiprocessing.active_children()


class Native(Counter):
    """Waits in native code, which blocks all other Python threads."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory

    def step(self, action: int) -> Any:
        (self.directory / str(os.getpid())).touch()
        ctypes.PyDLL(None).sleep(1000)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot end a process in native code")
@pytest.mark.parametrize("start_method", WAYS)
def test_workers_in_native_code_end_with_a_killed_parent(tmp_path: Path, start_method: str) -> None:
    def be_a_parent() -> None:
        env = EnvVectorizer(
            lambda: Native(tmp_path), 2, backend="process", num_workers=2, start_method=start_method, asynchronous=True
        )
        env.reset()
        env.step([0, 0])

    _killed_parent_leaves_nothing(be_a_parent, tmp_path, 2)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot end a process in native code")
def test_an_evaluation_in_native_code_ends_with_a_killed_parent(tmp_path: Path) -> None:
    def be_a_parent() -> None:
        ppo = PPO.for_env(Counter(), seed=0, batch_size=64, mini_batch_size=64)
        evaluation = BackgroundEvaluation(lambda: Native(tmp_path), 64, episodes=1)
        with AsyncPPO(Counter, ppo, 2, 64, backend="inline", progress=False, callbacks=[evaluation]) as run:
            run.run()

    _killed_parent_leaves_nothing(be_a_parent, tmp_path, 1)


def _killed_parent_leaves_nothing(be_a_parent: Callable[[], None], directory: Path, children: int) -> None:
    process = multiprocessing.get_context("fork").Process(target=be_a_parent)
    process.start()
    wait_until(lambda: len(list(directory.iterdir())) == children, "nobody steps")
    process.kill()
    process.join()
    left = [int(path.name) for path in directory.iterdir()]
    try:
        wait_until(lambda: not any(runs(pid) for pid in left), "a child has outlived its parent")
    finally:
        for pid in filter(runs, left):
            os.kill(pid, signal.SIGKILL)


def test_workers_outlive_the_thread_that_started_them() -> None:
    made: list[EnvVectorizer] = []
    thread = threading.Thread(target=lambda: made.append(EnvVectorizer(Counter, 2, **FORK)))
    thread.start()
    thread.join()
    with made[0] as env:
        env.reset()
        assert len(env.step([0, 0])[0]) == 2


def _inside(backend: str) -> tuple[str, str]:
    try:
        with EnvVectorizer(Counter, 2, backend=backend, num_workers=2) as env:  # type: ignore[arg-type]
            env.reset()
            env.step([0, 0])
            return env.backend, env.backend_reason
    except EnvError as error:
        return "error", str(error)


def test_a_daemon_steps_inline_or_says_why_it_cannot_have_workers() -> None:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(_inside, ("auto",)) == ("inline", pool.apply(_inside, ("auto",))[1])
        assert "is a daemon" in pool.apply(_inside, ("auto",))[1]
        kind, message = pool.apply(_inside, ("process",))
    assert kind == "error"
    assert message.startswith("the worker of environments 1 to 1 could not be started: this process is a daemon")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as executor:
        assert executor.submit(_inside, "process").result()[0] == "process"


def _train_inside() -> tuple[int, str]:
    ppo = PPO.for_env(Counter(), seed=0, batch_size=64, mini_batch_size=64)
    callbacks = [BackgroundEvaluation(Counter, 64, episodes=1)]
    with (
        AsyncPPO(Counter, ppo, 2, 64, progress=False, callbacks=callbacks) as run,
        pytest.warns(RuntimeWarning, match="no background evaluation: this process is a daemon"),
    ):
        run.run()
    return run.steps_done, run.env.backend


def test_a_daemon_trains_without_evaluation_beside_it() -> None:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(_train_inside) == (64, "inline")


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (BlockingIOError(11, "try again"), EnvError, "environments 2 to 2 could not be started: .* try again"),
        (KeyboardInterrupt(), KeyboardInterrupt, "^$"),
    ],
)
def test_a_start_that_fails_leaves_nothing(
    error: BaseException, expected: type[BaseException], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fork, children = os.fork, []

    def failing() -> int:
        if children:
            raise error
        children.append(fork())
        return children[0]

    monkeypatch.setattr(os, "fork", failing)
    with pytest.raises(expected, match=message):
        EnvVectorizer(Counter, 4, **FORK | {"num_workers": 4})
    assert not multiprocessing.active_children()
    assert not runs(children[0])


def test_ctrl_c_between_fork_and_start_leaves_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    fork = os.fork
    children: list[int] = []

    def interrupted() -> int:
        pid = fork()
        if pid:
            children.append(pid)
            signal.raise_signal(signal.SIGINT)
        return pid

    monkeypatch.setattr(os, "fork", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            EnvVectorizer(Counter, 4, **FORK | {"num_workers": 4})
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(children) == 1
    assert not runs(children[0])


def test_training_does_not_wait_for_an_evaluation_that_reads_nothing() -> None:
    ppo = PPO.for_env(Counter(), seed=0, hidden_sizes=(512, 512), batch_size=64, mini_batch_size=64, k_epochs=1)
    evaluation = BackgroundEvaluation(Counter, 64, episodes=1)
    with AsyncPPO(Counter, ppo, 2, 192, backend="inline", progress=False, callbacks=[evaluation]) as run:
        for row in run.updates():
            if row["steps"] == 64:
                os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGSTOP)
            if row["steps"] == 192:
                run.stop("enough", skip_slow_work=True)
    assert run.steps_done == 192
    assert not multiprocessing.active_children()


def test_a_stopped_worker_is_detected_while_a_large_message_is_sent() -> None:
    with EnvVectorizer(Counter, 2, **FORK, step_timeout=0.5) as env:
        env.reset()
        worker = multiprocessing.active_children()[0]
        os.kill(worker.pid or 0, signal.SIGSTOP)
        with pytest.raises(EnvError, match="hung"):
            env.reset(options={"much": np.zeros(10**6)})
    assert not multiprocessing.active_children()


class Chatty(Counter):
    """Returns infos that are too large for a pipe, and records that it was closed."""

    def __init__(self, file: Path) -> None:
        super().__init__(length=10**9)
        self.file = file

    def step(self, action: int) -> Any:
        return (*super().step(0)[:4], {"much": np.zeros(10**6)})

    def close(self) -> None:
        self.file.open("a").write("closed\n")


def test_environments_are_closed_if_nobody_reads_their_replies(tmp_path: Path) -> None:
    with EnvVectorizer(
        lambda: Chatty(tmp_path / "file"), 2, backend="process", num_workers=2, asynchronous=True
    ) as env:
        env.reset()
        env.send([0, 0])
        workers = env._backend.pool.workers  # type: ignore[union-attr]
        wait_until(lambda: all(worker.has_replied() for worker in workers), "nothing is said")
    assert (tmp_path / "file").read_text().count("closed") == 3, "one to look at, and two"


def test_unknown_start_methods_are_refused() -> None:
    with pytest.raises(ValueError, match=r"start_method must be one of auto, .*, not 'thread'"):
        EnvVectorizer(Counter, 2, start_method="thread")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="close_timeout must be finite and not negative, not nan"):
        EnvVectorizer(Counter, 2, close_timeout=float("nan"))


def test_a_script_that_never_calls_close_ends() -> None:
    script = (
        "from AsyncPPO import EnvVectorizer\n"
        "env = EnvVectorizer('CartPole-v1', 3, backend='process', num_workers=3, start_method='fork')\n"
        "env.reset()\n"
        "raise SystemExit(7)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], timeout=SECONDS * 2, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (7, b"")
