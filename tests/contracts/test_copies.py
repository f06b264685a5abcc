"""Parallel environments from different factories; their methods and attributes; their reset options."""

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from AsyncPPO import EnvError, EnvVectorizer
from AsyncPPO.backends import Plan
from AsyncPPO.collector import ReplicaCollector
from AsyncPPO.memory import VecMemory
from PPO import PPO
from tests.contracts.test_backends import BACKENDS, EACH, PROCESS
from tests.envs import Counter
from tests.fake_envpool import use_fake_envpool

pytestmark = pytest.mark.covering

Make = Callable[..., EnvVectorizer]
RESTARTED = [
    {"backend": "inline"},
    {"backend": "process", "num_workers": 2, "start_method": "fork"},
]


@pytest.fixture(params=EACH)
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    made: list[EnvVectorizer] = []

    def make(env: Any, num_envs: int | None = None, **kwargs: Any) -> EnvVectorizer:
        made.append(EnvVectorizer(env, num_envs, **BACKENDS[request.param], **kwargs))
        return made[-1]

    yield make
    for env in made:
        env.close()
    assert not multiprocessing.active_children()


class Station(Counter):
    """Has a port to itself: a file that is there as long as the environment is open."""

    def __init__(self, directory: Path, port: int) -> None:
        super().__init__(length=4)
        self.port, self.file, self.level = port, directory / str(port), 0
        self.file.touch(exist_ok=False)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        if action == 2:
            raise OSError(f"the simulator at {self.port} is gone")
        return super().step(action)

    def answer(self, question: str, *, loud: bool = False) -> str:
        return f"{self.port}: {question}{'!' * loud}"

    def refuse(self) -> None:
        if self.port == 7003:
            raise ValueError("not now")

    def hold(self) -> Any:
        return threading.Lock() if self.port == 7004 else None

    def render(self) -> Any:
        return np.full((2, 2, 3), self.port % 256, np.uint8)

    def close(self) -> None:
        self.file.unlink()


def stations(directory: Path, count: int = 5) -> list[Callable[[], gym.Env]]:
    return [partial(Station, directory, 7001 + index) for index in range(count)]


def wrapped(factory: Callable[[], gym.Env]) -> gym.Env:
    return gym.wrappers.TimeLimit(factory(), 100)


def test_each_copy_is_made_by_its_own_factory(make: Make, tmp_path: Path) -> None:
    env = make(stations(tmp_path))
    assert env.num_envs == 5
    assert env.get_attr("port") == (7001, 7002, 7003, 7004, 7005)
    env.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("way", RESTARTED, ids=str)
def test_a_copy_that_is_restarted_is_made_by_its_own_factory(tmp_path: Path, way: dict[str, Any]) -> None:
    with EnvVectorizer(stations(tmp_path, 4), on_env_error="restart", **way) as env:
        env.reset()
        assert env.step([0, 0, 2, 0])[3].tolist() == [False, False, True, False]
        assert env.get_attr("port") == (7001, 7002, 7003, 7004)


def test_a_list_of_another_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="num_envs is 3, but env is a list of 5: it must have one for each environment"
    ):
        EnvVectorizer(stations(tmp_path), 3)
    with pytest.raises(ValueError, match="num_envs must be at least 1, not 0"):
        EnvVectorizer([])
    with pytest.raises(TypeError, match="env must be an environment, an id"):
        EnvVectorizer(["CartPole-v1", 3])  # type: ignore[list-item]
    with EnvVectorizer(["CartPole-v1", gym.make("CartPole-v1")], 2, backend="inline") as env:
        assert env.reset()[0].shape == (2, 4)


def test_methods_are_called_and_attributes_read_through_wrappers(make: Make, tmp_path: Path) -> None:
    env = make([partial(wrapped, station) for station in stations(tmp_path)])
    assert env.call("answer", "who", loud=True) == tuple(f"{port}: who!" for port in range(7001, 7006))
    assert env.call("port") == env.get_attr("port") == (7001, 7002, 7003, 7004, 7005)
    env.reset()
    assert env.step([0] * 5)[1].tolist() == [1] * 5
    assert [frame[0, 0, 0] for frame in env.render()] == [port % 256 for port in range(7001, 7006)]


