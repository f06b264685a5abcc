"""Members that fail, die or hang, and interrupts: nothing hangs, and no process is left behind."""

import logging
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from AsyncPPO.callbacks import Callback
from OffPolicy import DQN
from Population import ExploitExplore, MemberError, Trainer
from tests.covering import rest_slow
from tests.Population.toys import Adder, Bad, Line
from tests.processes import SECONDS, runs, wait_until

ROOT = Path(__file__).parents[2]
SCHEDULE = [("finish", 60, "steps"), ("train_agent", 5, "steps"), ("combine_agents", 20, "steps")]
MESSAGES = {
    "raise": r"(?s)member 1 failed: Traceback.*ValueError: no action comes to mind",
    "die": r"member 1 \(pid \d+\) was killed by SIGKILL",
    "hang": r"member 1 hung: .* more than 0\.3 seconds",
}


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    yield
    assert not multiprocessing.active_children(), "a member was left behind"


def trainer(fault: str, file: Path | None = None, agents: list[Bad] | None = None, **options: Any) -> Trainer:
    agents = agents or [Bad(1.0, "none"), Bad(-1.0, fault, file)]
    defaults: dict[str, Any] = {"step_timeout": 0.3, "progress": False, "seed": 0, "schedule": SCHEDULE}
    return Trainer(agents, Line(), 2, "parallel_learning", **defaults | options)


@pytest.mark.parametrize("sync_mode", ["sync", "async"])
@pytest.mark.parametrize("fault", MESSAGES)
def test_a_fault_is_an_error_at_once_that_names_the_member(fault: str, sync_mode: str) -> None:
    start = time.monotonic()
    with pytest.raises(MemberError, match=MESSAGES[fault]):
        trainer(fault, sync_mode=sync_mode).run()
    assert time.monotonic() < start + 3


@pytest.mark.covering
@pytest.mark.parametrize("sync_mode", ["sync", "async"])
@pytest.mark.parametrize("fault", MESSAGES)
def test_a_member_is_restarted_from_the_last_broadcast(fault: str, sync_mode: str, tmp_path: Path) -> None:
    one = trainer(fault, tmp_path / "failed", sync_mode=sync_mode, on_worker_error="restart")
    agent, result = one.run()
    assert (tmp_path / "failed").exists()
    assert [worker["total_steps"] for worker in result["workers"]] == [60, 60]
    assert agent.number != 0


class Uniform(Bad):
    """Acts at random."""

    def action(self, state: Any) -> float:
        super().action(state)
        return random.random()


def test_a_restarted_member_keeps_its_earlier_steps_and_does_not_repeat_them(tmp_path: Path) -> None:
    agents = [Uniform(1.0, "none"), Uniform(-1.0, "die", tmp_path / "failed", at=30)]
    schedule = [("finish", 60, "steps"), ("worker_send_data", 20, "steps")]
    options: dict[str, Any] = {"on_worker_error": "restart", "progress": False, "seed": 0}
    _, result = Trainer(agents, Line(7), 2, "parallel_learning", schedule=schedule, **options).run()
    assert (tmp_path / "failed").exists()
    assert [len({*worker["experience"].actions}) for worker in result["workers"]] == [60, 60]
    steps = result["workers"][1]["experience"]
    follows = [
        seen == following for seen, following in zip(steps.next_observations, steps.observations[1:], strict=False)
    ]
    ends = [one or other for one, other in zip(steps.terminated, steps.truncated, strict=True)]
    assert all(went_on or ended for went_on, ended in zip(follows, ends, strict=False)), "the lost episode ends"


@pytest.mark.parametrize("combiner", [None, ExploitExplore(of=["constant"], seed=0)])
def test_a_restarted_member_to_which_no_agent_was_sent_keeps_what_it_has_learned(
    combiner: ExploitExplore | None, tmp_path: Path
) -> None:
    agents = [Bad(-2.0, "none"), Bad(-1.0, "die", tmp_path / "failed", at=30)]  # the second is the best: it stays
    schedule = [("finish", 60, "steps"), ("train_agent", 5, "steps"), ("worker_send_data", 20, "steps")]
    if combiner is not None:
        schedule.append(("combine_agents", 40, "steps"))
    options: dict[str, Any] = {"on_worker_error": "restart", "progress": False, "seed": 0, "combiner": combiner}
    _, result = Trainer(agents, Line(), 2, "parallel_learning", schedule=schedule, sync_mode="sync", **options).run()
    assert (tmp_path / "failed").exists()
    assert result["workers"][1]["agent"].number == -60 / 5


