"""Environments and processes that fail: one clear error, or a run that goes on."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from AsyncPPO import AsyncPPO, AsyncTrainer, EnvError, EnvVectorizer
from OffPolicy import DDPG, DQN, SAC, TD3
from PPO import PPO
from tests.covering import rest_slow
from tests.envs import Faulty
from tests.processes import runs

pytestmark = pytest.mark.covering

WAYS: dict[str, dict[str, Any]] = {
    "inline": {"backend": "inline"},
    "fork": {"backend": "process", "num_workers": 2, "start_method": "fork"},
    "spawn": {"backend": "process", "num_workers": 2, "start_method": "spawn"},
}
FAIL_IN_ANY = ("raise", "nan_obs", "nan_reward", "shape", "dtype", "step_words", "four", "words", "exit")
FAIL_IN_PROCESSES = ("die", "hang")
Make = Callable[..., EnvVectorizer]


@pytest.fixture(params=["inline", "fork", pytest.param("spawn", marks=pytest.mark.slow)])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    made: list[EnvVectorizer] = []

    def make(env: Any, num_envs: int = 4, **kwargs: Any) -> EnvVectorizer:
        made.append(EnvVectorizer(env, num_envs, **WAYS[request.param], **kwargs))
        return made[-1]

    yield make
    for env in made:
        env.close()
    assert not multiprocessing.active_children(), "a worker was left behind"


def actions(*faults: str) -> list[int]:
    return [Faulty.FAULTS.index(fault) for fault in faults]


@pytest.mark.parametrize("fault", FAIL_IN_ANY)
@pytest.mark.parametrize("autoreset", [True, False])
def test_a_failed_step_is_a_truncated_one_and_the_others_go_on(make: Make, fault: str, autoreset: bool) -> None:
    env = make(Faulty, on_env_error="restart", autoreset=autoreset)
    env.reset()
    obs, rewards, terminated, truncated, infos = env.step(actions("fine", fault, "fine", "fine"))
    assert truncated.tolist() == [False, True, False, False]
    assert not terminated.any()
    assert np.isfinite(obs).all()
    assert rewards.tolist() == [0, 0, 0, 0]
    assert "environment 1" in infos[1]["env_error"]
    assert env.restarts == 1
    if not autoreset:
        env.envs_active[truncated] = True
    assert not env.step(actions(*["fine"] * (4 if autoreset else 3)))[3].any()


@pytest.mark.parametrize("fault", FAIL_IN_PROCESSES)
@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_a_process_that_dies_or_hangs_is_restarted(fault: str, start_method: str) -> None:
    with EnvVectorizer(
        Faulty, 4, **WAYS[start_method], on_env_error="restart", step_timeout=0.5, autoreset=True
    ) as env:
        env.reset()
        _, _, terminated, truncated, infos = env.step(actions("fine", "fine", "fine", fault))
        assert truncated.tolist() == [False, False, True, True], "environments of the same process are restarted too"
        assert not terminated.any()
        assert {"die": "was killed by SIGKILL", "hang": "environment 3 hung"}[fault] in infos[3]["env_error"]
        assert env.restarts == 2
        assert not env.step(actions(*["fine"] * 4))[3].any()


@pytest.mark.parametrize("start_method", rest_slow("fork", "spawn"))
def test_a_hanging_environment_is_named_within_seconds(start_method: str) -> None:
    with EnvVectorizer(Faulty, 4, **WAYS[start_method], step_timeout=0.5) as env:
        env.reset()
        start = time.monotonic()
        with pytest.raises(
            EnvError, match=r"environment 2 hung: a step, reset or call has taken more than 0\.5 seconds"
        ):
            env.step(actions("fine", "fine", "hang", "fine"))
        assert time.monotonic() < start + 5
    assert not multiprocessing.active_children()


class Talkative(Faulty):
    """Returns a nonempty info where its action is not 0."""

    def step(self, action: int) -> Any:
        obs, reward, terminated, truncated, _ = super().step(0)
        return obs, reward, terminated, truncated, {"much": "to say"} if action else {}


def test_a_process_that_dies_during_its_reply_is_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    with EnvVectorizer(Talkative, 4, **WAYS["fork"], on_env_error="restart", autoreset=True) as env:
        env.reset()
        worker = env.pool.workers[1]
        receive = worker.receive

        def killed_before() -> Any:
            monkeypatch.setattr(worker, "receive", receive)
            worker.kill()
            worker.channel.pipe.close()
            return receive()

        monkeypatch.setattr(worker, "receive", killed_before)
        assert env.step([0, 0, 0, 1])[3].tolist() == [False, False, True, True]
        assert not env.step([0, 0, 0, 0])[3].any()


def test_failing_resets_are_tried_again(make: Make) -> None:
    env = make(Faulty, on_env_error="restart")
    env.reset()
    env.step(actions("fine", "raise_in_reset", "fine", "fine"))
    assert np.isfinite(env.reset()[0]).all()
    assert env.restarts == 1


class Hopeless(Faulty):
    """Never takes a step."""

    def step(self, action: int) -> Any:
        raise ValueError("the step is broken")


class Deadly(Faulty):
    """Kills its process at every step."""

    def step(self, action: int) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)


def test_an_environment_that_always_fails_is_an_error() -> None:
    for env, backend, message in [
        (Hopeless, "inline", "environment 0 was restarted 10 times and failed at once every time"),
        (Deadly, "process", r"the worker of environments \d to \d was restarted 10 times"),
    ]:
        ppo = PPO.for_env(Faulty(), seed=0)
        with (
            AsyncPPO(env, ppo, 4, 10_000, backend=backend, on_env_error="restart", progress=False) as run,
            pytest.raises(EnvError, match=message),
        ):
            run.run()
    assert not multiprocessing.active_children()


class Sometimes(gym.Env):
    """Observes its number of steps; fails in step `every` of each episode. Episodes never end otherwise."""

    def __init__(self, every: int, how: str) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.every, self.how, self.made = every, how, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.count += 1
        if self.count == self.every:
            if self.how == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("now and then")
        return np.array([self.count, 0], np.float32), float(self.count), False, False, {}


def test_a_resumed_run_counts_the_restarts_before(tmp_path: Path) -> None:
    def trainer() -> AsyncPPO:
        ppo = PPO.for_env(Sometimes(7, "raise"), seed=0, batch_size=40, mini_batch_size=40, k_epochs=1)
        options: dict[str, Any] = {"backend": "inline", "seed": 0, "progress": False, "on_env_error": "restart"}
        return AsyncPPO(lambda: Sometimes(7, "raise"), ppo, 4, 120, **options)

    with trainer() as whole, trainer() as resumed:
        updates = whole.updates()
        before = next(updates)["restarts"]
        whole.save_checkpoint(tmp_path / "checkpoint")
        after = [row["restarts"] for row in updates]
        resumed.load_checkpoint(tmp_path / "checkpoint")
        assert [row["restarts"] for row in resumed.run()] == after
        assert after[-1] > before > 0


@pytest.mark.parametrize("acting", ["central", "replicas"])
@pytest.mark.parametrize(("how", "backend"), [("raise", "inline"), ("raise", "process"), ("die", "process")])
def test_trajectories_are_truncated_where_an_environment_failed(acting: str, how: str, backend: str) -> None:
    """Observations count up from 0 in every episode; the next one is in the next row, or stored at a truncation."""
    every = 7
    ppo = PPO.for_env(Sometimes(every, how), seed=0, batch_size=40, mini_batch_size=40, k_epochs=1)
    seen = []
    learn, ppo.learn = ppo.learn, lambda *args: (seen.append(ppo.memory.batch()), learn(*args))[1]  # type: ignore[method-assign, misc, func-returns-value]
    with AsyncPPO(
        lambda: Sometimes(every, how), ppo, 4, 120, acting=acting, backend=backend, num_workers=2,
        on_env_error="restart", progress=False,
    ) as run:  # fmt: skip
        history = run.run()
    assert history[-1]["restarts"] > 10
    assert all(abs(row["approx_kl"]) < 1e-9 for row in history), "one step per update: the policy that acted learns"
    assert not multiprocessing.active_children()
    for batch in seen:
        assert not batch.terminated.any()
        assert (batch.next_obs[:, 0] == batch.obs[:, 0] + 1).all()
        assert (batch.reward == batch.obs[:, 0] + 1).all()
        assert (batch.obs[:, 0] < every - 1).all()
        cut = batch.ends & ~batch.trajectory_ends
        assert cut.any()


class Continuous(Sometimes):
    """Takes a continuous action."""

    def __init__(self, every: int, how: str) -> None:
        super().__init__(every, how)
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)


@pytest.mark.parametrize(("agent", "env"), [(DQN, Sometimes), (DDPG, Continuous), (TD3, Continuous), (SAC, Continuous)])
@pytest.mark.parametrize(("how", "backend"), [("raise", "inline"), ("raise", "process"), ("die", "process")])
def test_no_transition_in_a_replay_buffer_leads_over_a_failure(agent: Any, env: Any, how: str, backend: str) -> None:
    every = 7
    made = agent.for_env(env(every, how), seed=0, learning_starts=40, batch_size=16, utd=0.1)
    options: dict[str, Any] = {"num_workers": 2, "on_env_error": "restart", "progress": False}
    with AsyncTrainer(lambda: env(every, how), made, 4, 240, backend=backend, **options) as run:
        history = run.run()
    assert history[-1]["restarts"] > 10
    assert not multiprocessing.active_children()
    batch = made.replay.transitions(np.flatnonzero(made.replay.is_transition), made.gamma)
    assert len(batch.obs) > 200
    assert (batch.next_obs[:, 0] == batch.obs[:, 0] + 1).all()
    assert (batch.reward == batch.obs[:, 0] + 1).all()
    assert (batch.obs[:, 0] < every - 1).all()
    assert (batch.discount == np.float32(made.gamma)).all(), "a failure is not a terminal state"


@pytest.mark.parametrize("acting", ["central", "replicas"])
def test_a_checkpoint_after_the_death_of_a_worker_ends_its_episodes(acting: Any, tmp_path: Path) -> None:
    seen = []

    def trainer() -> AsyncPPO:
        ppo = PPO.for_env(Sometimes(10**6, "raise"), seed=0, batch_size=80, mini_batch_size=80, k_epochs=1)
        learn, ppo.learn = ppo.learn, lambda *args: (seen.append(ppo.memory.batch()), learn(*args))[1]  # type: ignore[method-assign, misc, func-returns-value]
        options: dict[str, Any] = {"backend": "process", "num_workers": 2, "on_env_error": "restart", "progress": False}
        return AsyncPPO(lambda: Sometimes(10**6, "raise"), ppo, 4, 120, acting=acting, seed=0, **options)

    with trainer() as killed, trainer() as resumed:
        killed.run()
        assert len(killed.buffer) == 40
        process = killed.env.pool.workers[0].process
        process.kill()
        process.join()
        killed.save_checkpoint(tmp_path / "checkpoint")
        resumed.load_checkpoint(tmp_path / "checkpoint")
        for run in (killed, resumed):
            counted = run.collector.state()[0]["episodes"]["lengths"]
            assert counted.tolist() == run.env.obs[:, 0].tolist() == [0, 0, 30, 30]
            run.run()
    for batch in seen:
        assert (batch.next_obs[:, 0] == batch.obs[:, 0] + 1).all()
        assert (batch.reward == batch.obs[:, 0] + 1).all()


class Tattler(Faulty):
    """Creates a file named after its process ID, and then hangs in its step."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory

    def step(self, action: int) -> Any:
        (self.directory / str(os.getpid())).touch()
        return super().step(Faulty.FAULTS.index("hang"))


