"""The start method of workers, by system and version of Python, and the name of the program there."""

import multiprocessing
import os
import subprocess
import sys
import threading
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from AsyncPPO import EnvVectorizer
from AsyncPPO.workers import choose_start_method
from parallel_rl.commands import program
from tests.envs import Counter


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Any:
    def set(
        platform: str, version: tuple[int, int], methods: tuple[str, ...] = ("fork", "spawn", "forkserver")
    ) -> None:
        monkeypatch.setattr(sys, "platform", platform)
        monkeypatch.setattr(sys, "version_info", version)
        monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: [*methods])

    return set


@pytest.fixture
def thread() -> Any:
    event = threading.Event()
    thread = threading.Thread(target=event.wait)
    thread.start()
    yield
    event.set()
    thread.join()


def test_the_start_method_is_one_that_the_system_can_do_safely(system: Any, thread: Any) -> None:
    system("linux", (3, 11))
    assert choose_start_method("auto") == ("fork", None)
    system("linux", (3, 12))
    method, why = choose_start_method("auto")
    assert method == "forkserver"
    assert why is not None
    assert "this process has threads" in why
    assert choose_start_method("fork") == ("fork", None), "as chosen"
    system("darwin", (3, 11))
    assert choose_start_method(None)[0] == "spawn"
    system("win32", (3, 13), ("spawn",))
    assert choose_start_method("auto") == ("spawn", None)


def test_a_process_without_threads_is_forked(system: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    system("linux", (3, 13))
    monkeypatch.setattr(os, "listdir", lambda path: ["1"])
    assert choose_start_method("auto") == ("fork", None)


def test_the_reason_is_told(monkeypatch: pytest.MonkeyPatch, thread: Any) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 12))
    monkeypatch.setattr(forkserver._forkserver, "_preload_modules", ["tests.envs"])  # in place of torch
    with EnvVectorizer(Counter, 2, backend="process", num_workers=2, seed=0) as env:
        assert "start method forkserver, since this process has threads" in env.backend_reason
        assert env.reset()[0].shape == (2, 2)


def test_a_spawned_worker_makes_an_environment_that_only_its_parent_has_registered() -> None:
    gym.register("Mine-v0", Counter)
    try:
        with EnvVectorizer("Mine-v0", 2, backend="process", num_workers=2, start_method="spawn", seed=0) as env:
            assert env.spec is not None
            assert env.spec.id == "Mine-v0"
            assert env.reset()[0].shape == (2, 2)
    finally:
        del gym.registry["Mine-v0"]


FORK_SERVER = """
import multiprocessing
import sys
import gymnasium as gym
import numpy as np
from AsyncPPO import EnvVectorizer

class Env(gym.Env):
    observation_space, action_space = gym.spaces.Box(0, 1, (2,)), gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.float32([name in sys.modules for name in ("torch", "wave")]), {}

if __name__ == "__main__":
    import torch
    if sys.argv[1:]:
        multiprocessing.set_forkserver_preload(sys.argv[1:])
    with EnvVectorizer(Env, 2, backend="process", num_workers=2, start_method="forkserver") as envs:
        print(envs.reset()[0][1].tolist())  # this process has the first environment
"""


@pytest.mark.slow
@pytest.mark.parametrize(("own", "imported"), [([], [1.0, 0.0]), (["wave"], [0.0, 1.0])])
def test_a_fork_server_imports_torch_once_for_all_workers_or_what_the_program_says(
    own: list[str], imported: list[float], tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(FORK_SERVER)
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    run = subprocess.run([sys.executable, script, *own], check=False, capture_output=True, text=True, env=environment)
    assert run.stdout == f"{imported}\n", run.stderr


def test_the_program_may_be_on_another_drive(monkeypatch: pytest.MonkeyPatch) -> None:
    def relpath(path: Any) -> str:
        raise ValueError("path is on mount 'C:', start on mount 'D:'")

    monkeypatch.setattr(os.path, "relpath", relpath)
    monkeypatch.setattr(program.shutil, "which", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["main.py"])
    assert program._program() == f"{sys.executable} {program.CHECKOUT / 'main.py'}"
