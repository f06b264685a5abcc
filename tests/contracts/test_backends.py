"""The guarantees of every backend. The inline backend is the oracle: the others give the same experience."""

import logging
import multiprocessing
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from AsyncPPO import EnvError, EnvVectorizer
from parallel_rl import utils
from tests.envs import Counter, Faulty, Grid, Nested, Pixels, Unclosable

pytestmark = pytest.mark.covering

BACKENDS: dict[str, dict[str, Any]] = {
    "inline": {"backend": "inline"},
    "process-fork": {"backend": "process", "num_workers": 2, "start_method": "fork"},
    "process-spawn": {"backend": "process", "num_workers": 2, "start_method": "spawn"},
    "process-forkserver": {"backend": "process", "num_workers": 2, "start_method": "forkserver"},
    "process-uneven": {"backend": "process", "num_workers": 3},
    "process-asynchronous": {"backend": "process", "num_workers": 3, "asynchronous": True},
}
PROCESS = [name for name in BACKENDS if name != "inline"]
OTHERS = ["process-spawn", "process-forkserver", "process-uneven"]
EACH = [pytest.param(name, marks=[pytest.mark.slow] if name in OTHERS else []) for name in BACKENDS]
"""Once begun, processes run the same code, for any number of environments: the whole contract of the others is slow."""
Make = Callable[..., EnvVectorizer]


@pytest.fixture(params=EACH)
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    made: list[EnvVectorizer] = []
    shared: set[str] = set()

    def make(env: Any, num_envs: int = 5, **kwargs: Any) -> EnvVectorizer:
        made.append(EnvVectorizer(env, num_envs, **BACKENDS[request.param], **kwargs))
        shared.update(re.findall(r"/dev/shm/(\S+)", Path("/proc/self/maps").read_text()))
        return made[-1]

    yield make
    for env in made:
        env.close()
    assert not multiprocessing.active_children(), "a worker was left behind"
    assert not shared & set(os.listdir("/dev/shm")), "shared memory was left behind"


def play(env: EnvVectorizer, steps: int) -> list[Any]:
    """Play `steps` random vector steps, all that was seen; finished environments wait until all have finished."""
    rng, seen = np.random.default_rng(0), []
    obs, infos = env.reset()
    seen.append((obs, infos))
    for _ in range(steps):
        if env.finished.all():
            obs, infos = env.reset()
            seen.append((obs, infos))
        space = env.single_action_space
        count = int((~env.finished).sum())
        if isinstance(space, gym.spaces.Box):
            actions = rng.uniform(space.low, space.high, (count, *space.shape)).astype(np.float32)
        else:
            actions = rng.integers(0, space.n, count)
        result = env.step(actions)
        seen.append((env.finished.copy(), *result))
        if not env.autoreset:
            utils.update_active_environments_list(env.finished, result[2] | result[3])
    return seen


def assert_same(actual: list[Any], expected: list[Any]) -> None:
    assert len(actual) == len(expected)
    for theirs, ours in zip(expected, actual, strict=True):
        for left, right in zip(theirs, ours, strict=True):
            np.testing.assert_equal(right, left)
            if isinstance(left, np.ndarray):
                assert left.dtype == right.dtype


@pytest.mark.covering(2)
@pytest.mark.parametrize("autoreset", [False, True])
@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1", partial(Counter, 4), Pixels], ids=str)
def test_same_seed_same_experience_as_inline(make: Make, env: Any, autoreset: bool) -> None:
    with EnvVectorizer(env, 5, backend="inline", seed=3, autoreset=autoreset) as oracle:
        assert_same(play(make(env, seed=3, autoreset=autoreset), 60), play(oracle, 60))


@pytest.mark.parametrize("autoreset", [False, True])
def test_next_obs_is_what_each_environment_showed_before_any_reset(make: Make, autoreset: bool) -> None:
    env, counts = make(partial(Counter, 3), autoreset=autoreset), []
    env.reset()
    for _ in range(3):
        obs = env.step(np.zeros(5, int))[0]
        counts.append((obs[4, 1], env.next_obs[4, 1]))
    assert counts == [(1, 1), (2, 2), (0 if autoreset else 3, 3)]


