"""The fork server that starts workers with Python 3.12 and newer, and the tracker of their semaphores."""

import multiprocessing
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from AsyncPPO import EnvVectorizer
from tests.envs import Counter
from tests.processes import FORK, SECONDS

FORK_SERVER: dict[str, Any] = FORK | {"start_method": "forkserver"}


def test_a_signal_to_the_group_spares_both() -> None:
    """Without its fork server, a worker dies; without the tracker, there are errors about semaphores."""
    script = (
        "import os, signal\n"
        "from AsyncPPO import EnvVectorizer\n"
        "with EnvVectorizer('Pendulum-v1', 2, backend='process', num_workers=2, start_method='forkserver') as env:\n"
        "    env.reset()\n"
        "    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):\n"
        "        signal.signal(number, lambda *_: print('told', flush=True))\n"
        "        os.killpg(0, number)\n"
        "        for _ in range(60):\n"
        "            env.step([[0.0], [0.0]])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], timeout=SECONDS * 2, capture_output=True, check=False, start_new_session=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"told\n" * 3, b"")


def test_other_children_of_the_fork_server_end_by_sigterm() -> None:
    with EnvVectorizer(Counter, 2, **FORK_SERVER) as env:
        env.reset()
        _children_end_by_sigterm("forkserver")


class Terminates(Counter):
    """Ends its own child processes as soon as they have started."""

    def step(self, action: int) -> Any:
        _children_end_by_sigterm("fork")
        return super().step(action)


def test_children_of_environments_end_by_sigterm() -> None:
    with EnvVectorizer(Terminates, 2, **FORK) as env:
        env.reset()
        env.step([0, 0])


def _children_end_by_sigterm(start_method: str) -> None:
    for _ in range(20):
        process: Any = multiprocessing.get_context(start_method).Process(target=signal.pause)
        process.start()
        process.terminate()
        process.join(SECONDS / 20)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGTERM


def _starts_workers() -> bool:
    with EnvVectorizer(Counter, 2, **FORK_SERVER) as env:
        return len(env.reset()[0]) == 2


def test_a_fork_starts_a_fork_server_of_its_own() -> None:
    with EnvVectorizer(Counter, 2, **FORK_SERVER) as env:
        env.reset()
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as executor:
            assert executor.submit(_starts_workers).result()
        assert len(env.step([0, 0])[0]) == 2