class FailsOnce(gym.Wrapper):
    """Fails when it has taken 300 steps, if no other has done so before."""

    def __init__(self, marker: Path) -> None:
        super().__init__(gym.make("CartPole-v1"))
        self.marker, self.taken = marker, 0

    def step(self, action: Any) -> Any:
        self.taken += 1
        if self.taken == 300 and not self.marker.exists():
            self.marker.touch()
            raise OSError("the simulator is gone")
        return super().step(action)


class NoteEpsilon(Callback):
    """Writes the last epsilon of a member into a file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def on_end(self, trainer: Any) -> None:
        (self.directory / f"{os.getpid()}").write_text(str(trainer.agent.epsilon))


def test_a_restarted_dqn_continues_its_schedules_without_its_replay(tmp_path: Path) -> None:
    schedule = [("finish", 1500, "steps"), ("worker_send_data", 1000, "steps")]
    options: dict[str, Any] = {"on_worker_error": "restart", "progress": False, "seed": 0, "num_envs": 4}
    options["trainer_options"] = {"callbacks": [NoteEpsilon(tmp_path / "epsilon")]}
    (tmp_path / "epsilon").mkdir()
    dqn = DQN.for_env(
        "CartPole-v1", learning_starts=200, train_freq=50, utd=0.005, batch_size=8, hidden_sizes=(4,),
        epsilon_start=1.0, epsilon_end=0.0, epsilon_steps=3000, buffer_size=2000, seed=0,
    )  # fmt: skip
    env = partial(FailsOnce, tmp_path / "failed")
    _, result = Trainer(dqn, env, 2, "parallel_learning", schedule=schedule, **options).run()
    assert (tmp_path / "failed").exists()
    assert [worker["total_steps"] for worker in result["workers"]] == [1500, 1500]
    epsilons = [float(file.read_text()) for file in (tmp_path / "epsilon").iterdir()]
    assert sorted(epsilons)[:2] == pytest.approx([0.5, 0.5], abs=0.01)


@pytest.mark.parametrize("fault", rest_slow("die", "raise"))
def test_a_member_that_fails_again_and_again_is_an_error(fault: str) -> None:
    agents = [Bad(-1.0, fault, at=0), Bad(1.0, "none")]
    message = {"raise": "no action comes to mind", "die": "was restarted 10 times and failed at once every time"}
    with pytest.raises(MemberError, match=message[fault]):
        Trainer(
            agents, Line(), 2, "parallel_learning", schedule=SCHEDULE, on_worker_error="restart", progress=False
        ).run()


def test_the_traceback_of_a_member_that_fails_again_and_again_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    agents = [Bad(-1.0, "raise", at=0), Bad(1.0, "none")]
    schedule = [("finish", 60, "steps")]
    failed = pytest.raises(MemberError, match=r"(?s)member 0 failed: Traceback.*no action comes to mind$")
    with caplog.at_level(logging.WARNING), failed:
        trainer("none", agents=agents, schedule=schedule, on_worker_error="restart").run()
    first, *later = [record.getMessage() for record in caplog.records]
    assert first.startswith("member 0 failed: Traceback")
    assert later == ["member 0 failed again: ValueError: no action comes to mind; it is restarted"] * 9


def test_an_environment_that_cannot_be_made_is_an_error() -> None:
    def refuse() -> Any:
        raise OSError("no such simulator")

    with pytest.raises(MemberError, match=r"(?s)member \d failed.*OSError: no such simulator"):
        Trainer(Adder(), refuse, 2, schedule=SCHEDULE, progress=False).run()


def test_an_error_of_a_callback_ends_the_run() -> None:
    def full_disk(trainer: Trainer) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        trainer("none", callbacks=[full_disk]).run()


SCRIPT = """
import multiprocessing, sys
from Population import Trainer
from tests.Population.toys import Adder, Line

def tell(trainer):
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    sys.stdout.close = lambda: None
    trainer.callbacks.clear()

schedule = [("finish", 1000, "seconds"), ("train_agent", 10, "steps"), ("combine_agents", 10, "steps")]
Trainer(Adder(), Line(), 2, "parallel_learning", schedule=schedule, keep_experience=False, callbacks=[tell]).run()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_member_outlives_the_main_process(number: int, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 2
    process.send_signal(number)
    assert process.wait(SECONDS) != 0
    wait_until(lambda: not any(runs(pid) for pid in pids), "a member outlived the main process")