@pytest.mark.parametrize("backend", OTHERS)
def test_experience_does_not_depend_on_processes_or_start_method(backend: str) -> None:
    inline, other = (EnvVectorizer(Pixels, 5, **BACKENDS[name], seed=3) for name in ("inline", backend))
    with inline, other:
        assert_same(play(other, 60), play(inline, 60))


@pytest.mark.parametrize(("num_envs", "num_workers"), [(1, None), (3, 1)])
def test_process_backend_with_one_worker_steps_in_this_process(num_envs: int, num_workers: int | None) -> None:
    with EnvVectorizer(Counter, num_envs, backend="process", num_workers=num_workers, autoreset=True) as env:
        env.reset()
        for _ in range(3):
            assert len(env.step(np.zeros(num_envs, int))[0]) == num_envs


def test_results_are_compacted_to_the_running_environments(make: Make) -> None:
    env = make(Counter)
    env.reset()
    env.envs_active = np.array([False, True, False, True, False])
    obs, rewards, terminated, truncated, infos = env.step([0, 1, 2])
    assert obs.shape == (3, 2)
    assert rewards.tolist() == [1, 1, 1]
    assert terminated.dtype == truncated.dtype == bool
    assert len(infos) == 3
    env.envs_active = np.zeros(5, bool)
    obs = env.step([0, 0, 0, 0, 0])[0]
    assert obs[:, 1].tolist() == [2, 1, 2, 1, 2], "an environment that had finished was stepped, or a wrong one was"


def test_actions_reach_their_environments(make: Make) -> None:
    env = make(Grid)
    env.reset()
    env.envs_active = np.array([True, False, True, False, False])
    assert env.step(np.arange(12, dtype=np.float32).reshape(3, 4))[1].tolist() == [6, 22, 38]


def test_returned_arrays_do_not_change_later(make: Make) -> None:
    env = make(Counter, autoreset=True)
    first = env.reset()[0]
    kept = first.copy()
    second = env.step([0] * 5)
    kept_second = [array.copy() for array in second[:4]]
    env.step([0] * 5)
    np.testing.assert_equal(first, kept)
    np.testing.assert_equal(list(second[:4]), kept_second)


def test_every_copy_has_its_own_seed_stream(make: Make) -> None:
    seeded = Counter()
    seeded.reset(seed=7)
    obs, _ = make(seeded).reset()
    assert len(set(obs[:, 0].tolist())) == 5
    again, other = make(Counter, seed=1), make(Counter, seed=1)
    np.testing.assert_equal(again.reset()[0], other.reset()[0])
    assert (again.reset()[0] != other.reset(seed=2)[0])[:, 0].all()


def test_autoreset_keeps_the_true_final_observation(make: Make) -> None:
    env = make(partial(Counter, 2), autoreset=True)
    env.reset(options={"level": 3})
    env.step([0] * 5)
    obs, rewards, terminated, _, infos = env.step([1] * 5)
    assert terminated.all()
    assert rewards.tolist() == [2] * 5
    assert obs[:, 1].tolist() == [0] * 5
    assert [info["final_obs"][1] for info in infos] == [2] * 5
    assert [info["final_info"] for info in infos] == [{"action": 1}] * 5
    assert not env.finished.any()


def test_reset_hands_the_options_over_and_infos_come_back(make: Make) -> None:
    assert make(Counter).reset(options={"level": 3})[1] == [{"level": 3}] * 5
    assert make(Counter).reset()[1] == [{}] * 5


@pytest.mark.parametrize("actions", [[0] * 4, [0] * 6, [[0, 0]] * 5, 0])
def test_wrong_actions_are_refused_and_the_vectorizer_stays_usable(make: Make, actions: Any) -> None:
    env = make(Counter)
    env.reset()
    with pytest.raises(ValueError, match="5 environments are running"):
        env.step(actions)
    assert env.step([0] * 5)[1].tolist() == [1] * 5


