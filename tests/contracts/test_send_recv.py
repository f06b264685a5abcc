"""`send` and `recv`: the same experience as `step`, in any order of arrival."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from AsyncPPO import EnvError, EnvVectorizer
from tests.contracts.test_backends import BACKENDS, EACH
from tests.covering import rest_slow
from tests.envs import Counter, Faulty, Gate

pytestmark = pytest.mark.covering

Make = Callable[..., EnvVectorizer]
Rows = dict[int, list[Any]]


@pytest.fixture(params=EACH)
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    made: list[EnvVectorizer] = []

    def make(env: Any, num_envs: int = 5, **kwargs: Any) -> EnvVectorizer:
        made.append(EnvVectorizer(env, num_envs, **BACKENDS[request.param], **kwargs))
        return made[-1]

    yield make
    for env in made:
        env.close()


def action(env_id: int, count: int) -> int:
    """Return the action for an environment's step number `count`."""
    return (env_id + count // 3) % 2


def record(seen: Rows, env_ids: np.ndarray, results: tuple[Any, ...]) -> None:
    for row, env_id in enumerate(env_ids.tolist()):
        obs, reward, terminated, truncated, info = (field[row] for field in results)
        seen[env_id].append((obs.tolist(), reward, bool(terminated), bool(truncated), sorted(info)))


@pytest.mark.parametrize("env", ["CartPole-v1", partial(Counter, 4)], ids=str)
@pytest.mark.parametrize("min_envs", [1, 3, None])
def test_each_environment_has_the_experience_of_steps(make: Make, env: Any, min_envs: int | None) -> None:
    steps, num_envs = 40, 5
    expected: Rows = {env_id: [] for env_id in range(num_envs)}
    with EnvVectorizer(env, num_envs, backend="inline", seed=3, autoreset=True) as oracle:
        oracle.reset()
        for count in range(steps):
            results = oracle.step([action(env_id, count) for env_id in range(num_envs)])
            record(expected, np.arange(num_envs), results)

    actual: Rows = {env_id: [] for env_id in range(num_envs)}
    vectorizer = make(env, num_envs, seed=3, autoreset=True)
    vectorizer.reset()
    vectorizer.send([action(env_id, 0) for env_id in range(num_envs)])
    while any(len(rows) < steps for rows in actual.values()):
        sent = sum(len(rows) < steps for rows in actual.values())
        *results, env_ids = vectorizer.recv(None if min_envs is None else min(min_envs, sent))
        assert len(env_ids) >= min(min_envs or sent, sent)
        assert (np.diff(env_ids) > 0).all()
        record(actual, env_ids, tuple(results))
        going_on = [env_id for env_id in env_ids.tolist() if len(actual[env_id]) < steps]
        if going_on:
            vectorizer.send([action(env_id, len(actual[env_id])) for env_id in going_on], going_on)
    assert actual == expected


def test_some_may_be_sent_and_others_later(make: Make) -> None:
    env = make(partial(Counter, 9))
    env.reset()
    env.send([1, 1], [3, 0])
    env.send([1], [4])
    *_, env_ids = env.recv()
    assert env_ids.tolist() == [0, 3, 4]
    env.send([1], [3])
    env.send([1] * 4)
    obs, *_, env_ids = env.recv()
    assert env_ids.tolist() == [0, 1, 2, 3, 4]
    assert obs[:, 1].tolist() == [2, 1, 1, 2, 2], "those that waited have taken their first step"


@pytest.mark.parametrize(
    ("actions", "env_ids", "message"),
    [
        ([1, 1], [0, 0], "names an environment twice"),
        ([1], [5], "must be indexes of environments that run and wait"),
        ([1], [-1], "must be indexes of environments that run and wait"),
        ([1], [0.0], "must be indexes"),
        ([1], [2], "must be indexes of environments that run and wait"),
        ([1], [1], "must be indexes of environments that run and wait"),
        ([1, 1], [0], r"actions have shape \(2,\), but 1 environments"),
    ],
)
def test_invalid_calls_of_send_are_refused(make: Make, actions: list[int], env_ids: list[Any], message: str) -> None:
    """Environment 1 has finished; environment 2 has been sent an action already."""
    env = make(Counter)
    env.reset()
    env.finished[1] = True
    env.send([1], [2])
    with pytest.raises(ValueError, match=message):
        env.send(actions, env_ids)
    assert env.recv()[-1].tolist() == [2]


def test_invalid_calls_of_recv_are_refused(make: Make) -> None:
    env = make(Counter)
    env.reset()
    with pytest.raises(RuntimeError, match="no environment was sent an action"):
        env.recv()
    env.send([1, 1], [0, 1])
    with pytest.raises(ValueError, match="min_envs must be between 1 and the 2 environments that were sent, not 3"):
        env.recv(3)
    with pytest.raises(RuntimeError, match=r"recv\(\) them first"):
        env.step([1] * 5)
    env.reset()
    obs, *_ = env.step([1] * 5)
    assert obs[:, 1].tolist() == [1] * 5


@pytest.mark.parametrize("start_method", rest_slow("fork", "spawn"))
def test_recv_does_not_wait_for_a_slow_environment(tmp_path: Path, start_method: str) -> None:
    """Environment 0 waits until the test lets it continue, after the others have taken many steps."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    options: dict[str, Any] = {"num_workers": 4, "start_method": start_method, "asynchronous": True}
    with EnvVectorizer(partial(Gate, gate), 4, seed=0, **options) as env:
        env.reset()
        env.send([Gate.WAIT, Gate.PASS, Gate.PASS, Gate.PASS])
        counts = np.zeros(4, int)
        while counts.sum() < 60:
            *_, env_ids = env.recv(min_envs=1)
            counts[env_ids] += 1
            env.send([Gate.PASS] * len(env_ids), env_ids)
        assert counts[0] == 0
        gate.write_bytes(b"open")
        while not counts[0]:
            *_, env_ids = env.recv(min_envs=1)
            counts[env_ids] += 1
            others = env_ids[env_ids > 0]
            if len(others):
                env.send([Gate.PASS] * len(others), others)


def test_a_fault_among_those_that_were_sent_names_its_environment(make: Make) -> None:
    env = make(Faulty)
    env.reset()
    env.send([0, 0, Faulty.FAULTS.index("raise"), 0, 0])
    with pytest.raises(EnvError, match=r"environment 2 failed in step"):
        env.recv()
    with pytest.raises(RuntimeError, match="closed"):
        env.recv()


def go_on_for_ever(env: EnvVectorizer) -> None:
    while True:
        *_, env_ids = env.recv(min_envs=1)
        env.send([0] * len(env_ids), env_ids)


def test_a_dead_worker_is_noticed_though_the_others_go_on() -> None:
    with EnvVectorizer(Faulty, 3, num_workers=3, asynchronous=True) as env:
        env.reset()
        env.send([Faulty.FAULTS.index("die"), 0, 0])
        with pytest.raises(EnvError, match=r"the worker of environments 0 to 0 .* was killed by SIGKILL"):
            go_on_for_ever(env)


def test_an_environment_may_be_marked_finished_while_it_is_stepped(make: Make) -> None:
    env = make(partial(Counter, 9))
    env.reset()
    env.send([1], [0])
    env.finished[0] = True
    env.send([1], [1])
    assert env.recv()[-1].tolist() == [0, 1]


def test_returned_env_ids_are_copies_or_read_only(make: Make) -> None:
    env = make(partial(Counter, 9))
    env.reset()
    for _ in range(2):
        env.send([1] * 5)
        *_, env_ids = env.recv()
        assert env_ids.tolist() == [0, 1, 2, 3, 4]
        with suppress(ValueError):
            env_ids[:] = 0


def test_send_after_all_have_an_action_is_refused(make: Make) -> None:
    env = make(Counter)
    env.reset()
    env.send([1] * 5)
    with pytest.raises(RuntimeError, match=r"has been sent an action: recv\(\) first"):
        env.send([])
    env.recv()


def test_the_inline_backend_is_not_asynchronous() -> None:
    with pytest.raises(ValueError, match="cannot be asynchronous"):
        EnvVectorizer(Counter, 2, backend="inline", asynchronous=True)