def test_set_attr_sets_the_outermost_wrapper_that_has_it(make: Make, tmp_path: Path) -> None:
    env = make([partial(wrapped, station) for station in stations(tmp_path)])
    env.set_attr("length", [1, 2, 3, 4, 5])
    env.reset()
    assert env.step([0] * 5)[2].tolist() == [True, False, False, False, False]
    env.set_attr("level", 7)
    assert env.get_attr("level") == (7,) * 5
    env.set_attr("brand_new", "x")
    assert env.get_attr("brand_new") == ("x",) * 5
    with pytest.raises(ValueError, match="there are 2 values of 'level' for 5 environments"):
        env.set_attr("level", [1, 2])


def test_a_call_that_fails_names_the_copy_and_harms_nothing(make: Make, tmp_path: Path) -> None:
    env = make(stations(tmp_path))
    env.reset()
    with pytest.raises(EnvError, match=r"environment 2 failed in call\('refuse'\): ValueError: not now"):
        env.call("refuse")
    with pytest.raises(EnvError, match=r"environment 0 failed in get_attr\('prot'\): AttributeError: .*'prot'"):
        env.get_attr("prot")
    if env.backend == "inline":
        assert env.call("hold")[3] is not None, "nothing has to be sent"
    else:
        with pytest.raises(EnvError, match="environment 3: its result cannot be sent between processes: TypeError"):
            env.call("hold")
    assert env.step([0] * 5)[1].tolist() == [1] * 5


@pytest.mark.parametrize("backend", PROCESS[:1])
def test_arguments_that_cannot_be_sent_are_an_error(backend: str, tmp_path: Path) -> None:
    with (
        EnvVectorizer(stations(tmp_path), **BACKENDS[backend]) as env,
        pytest.raises(TypeError, match="cannot pickle"),
    ):
        env.call("answer", threading.Lock())


def test_nothing_is_called_in_the_middle_of_a_step_or_after_the_end() -> None:
    env = EnvVectorizer(Counter, 2, backend="process", num_workers=1, asynchronous=True)
    env.reset()
    env.send([0, 0])
    for use in (lambda: env.call("length"), lambda: setattr(env, "reset_options", {})):
        with pytest.raises(RuntimeError, match=r"recv\(\) them first"):
            use()
    env.recv()
    assert env.call("length") == (5, 5)
    env.close()
    with pytest.raises(RuntimeError, match="closed"):
        env.get_attr("length")


def test_call_with_the_vector_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    use_fake_envpool(monkeypatch)
    with EnvVectorizer("CartPole-v1", 2, backend="vector") as env:
        env.reset()
        with pytest.raises(EnvError, match=r"get_attr\('gravity'\) needs another backend"):
            env.get_attr("gravity")
        env.step([0, 0])
        env.reset_options = {"low": 0.9, "high": 0.9}
        with pytest.raises(EnvError, match="EnvPool's environments take no options of a reset"):
            env.reset()


def test_workers_that_died_are_called_after_their_restart() -> None:
    with EnvVectorizer(Counter, 4, backend="process", num_workers=2, on_env_error="restart") as env:
        env.reset()
        for process in multiprocessing.active_children():
            process.kill()
            process.join()
        env.set_attr("length", 2)
        assert env.get_attr("length") == (2,) * 4
        assert env.step([0] * 4)[3].tolist() == [True] * 4, "they were restarted"