def test_a_step_with_nothing_running_is_refused(make: Make) -> None:
    env = make(Counter)
    with pytest.raises(RuntimeError, match=r"reset\(\) first"):
        env.step([])
    env.reset()
    env.envs_active[:] = True
    with pytest.raises(RuntimeError, match="no environment is running"):
        env.step([])


def test_use_after_close_is_refused_and_close_is_idempotent(make: Make) -> None:
    env = make(Counter)
    env.close()
    env.close()
    for use in (env.reset, lambda: env.step([0])):
        with pytest.raises(RuntimeError, match="closed"):
            use()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raise", "environment 3 failed in step: ValueError: the step is broken"),
        ("nan_obs", "environment 3 returned a NaN or an infinity as its observation"),
        ("nan_reward", "environment 3 returned a NaN or an infinity as its reward"),
        ("shape", r"environment 3 returned an observation of shape \(2,\); its space says \(3,\)"),
        ("step_words", "environment 3 returned the reward 'a lot', which is not a number"),
    ],
)
def test_a_faulty_step_names_the_environment_and_closes(make: Make, fault: str, message: str) -> None:
    env = make(Faulty)
    env.reset()
    with pytest.raises(EnvError, match=message) as caught:
        env.step([0, 0, 0, Faulty.FAULTS.index(fault), 0])
    if fault == "raise":
        assert "tests/envs.py" in str(caught.value), "the original traceback is missing"
    with pytest.raises(RuntimeError, match="closed"):
        env.reset()


def test_a_faulty_reset_names_the_environment(make: Make) -> None:
    env = make(Faulty)
    env.reset()
    env.step([0, 0, Faulty.FAULTS.index("raise_in_reset"), 0, 0])
    with pytest.raises(EnvError, match="environment 2 failed in reset: ValueError: the reset is broken"):
        env.reset()