@pytest.mark.parametrize("start_method", rest_slow("fork", "spawn"))
def test_workers_end_when_their_parent_is_killed(tmp_path: Path, start_method: str) -> None:
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_be_a_parent, args=(tmp_path, start_method))
    process.start()
    while len(list(tmp_path.iterdir())) < 3:
        assert process.is_alive()
        os.sched_yield()
    process.kill()
    process.join()
    deadline = time.monotonic() + 5
    workers = {int(path.name) for path in tmp_path.iterdir()} - {process.pid}
    while any(runs(worker) for worker in workers):
        assert time.monotonic() < deadline, "a worker has outlived its parent for five seconds"
        os.sched_yield()


def _be_a_parent(directory: Path, start_method: str) -> None:
    env = EnvVectorizer(
        lambda: Tattler(directory), 3, backend="process", num_workers=3, start_method=start_method, asynchronous=True
    )
    env.reset()
    env.step(actions("fine", "fine", "fine"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step_timeout": 0.0}, "step_timeout must be positive"),
        ({"step_timeout": 1.0, "backend": "inline"}, "step_timeout needs worker processes"),
        ({"on_env_error": "ignore"}, "on_env_error must be 'raise' or 'restart', not 'ignore'"),
        ({"on_env_error": "restart", "asynchronous": True}, "does not work with asynchronous environments"),
        ({"on_env_error": "restart", "backend": "vector"}, "does not work with the vector backend"),
    ],
)
def test_incompatible_arguments_about_stepping_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EnvVectorizer("CartPole-v1", 2, **options)


class Mute(Exception):
    """Cannot say what it is."""

    def __str__(self) -> str:
        raise ValueError("no words")


class Silent(Faulty):
    """Fails without words."""

    def step(self, action: int) -> Any:
        raise Mute


def test_an_exception_without_a_message_is_reported() -> None:
    with EnvVectorizer(Silent, 2, backend="inline") as env:
        env.reset()
        with pytest.raises(EnvError, match="environment 0 failed in step: Mute"):
            env.step([0, 0])