class Curriculum(Counter):
    """Its observation is the level that its reset was handed, which it takes out of the options."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        self.level = -1 if options is None else options.pop("level")
        return super().reset(seed=seed)

    def _obs(self) -> np.ndarray:
        return np.array([self.level, self.count], np.float32)


def test_every_reset_is_handed_the_options_and_they_may_change(make: Make) -> None:
    env = make(partial(Curriculum, 2), 5, autoreset=True, reset_options={"level": 1})
    assert env.reset()[0][:, 0].tolist() == [1] * 5
    env.step([0] * 5)
    assert env.step([0] * 5)[0][:, 0].tolist() == [1] * 5
    env.reset_options = {"level": 2}
    assert env.step([0] * 5)[0][:, 0].tolist() == [1] * 5, "what runs goes on"
    assert env.step([0] * 5)[0][:, 0].tolist() == [2] * 5
    assert env.reset(options={"level": 3})[0][:, 0].tolist() == [3] * 5
    env.step([0] * 5)
    assert env.step([0] * 5)[0][:, 0].tolist() == [2] * 5
    assert env.reset_options == {"level": 2}
    env.reset_options = None
    assert env.reset()[0][:, 0].tolist() == [-1] * 5


def test_reset_options_while_replicas_act_reach_resets(make: Make) -> None:
    ppo = PPO.for_env(Curriculum(), seed=0, batch_size=64)
    plan = Plan(ppo.replica(), 8)  # type: ignore[arg-type]
    env = make(partial(Curriculum, 2), 5, autoreset=True, plan=plan, seed=0)
    assert env.rollout is not None
    player = ReplicaCollector(env, ppo, VecMemory(5, env.rollout.rows))
    env.reset_options = {"level": 4}
    player.collect(3)
    env.reset_options = {"level": 5}
    player.collect(3)
    assert env.rollout.rows["obs"][:6, :, 0].T.tolist() == [[4, 4, 4, 4, 5, 5]] * 5


@pytest.mark.parametrize("options", [["level"], {1: 2}])
def test_options_that_are_not_a_dict_of_names_are_refused_before_workers_start(options: Any) -> None:
    with pytest.raises(TypeError, match="reset_options must be a dict with strings as keys") as refused:
        EnvVectorizer(Counter, 2, backend="process", num_workers=2, reset_options=options)
    assert refused.value.__traceback__ is not None, "the frame of the constructor is alive"
    assert not multiprocessing.active_children()


def test_workers_that_are_restarted_hand_on_the_options() -> None:
    options: dict[str, Any] = {"backend": "process", "num_workers": 2, "on_env_error": "restart"}
    with EnvVectorizer(partial(Curriculum, 3), 4, autoreset=True, **options) as env:
        env.reset_options = {"level": 6}
        env.reset()
        for process in multiprocessing.active_children():
            process.kill()
            process.join()
        assert env.step([0] * 4)[0][:, 0].tolist() == [6] * 4
        for _ in range(3):
            obs = env.step([0] * 4)[0]
        assert obs[:, 0].tolist() == [6] * 4


class Choosy(Counter):
    """Takes small seeds only."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        if seed is not None and not seed < 100:
            raise OverflowError(f"{seed} is too large")
        return super().reset(seed=seed)


def test_seeds_may_be_listed(make: Make) -> None:
    expected = []
    for seed in (3, 1, 4, 1, 5):
        one = Choosy()
        expected.append(one.reset(seed=seed)[0][0])
    assert make(Choosy, 5, seed=[3, 1, 4, 1, 5]).reset()[0][:, 0].tolist() == pytest.approx(expected)


def test_reset_error_about_a_seed_suggests_a_list_of_seeds(make: Make) -> None:
    with pytest.raises(EnvError, match=r"environment \d failed in reset with seed \d+ \(.*list them: seed=\[\.\.\.\]"):
        make(Choosy, 5, seed=0).reset()


class Seeded(Counter):
    """Seeds its random stream in a way of its own."""

    way = "none"

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        if self.way == "other seed" and seed is not None:
            gym.Env.reset(self, seed=seed + 1)
        if self.way == "other generator":
            self.np_random = np.random.default_rng(seed)
        self.count = 0
        return self._obs(), {}


def test_an_environment_that_ignores_its_seed_is_named() -> None:
    with EnvVectorizer(Seeded, 2, backend="inline", seed=0) as env:
        with pytest.warns(
            RuntimeWarning, match=r"Seeded.reset does not call super\(\).reset\(seed=seed\): random"
        ) as told:
            env.reset()
        assert len(told) == 1, "one stands for all"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("way", ["other seed", "other generator"])
def test_an_environment_with_a_way_of_its_own_to_use_its_seed_is_not_named(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Seeded, "way", way)
    with EnvVectorizer(Seeded, 2, backend="inline", seed=0) as env:
        env.reset()
        env.reset(seed=5)


@pytest.mark.parametrize(
    ("seed", "message"),
    [([1, 2], "there are 2 seeds for 3 environments"), ([1, 2, -3], "seeds must not be negative, not -3")],
)
def test_a_bad_list_of_seeds_is_refused(seed: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EnvVectorizer(Counter, 3, backend="inline", seed=seed)
