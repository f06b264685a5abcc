"""Processes that step environments: how they start and end, and what environments may do in them."""

import ctypes
import logging
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
import torch
from torch import nn

from AsyncPPO import AsyncPPO, EnvError, EnvVectorizer, evaluate, progress
from AsyncPPO.evaluation import BackgroundEvaluation
from PPO import PPO
from tests.envs import Counter

SECONDS = 30.0
"""After how long something that is to happen has not."""
FORK = {"backend": "process", "num_workers": 2, "start_method": "fork"}

WAYS = ["fork", pytest.param("spawn", marks=pytest.mark.slow), pytest.param("forkserver", marks=pytest.mark.slow)]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


class Network(Counter):
    """Runs a torch network in every step."""

    def __init__(self) -> None:
        super().__init__(length=8)
        self.network = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))

    def step(self, action: int) -> Any:
        with torch.no_grad():
            self.network(torch.zeros(1, 64))
            torch.zeros(400, 400) @ torch.zeros(400, 400)  # certainly shared by threads
        return super().step(action)


class Fails(Network):
    """Kills its process in its tenth step, so that another is forked in the middle of a run."""

    steps = 0

    def step(self, action: int) -> Any:
        self.steps += 1
        if self.steps == 10:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


@pytest.mark.parametrize("options", [{}, {"acting": "central"}, {"backend": "process"}], ids=str)
def test_an_environment_that_runs_torch_does_not_hang(options: dict[str, Any]) -> None:
    ppo = PPO.for_env(Network(), seed=0, batch_size=128, mini_batch_size=64)
    background = BackgroundEvaluation(Network, 128, episodes=2)
    with AsyncPPO(Network, ppo, 4, 256, progress=False, callbacks=[background], **options) as run:
        assert len(run.run()) == 2
    assert run.evaluations
    assert len(evaluate(ppo, Network, 4, num_envs=4)) == 4


def test_a_worker_that_is_forked_later_may_run_torch_too() -> None:
    ppo = PPO.for_env(Network(), seed=0, batch_size=128, mini_batch_size=64)
    with AsyncPPO(Fails, ppo, 4, 256, progress=False, on_env_error="restart") as run:
        assert run.run()[-1]["restarts"]


def test_agents_are_made_and_learn_in_a_fork() -> None:
    def learn() -> None:
        ppo = PPO.for_env(Counter(), seed=0, hidden_sizes=(256, 256), batch_size=64, mini_batch_size=64)
        with AsyncPPO(Counter, ppo, 2, 64, backend="inline", progress=False) as run:
            run.run()

    learn()
    process = multiprocessing.get_context("fork").Process(target=learn)
    process.start()
    process.join(SECONDS)
    process.kill()
    assert process.exitcode == 0


class Sleeper(Counter):
    """Starts a program, and notes its number and that of this process in a directory."""

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


def test_close_waits_as_long_as_it_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for seconds, told in [(SECONDS, 0), (0.0, 1)]:
        with EnvVectorizer(lambda: Sleeper(tmp_path, 0.1), 2, **FORK, close_timeout=seconds) as env:
            env.reset()
        assert [record.levelname for record in caplog.records].count("WARNING") == told
        wait_until(lambda: not any(runs(pid) for pid in programs(tmp_path)), "a program was left behind")


class Forks(Counter):
    """Has its steps taken by a process of its own."""

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
    """Waits in native code that lets no other thread of Python run."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory

    def step(self, action: int) -> Any:
        (self.directory / str(os.getpid())).touch()
        ctypes.PyDLL(None).sleep(1000)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot end a process in native code")
@pytest.mark.parametrize("start_method", WAYS[:2])
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
        with EnvVectorizer(Network, 2, backend=backend, num_workers=2) as env:  # type: ignore[arg-type]
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
        pytest.warns(RuntimeWarning, match="no evaluation beside the training: this process is a daemon"),
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
        (KeyboardInterrupt(), KeyboardInterrupt, ""),
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
                run.stop("enough", in_a_hurry=True)
    assert run.steps_done == 192
    assert not multiprocessing.active_children()


def test_a_stopped_worker_is_found_out_however_much_it_is_to_read() -> None:
    with EnvVectorizer(Counter, 2, **FORK, step_timeout=0.5) as env:
        env.reset()
        worker = multiprocessing.active_children()[0]
        os.kill(worker.pid or 0, signal.SIGSTOP)
        with pytest.raises(EnvError, match="hung"):
            env.reset(options={"much": np.zeros(10**6)})
    assert not multiprocessing.active_children()


class Chatty(Counter):
    """Says more than a pipe holds, and notes that it was closed."""

    def __init__(self, file: Path) -> None:
        super().__init__(length=10**9)
        self.file = file

    def step(self, action: int) -> Any:
        return (*super().step(0)[:4], {"much": np.zeros(10**6)})

    def close(self) -> None:
        self.file.open("a").write("closed\n")


def test_environments_are_closed_also_when_nobody_reads_what_they_say(tmp_path: Path) -> None:
    with EnvVectorizer(
        lambda: Chatty(tmp_path / "file"), 2, backend="process", num_workers=2, asynchronous=True
    ) as env:
        env.reset()
        env.send([0, 0])
    assert (tmp_path / "file").read_text().count("closed") == 3, "one to look at, and two"


@pytest.mark.parametrize("backend", ["inline", "process"])
def test_a_first_step_that_takes_long_is_told(
    backend: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "LONG_SECONDS", 0.1)

    class Waits(Counter):
        """Takes half a second where its action says so."""

        def step(self, action: int) -> Any:
            if action:
                time.sleep(0.5)
            return super().step(action)

    options = FORK if backend == "process" else {"backend": "inline"}
    with caplog.at_level(logging.WARNING), EnvVectorizer(Waits, 4, **options) as env:
        env.reset()
        env.step([0, 0, 0, 1])
        env.step([0, 0, 0, 1])
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1, "once"
    assert "still waiting, after 0.1 seconds, for environment 3" in messages[0]
    assert ("start_method='spawn'" in messages[0]) is (backend == "process")


@pytest.mark.parametrize("initialised", [True, False])
def test_what_does_not_survive_a_fork_is_spawned(initialised: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = type(sys)("xla_bridge")
    bridge.backends_are_initialized = lambda: initialised  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "jax._src.xla_bridge", bridge)
    for asked, method in [("auto", "spawn" if initialised else "fork"), ("fork", "fork")]:
        with EnvVectorizer("CartPole-v1", 2, backend="process", num_workers=2, start_method=asked) as env:  # type: ignore[arg-type]
            env.reset()
            assert type(multiprocessing.active_children()[0]).__name__.lower() == f"{method}process"
            assert ("spawned, since JAX runs in this process" in env.backend_reason) is (method == "spawn")


def test_ways_to_start_that_there_are_not_are_refused() -> None:
    with pytest.raises(ValueError, match=r"start_method must be one of auto, .*, not 'thread'"):
        EnvVectorizer(Counter, 2, start_method="thread")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="close_timeout must be finite and not negative, not nan"):
        EnvVectorizer(Counter, 2, close_timeout=float("nan"))


def test_a_script_that_closes_nothing_ends() -> None:
    script = (
        "from AsyncPPO import EnvVectorizer\n"
        "env = EnvVectorizer('CartPole-v1', 3, backend='process', num_workers=3, start_method='fork')\n"
        "env.reset()\n"
        "raise SystemExit(7)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], timeout=SECONDS * 2, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (7, b"")