def test_a_failing_close_is_reported_and_closes_the_others(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    env = make(Unclosable, num_envs=2)
    assert [record.getMessage()[:33] for record in caplog.records] == ["environment 0 failed in close: OS"], (
        "the sample"
    )
    caplog.clear()
    env.reset()
    in_this_process = len(env._backend._block.envs)  # type: ignore[union-attr]
    env.close()
    logged = [record.getMessage()[:33] for record in caplog.records]
    assert logged == [f"environment {index} failed in close: OS" for index in range(in_this_process)]


@pytest.mark.parametrize("fault", ["words", "exit", "unreadable"])
def test_unusual_faults_name_the_environment(make: Make, fault: str) -> None:
    env = make(Faulty)
    env.reset()
    actions = [0, 0, 0, 0, Faulty.FAULTS.index(fault)]
    if fault == "unreadable" and env.backend == "inline":
        assert isinstance(env.step(actions)[4][4]["error"], Exception), "nothing has to be sent"
        return
    with pytest.raises(
        EnvError, match=r"environment 4 (returned|failed in step)|environments \d to 4 sent a result that"
    ):
        env.step(actions)


def test_a_step_with_a_wrong_return_value_is_an_error(make: Make) -> None:
    env = make(Faulty)
    env.reset()
    with pytest.raises(EnvError, match=r"environment 4 returned 4 values from step, not five: .*the old gym"):
        env.step([0, 0, 0, 0, Faulty.FAULTS.index("four")])


def test_an_info_that_cannot_be_sent_is_left_out(make: Make) -> None:
    env = make(Faulty)
    env.reset()
    info = env.step([0, 0, 0, 0, Faulty.FAULTS.index("lock")])[4][4]
    assert info.keys() == ({"lock", "number"} if env.backend == "inline" else {"number"})


def test_an_info_that_is_left_out_is_named_once(tmp_path: Path) -> None:
    log = logging.FileHandler(tmp_path / "log")
    logging.getLogger("AsyncPPO").addHandler(log)
    try:
        with EnvVectorizer(Faulty, 2, backend="process", num_workers=2, start_method="fork") as env:
            env.reset()
            for _ in range(2):
                env.step([0, Faulty.FAULTS.index("lock")])
    finally:
        logging.getLogger("AsyncPPO").removeHandler(log)
        log.close()
    (said,) = (tmp_path / "log").read_text().splitlines()
    assert "environment 1: its info 'lock' cannot be pickled: " in said


def test_a_callable_that_returns_one_object_twice_is_refused(make: Make) -> None:
    one = Counter()
    with pytest.raises(EnvError, match="same object as another: the callable must make a new one"):
        make(lambda: one, num_envs=8)


class Keeper(Grid):
    """Keeps its last action; the reward is how far the next one is from it."""

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        change = float(np.abs(action - getattr(self, "last", 0)).sum())
        self.last = action
        return np.zeros(1, np.float32), change, False, False, {}


def test_an_environment_may_keep_its_action(make: Make) -> None:
    env = make(Keeper)
    env.reset()
    for action in (1.0, 3.0, 3.0):
        rewards = env.step(np.full((5, 4), action, np.float32))[1]
    assert rewards.tolist() == [0] * 5
    assert env.step(np.full((5, 4), 4.0, np.float32))[1].tolist() == [4] * 5


def test_flat_actions_of_several_dimensions_are_accepted(make: Make) -> None:
    env = make(Grid)
    env.reset()
    flat = np.arange(20, dtype=np.float32).reshape(5, 4)
    assert env.step(flat)[1].tolist() == env.step(flat.reshape(5, 2, 2))[1].tolist() == flat.sum(axis=1).tolist()


def test_an_environment_that_cannot_be_made_is_named(make: Make) -> None:
    def factory() -> gym.Env:
        raise OSError("no such simulator")

    with pytest.raises(EnvError, match="environment 0 cannot be made: OSError: no such simulator"):
        make(factory)


@pytest.mark.parametrize("backend", EACH[1:])
def test_a_killed_worker_is_an_error_that_names_its_environments(backend: str) -> None:
    with EnvVectorizer(Faulty, 6, **BACKENDS[backend]) as env:
        env.reset()
        with pytest.raises(EnvError, match=r"worker of environments \d to \d \(pid \d+\) was killed by SIGKILL"):
            env.step([0] * 5 + [Faulty.FAULTS.index("die")])
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("backend", EACH[1:])
def test_a_worker_that_was_killed_while_idle_is_an_error_too(backend: str) -> None:
    with EnvVectorizer(Faulty, 6, **BACKENDS[backend]) as env:
        env.reset()
        for process in multiprocessing.active_children():
            process.kill()
            process.join()
        with pytest.raises(EnvError, match="was killed by SIGKILL"):
            env.reset()


def test_an_interrupt_in_the_middle_of_a_step_closes(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a step must never be taken for a whole one by the next call."""
    env = make(Counter)
    env.reset()

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(env._backend, "recv", interrupted)
    with suppress(KeyboardInterrupt):
        env.step([0] * 5)
    with pytest.raises(RuntimeError, match="closed"):
        env.step([0] * 5)


def test_nested_observations_are_structured_rows(make: Make) -> None:
    env = make(Nested, 5, seed=0, autoreset=True)
    obs, _ = env.reset()
    assert obs["inner"]["0"].shape == (5,)
    assert obs["picture"].shape == (5, 4, 4, 1)
    for _ in range(4):
        before = obs
        obs, _, terminated, _, infos = env.step(np.zeros(5, np.int64))
        assert (obs["inner"]["1"][:, 0] == np.where(terminated, 0, before["inner"]["1"][:, 0] + 1)).all()
        for row in np.flatnonzero(terminated):
            assert infos[row]["final_obs"]["inner"]["1"].tolist() == [3.0]
    assert (obs["picture"] == obs["inner"]["0"][:, None, None, None]).all()
    assert obs[[False, True, False, True, False]]["picture"].shape == (2, 4, 4, 1)


def test_a_part_that_is_missing_or_wrong_is_named(make: Make) -> None:
    for fault, message in [
        ("missing", r"environment \d returned an observation without 'picture'"),
        ("shape", r"environment \d returned an observation of shape \(2,\)"),
        ("nan", r"environment \d returned a NaN or an infinity as its observation 'inner' '1'"),
    ]:
        with pytest.raises(EnvError, match=message):
            make(partial(Nested, fault), 5).reset()
