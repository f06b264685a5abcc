"""Actions and observations arrive unchanged, or there is one clear error, with every backend."""

import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from AsyncPPO import EnvError, EnvVectorizer, VecMemory
from AsyncPPO.collector import Collector
from parallel_rl.utils import spawn_seeds
from tests.contracts.test_backends import BACKENDS, EACH
from tests.envs import Counter

pytestmark = pytest.mark.covering

Make = Callable[..., EnvVectorizer]
NUMBER = spaces.Box(-np.inf, np.inf, (), np.float32)


@pytest.fixture(params=EACH)
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    made: list[EnvVectorizer] = []

    def make(env: Any, num_envs: int = 3, **kwargs: Any) -> EnvVectorizer:
        made.append(EnvVectorizer(env, num_envs, **BACKENDS[request.param], **kwargs))
        return made[-1]

    yield make
    for env in made:
        env.close()


def cases(names: str, *values: tuple[Any, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(names.split(", "), values)


class Says(gym.Env):
    """Returns what it is told to, from the reset that gave it a certain seed on; a step may change that."""

    def __init__(self, space: spaces.Space, reset: Any, step: Any = None) -> None:
        self.observation_space, self.action_space = space, spaces.Discrete(2)
        self.returns = reset, step

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return self.returns[0]

    def step(self, action: Any) -> Any:
        return self.returns[1]


@cases(
    "space, obs, message",
    (spaces.Box(0, 255, (3,), np.uint8), [-1, 256, 300], r"of whole numbers from -1 to 300; its space says Box\(0"),
    (spaces.Box(0, 255, (3,), np.uint8), np.array([0, 1, 300], np.uint16), "from 0 to 300"),
    (spaces.Box(-9, 9, (), np.int32), 2**40, "an observation of 1099511627776; its space says Box"),
    (spaces.Box(-9, 9, (1,), np.int64), np.array([2**63], np.uint64), "from 9223372036854775808 to"),
    (spaces.Box(0, 1, (2,), np.bool_), np.array([0, 255], np.uint8), "from 0 to 255"),
    (spaces.Discrete(5), 7, r"the observation 7; its space says Discrete\(5\)"),
    (spaces.Discrete(5), -1, r"the observation -1; its space says Discrete\(5\)"),
    (spaces.Discrete(5, start=2), np.int64(1), r"the observation 1; its space says Discrete\(5, start=2\)"),
    (spaces.Discrete(5, start=2), np.array(7), r"the observation 7; its space says Discrete\(5, start=2\)"),
    (spaces.Discrete(5), 2**70, f"the observation {2**70}; its space"),
    (spaces.Discrete(5), 1.0, "of type float64; its space says int64"),
    (spaces.MultiDiscrete([2, 3]), [1, 3], r"the observation \[1 3\]; its space says MultiDiscrete\(\[2 3\]\)"),
    (spaces.MultiDiscrete([2, 3], start=[1, 0]), np.array([0, 0]), r"the observation \[0 0\]"),
    (spaces.MultiBinary(2), [0, 2], r"the observation \[0 2\]; its space says MultiBinary\(2\)"),
    (spaces.MultiBinary(2), np.array([-1, 0]), r"the observation \[-1  0\]"),
    (spaces.MultiBinary(2), [0, 256], "whole numbers from 0 to 256; its space says MultiBinary"),
    (spaces.Dict(a=NUMBER, b=spaces.Discrete(2)), {"a": 0.5, "b": 2}, r"2; its space says Discrete\(2\) for 'b'"),
    (
        spaces.Tuple((NUMBER, spaces.Dict(c=spaces.Box(0, 9, (1,), np.int8)))),
        (0.5, {"c": np.array([128])}),
        "its space says .* for 1 'c'",
    ),
)
def test_a_whole_number_that_does_not_fit_is_named(make: Make, space: spaces.Space, obs: Any, message: str) -> None:
    with pytest.raises(EnvError, match=f"environment [0-2] returned .*{message}"):
        make(partial(Says, space, (obs, {}))).reset()


@pytest.mark.parametrize("autoreset", [True, False])
def test_a_choice_that_does_not_exist_is_named_after_a_step(make: Make, autoreset: bool) -> None:
    env = make(partial(Says, spaces.Discrete(5), (4, {}), (5, 0.0, True, False, {})), autoreset=autoreset)
    env.reset()
    with pytest.raises(EnvError, match=r"the observation 5; its space says Discrete\(5\)"):
        env.step([0] * 3)


@cases(
    "space, obs, row",
    (spaces.Box(0, 255, (3,), np.uint8), [0, 128, 255], [0, 128, 255]),
    (spaces.Box(0, 1, (2,), np.bool_), np.array([0, 1], np.uint8), [False, True]),
    (spaces.Box(0, 1, (2,), np.float32), np.array([2**40, -3]), [2.0**40, -3]),
    (spaces.Discrete(5, start=-2), -2, -2),
    (spaces.Discrete(2), True, 1),
    (spaces.Discrete(2), np.True_, 1),
    (spaces.Discrete(5), np.array(4, np.uint8), 4),
    (spaces.MultiDiscrete([[2], [3]], start=[[1], [0]]), np.array([[2], [2]], np.int8), [[2], [2]]),
    (spaces.MultiBinary((1, 2)), np.array([[True, False]]), [[1, 0]]),
)
def test_a_whole_number_that_fits_is_taken_in_any_type(make: Make, space: spaces.Space, obs: Any, row: Any) -> None:
    env = make(partial(Says, space, (obs, {}), (obs, 1, False, False, {})))
    assert env.reset()[0].tolist() == [row] * 3
    assert env.step([0] * 3)[0].tolist() == [row] * 3


@cases(
    "step, message",
    ((0.0, 1e39, False, False, {}), r"environment [0-2] returned a reward 1e\+39 that is too large for float32"),
    ((0.0, 10**400, False, False, {}), "environment [0-2] returned a reward that is too large for float32"),
    ((0.0, np.array([1.0]), False, False, {}), r"returned the reward array\(\[1\.\]\), which is not a number"),
    ((0.0, None, False, False, {}), "returned the reward None, which is not a number"),
    ((0.0, "1.5", False, False, {}), "returned the reward '1.5', which is not a number"),
    ((0.0, 1j, False, False, {}), "returned the reward 1j, which is not a number"),
    ((0.0, float("nan"), False, False, {}), "returned a NaN or an infinity as its reward$"),
    ((0.0, float("inf"), False, False, {}), "returned a NaN or an infinity as its reward$"),
    ((0.0, 1.0, None, False, {}), "returned terminated=None, which is not a bool"),
    ((0.0, 1.0, "False", False, {}), "returned terminated='False', which is not a bool"),
    ((0.0, 1.0, False, np.array([True]), {}), r"returned truncated=array\(\[ ?True\]\), which is not a bool"),
    ((0.0, 1.0, False, 2, {}), "returned truncated=2, which is not a bool"),
    ((0.0, 1.0, False, False, None), "returned the info None, which is not a dict"),
    ((0.0, 1.0, False, {}), "returned 4 values from step, not five: .*; the old gym's environments return four"),
    (None, "returned None from step, not five"),
    ((1e300, 1.0, False, False, {}), r"observation \(or a number too large for float32\)"),
    ((None, 1.0, False, False, {}), "returned an observation of type object; its space says float32"),
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_a_step_of_another_type_is_named(make: Make, step: Any, message: str) -> None:
    env = make(partial(Says, NUMBER, (0.0, {}), step))
    env.reset()
    with pytest.raises(EnvError, match=f"(?m){message}"):
        env.step([0] * 3)


class Old(gym.Env):
    observation_space, action_space = spaces.Box(-1, 1, (2,)), spaces.Discrete(2)

    def reset(self) -> Any:  # type: ignore[override]
        return np.zeros(2, np.float32), {}


class Helped(Old):
    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        return self.close(seed=seed)  # type: ignore[call-arg]


def test_a_reset_that_takes_a_seed_is_not_taken_for_the_old_gym(make: Make) -> None:
    with pytest.raises(EnvError, match=r"failed in reset(?!.*old gym).*close\(\) got"):
        make(Helped).reset()


def test_a_reset_without_seed_is_taken_for_the_old_gym(make: Make) -> None:
    with pytest.raises(EnvError, match=r"failed in reset, which must take seed= and options=: .* the old gym\?: Type"):
        make(Old).reset()


@cases("reset", (np.zeros(2, np.float32),), (({}, 0.0),), ((0.0, None),), (0.0,), ((0.0, {}, 1),))
def test_a_reset_of_another_type_is_named(make: Make, reset: Any) -> None:
    with pytest.raises(EnvError, match=r"from reset, which is not an observation and an info, a dict: .*old gym"):
        make(partial(Says, NUMBER, reset)).reset()


def test_numbers_and_flags_of_other_types_are_taken(make: Make) -> None:
    for reward, flag in [(1, 0), (np.float16(1), np.False_), (np.array(1), np.array(False)), (True, 0.0)]:
        env = make(partial(Says, NUMBER, (0.0, {}), (0.0, reward, flag, flag, {})))
        env.reset()
        _, rewards, terminated, truncated, _ = env.step([0] * 3)
        assert rewards.tolist() == [1.0] * 3
        assert not terminated.any()
        assert not truncated.any()


class Takes(Says):
    """Takes actions of a space; its reward is their sum."""

    def __init__(self, action_space: spaces.Space) -> None:
        super().__init__(NUMBER, (0.0, {}))
        self.action_space = action_space

    def step(self, action: Any) -> Any:
        return 0.0, float(np.sum(action)), False, False, {}


@cases(
    "space, actions, message",
    (spaces.Discrete(2), [0, 0.7, 1], r"environment 1 cannot take the action 0\.7.*: its space is Discrete\(2\)"),
    (spaces.Discrete(2), [0, 1, np.nan], r"environment 2 cannot take the action nan"),
    (spaces.Discrete(2), [0, 1, np.inf], r"environment 2 cannot take the action inf"),
    (spaces.Discrete(2), [0, 1, 1e300], r"environment 2 cannot take the action"),
    (spaces.Discrete(2), [0, 2, 1], r"environment 1 cannot take the action 2"),
    (spaces.Discrete(2), [-1, 0, 1], r"environment 0 cannot take the action -1"),
    (spaces.Discrete(2, start=1), [1, 2, 0], r"environment 2 cannot take the action 0"),
    (spaces.Discrete(2), [0, None, 1], r"environment 1 cannot take the action None"),
    (spaces.Discrete(2), ["0", "1", "1"], r"environment 0 cannot take the action"),
    (spaces.MultiDiscrete([2, 3]), [[0, 0], [1, 2], [2, 0]], r"environment 2 cannot take the action \[2, 0\]"),
    (spaces.MultiBinary(2), [[0, 0], [0, 256], [0, 0]], r"environment 1 cannot take the action \[ *0, 256\]"),
    (
        spaces.Dict(a=spaces.Box(-1, 1), b=spaces.Tuple([spaces.Discrete(2)])),
        {"a": np.zeros((3, 1)), "b": (np.array([0, 1, 2]),)},
        r"environment 2 cannot take the action 2 for b\.0: its space is Discrete\(2\)",
    ),
    (spaces.Box(-1, 1, (2,)), [[0, 0], [0, 0], [np.nan, 0]], r"environment 2 cannot take .*nan.*its space is Box"),
    (spaces.Box(-1, 1, (2,)), [[0, 0], [0, 0], [-np.inf, 0]], r"environment 2 cannot take .*-inf"),
    (spaces.Box(-1, 1, (2,)), [[0, 0], [0, 1e300], [0, 0]], r"environment 1 cannot take .*1e\+300"),
    (spaces.Box(0, 255, (1,), np.uint8), [[0], [256], [0]], r"environment 1 cannot take the action \[256\]"),
    (spaces.Box(0, 255, (1,), np.uint8), [[0], [0.5], [0]], r"environment 1 cannot take the action \[0\.5\]"),
)
def test_an_invalid_action_is_refused_before_any_step(
    make: Make, space: spaces.Space, actions: Any, message: str
) -> None:
    env = make(partial(Takes, space))
    env.reset()
    for act in (env.step, env.send):
        with pytest.raises(ValueError, match=message):
            act(actions)
    assert not env._outstanding


@cases(
    "space, actions",
    (spaces.Discrete(2), [0.0, 1.0, 1.0]),
    (spaces.Discrete(2, start=-1), np.array([-1, 0, 0], np.int8)),
    (spaces.Discrete(2), [True, False, True]),
    (spaces.MultiBinary(2), [[0, 1], [1, 1], [0, 0]]),
    (spaces.Box(-1, 1, (2,)), [[5, 0], [0, -7.5], [1e30, 0]]),
    (spaces.Box(0, 9, (1,), np.uint8), [[255], [0], [3.0]]),
)
def test_valid_actions_of_any_type_are_accepted(make: Make, space: spaces.Space, actions: Any) -> None:
    env = make(partial(Takes, space))
    env.reset()
    env.send(actions)
    with np.errstate(over="ignore"):
        taken = np.array(actions, space.dtype).reshape(3, -1).sum(axis=1)
    assert env._backend is not None
    np.testing.assert_array_equal(env._backend.arrays.action.reshape(3, -1).sum(axis=1), taken)


class Keeper(Counter):
    """Uses the vectorizer's names in infos that it keeps, and changes what it has handed out."""

    def __init__(self) -> None:
        super().__init__(length=3)
        self.info: dict[str, Any] = {"step": np.zeros(1), "nested": {"seen": []}}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        obs, _ = super().reset(seed=seed)
        return obs, self._told()

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        obs, reward, terminated, truncated, _ = super().step(action)
        assert {"final_info", "env_error"} & self.info.keys() == {"env_error"}, "someone has written into it"
        assert self.info["final_obs"].tolist() == [-1.0, -1.0], "someone has written into it"
        return obs, reward, terminated, truncated, self._told()

    def _told(self) -> dict[str, Any]:
        self.info["final_obs"] = np.full(2, -1.0)
        self.info["env_error"] = "nothing"
        self.info["step"][0] = self.count
        self.info["nested"]["seen"].append(self.count)
        del self.info["nested"]["seen"][:-1]
        return self.info


@pytest.mark.parametrize("on_env_error", ["raise", "restart"])
def test_the_names_of_the_vectorizer_may_be_an_environments_own(make: Make, on_env_error: str) -> None:
    if on_env_error == "restart" and make.__closure__[1].cell_contents.param == "process-asynchronous":  # type: ignore[union-attr, index]
        pytest.skip("they do not go together")
    env = make(Keeper, autoreset=True, on_env_error=on_env_error)
    _, infos = env.reset()
    seen = [infos]
    for count in (1, 2, 3):
        _, _, terminated, _, infos = env.step([0] * 3)
        seen.append(infos)
        assert terminated.tolist() == [count == 3] * 3
        assert not env.failed.any()
    assert [info["final_obs"].tolist()[1] for info in infos] == [3.0] * 3, (
        "where an episode ends it is the vectorizer's"
    )
    assert [info["final_info"]["final_obs"].tolist() for info in infos] == [[-1.0, -1.0]] * 3
    np.testing.assert_array_equal([info["final_obs"] for info in infos], env.final_obs)
    for count, infos in enumerate(seen[:3]):
        assert [info["step"].tolist() for info in infos] == [[count]] * 3, "what was handed out has changed"
        assert [info["nested"] for info in infos] == [{"seen": [count]}] * 3
        assert [info["final_obs"].tolist() for info in infos] == [[-1.0, -1.0]] * 3
    assert [info["final_info"]["nested"] for info in seen[3]] == [{"seen": [3]}] * 3
    assert [info["nested"] for info in seen[3]] == [{"seen": [0]}] * 3


class Still:
    """Always plays 0."""

    def act(self, states: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        return np.zeros(len(states), np.int64), {}


def test_final_observations_do_not_come_from_infos(make: Make) -> None:
    """The environment uses `final_obs` and `env_error` in its own infos."""
    env = make(Keeper, autoreset=True, seed=1)
    buffer = VecMemory(3)
    collector = Collector(env, Still(), buffer)  # type: ignore[arg-type]
    assert sum(collector.collect(1)[0] for _ in range(7)) == 21
    for trajectory in buffer.take():
        assert trajectory.obs[:, 1].tolist() == [0, 1, 2, 0, 1, 2, 0]
        assert trajectory.final_obs[:, 1].tolist() == [3, 3, 1]


class Boastful(Counter):
    """Uses in its next episode the names of the vectorizer's infos about the last one."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        return super().reset(seed=seed)[0], {"final_info": {"is_success": 1.0}}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        return *super().step(action)[:4], {}


def test_a_last_info_is_that_of_the_last_step(make: Make) -> None:
    env = make(partial(Boastful, 2), autoreset=True)
    collector = Collector(env, Still(), VecMemory(3))  # type: ignore[arg-type]
    ended = [episode for _ in range(4) for episode in collector.collect(1)[1]]
    assert [episode.infos for episode in ended] == [{}] * 6


class Sampler(gym.Env):
    """Observes samples of its two spaces, which are its class's own."""

    observation_space = spaces.Box(0, 1, (2,), np.float64)
    action_space = spaces.Box(0, 1, (), np.float64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return self._obs(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        return self._obs(), 0.0, False, False, {}

    def _obs(self) -> np.ndarray:
        return np.array([self.observation_space.sample()[0], self.action_space.sample()])


class Sampling(gym.ObservationWrapper):
    """Has spaces of its own; the environment samples from those below."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.observation_space = spaces.Box(0, 1, (3,), np.float64)

    def observation(self, obs: np.ndarray) -> np.ndarray:
        return np.append(obs, self.observation_space.sample()[0])


def drawn() -> Sampler:
    """Return an instance that has drawn from its spaces."""
    env = Sampler()
    env.observation_space, env.action_space = spaces.Box(0, 1, (2,), np.float64), spaces.Box(0, 1, (), np.float64)
    env.observation_space.seed(7)
    env.action_space.seed(7)
    env.reset()
    return env


@pytest.mark.parametrize(
    "of", [lambda: Sampler, drawn, lambda: lambda: Sampling(Sampler())], ids=["class", "instance", "wrapped"]
)
def test_every_copy_samples_from_spaces_of_its_own(make: Make, of: Callable[[], Any]) -> None:
    def experience(env: EnvVectorizer) -> np.ndarray:
        return np.concatenate([env.reset()[0], env.step(np.zeros(6))[0], env.step(np.zeros(6))[0]])

    with EnvVectorizer(of(), 6, backend="inline", seed=1) as oracle:
        expected = experience(oracle)
    assert len(np.unique(expected)) == expected.size, "two copies have drawn the same"
    np.testing.assert_array_equal(experience(make(of(), 6, seed=1)), expected)
    assert not np.isin(experience(make(of(), 6)), expected).any()


def test_streams_of_spaces_are_saved_and_restored(make: Make) -> None:
    env = make(lambda: Sampling(Sampler()), seed=1)
    env.reset()
    env.step(np.zeros(3))
    state = env.state()
    expected = env.step(np.zeros(3))[0]
    for other in (env, make(lambda: Sampling(Sampler()), seed=2)):
        other.reset()
        assert other.load_state(state) is not None
        np.testing.assert_array_equal(other.step(np.zeros(3))[0], expected)
    for snapshot in state["environments"]:
        del snapshot["spaces"]  # as it was before
    assert env.load_state(state) is not None


class Global(Counter):
    """Observes draws of Python's and NumPy's global streams."""

    def _obs(self) -> np.ndarray:
        return np.array([random.random(), np.random.random()], np.float32)  # noqa: NPY002


@pytest.mark.parametrize("start_method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_processes_have_global_streams_of_their_own(start_method: str) -> None:
    def experience(seed: int | None) -> np.ndarray:
        options: dict[str, Any] = {"backend": "process", "num_workers": 3, "start_method": start_method}
        with EnvVectorizer(Global, 6, seed=seed, **options) as env:
            return np.concatenate([env.reset()[0], env.step([0] * 6)[0]])

    first, again, other = experience(1), experience(1), experience(None)
    for seen in (first, other):
        assert len(np.unique(seen)) == seen.size, "two processes have drawn the same"
    workers = [2, 3, 4, 5, 8, 9, 10, 11]
    np.testing.assert_array_equal(first[workers], again[workers])
    assert not np.isin(other, first).any()


@pytest.mark.parametrize("backend", ["auto", "inline", "process"])
def test_the_callers_global_streams_are_its_own(backend: Any) -> None:
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    before = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index, union-attr]  # noqa: NPY002
    with EnvVectorizer(Global, 2, backend=backend, seed=0):
        pass
    with EnvVectorizer("CartPole-v1", 2, backend=backend, seed=0) as env:
        env.reset()
        env.step([0, 0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # type: ignore[index, union-attr]  # noqa: NPY002


class Varied(Counter):
    """Has spaces of a given size."""

    def __init__(self, what: str, size: int) -> None:
        super().__init__()
        if what == "action":
            self.action_space = spaces.Discrete(1 + size)
        else:
            self.observation_space = spaces.Box(-size, np.inf, (2,), np.float32)


@pytest.mark.parametrize("what", ["action", "observation"])
def test_environments_with_other_spaces_are_an_error_that_names_both_spaces(make: Make, what: str) -> None:
    first = {"action": r"Discrete\(2\)", "observation": r"Box\(-1\.0"}[what]
    with pytest.raises(
        EnvError, match=f"environment 2 cannot be made.*its {what} space is .* first environment's is {first}"
    ):
        make([partial(Varied, what, size) for size in (1, 1, 2)])


def test_seeds_may_be_given_one_by_one(make: Make) -> None:
    env = make(Counter)
    seeds = spawn_seeds(5, 3)
    expected, _ = env.reset(seed=5)
    for given in (seeds, np.array(seeds), tuple(seeds)):
        np.testing.assert_array_equal(env.reset(seed=given)[0], expected)
    again = env.reset(seed=[seeds[0], None, seeds[2]])[0]
    np.testing.assert_array_equal(again[[0, 2]], expected[[0, 2]])
    assert again[1, 0] != expected[1, 0]
    for wrong in ([1, 2], [1, 2, -3]):
        with pytest.raises(ValueError, match="seeds"):
            env.reset(seed=wrong)
    with pytest.raises(TypeError, match="seed must be a whole number"):
        env.reset(seed=[1, 2, "3"])  # type: ignore[list-item]


def test_some_may_be_reset_while_others_go_on(make: Make) -> None:
    env = make(partial(Counter, 9), seed=0)
    mask = np.array([False, True, False])
    env.reset()
    env.step([0] * 3)
    env.finished[1] = True
    options = {"reset_mask": mask, "level": 2}
    obs, infos = env.reset(options=options)
    assert obs[:, 1].tolist() == [1, 0, 1]
    assert infos == [{}, {"level": 2}, {}]
    assert options.keys() == {"reset_mask", "level"}
    assert not env.finished.any()
    assert env.step([0] * 3)[0][:, 1].tolist() == [2, 1, 2]
    seeded = env.reset(seed=7, options={"reset_mask": mask})[0]
    assert env.reset(seed=7)[0][1, 0] == seeded[1, 0]
    for wrong, message in (
        ([1, 0, 1], r"reset_mask must be a bool array of shape \(3,\), not int64"),
        ([True], r"reset_mask must be a bool array of shape \(3,\), not bool of shape \(1,\)"),
        ([False] * 3, "reset_mask is False everywhere"),
    ):
        with pytest.raises(ValueError, match=message):
            env.reset(options={"reset_mask": wrong})
    with pytest.raises(TypeError, match="options must be a dict, not 3"):
        env.reset(options=3)  # type: ignore[arg-type]
    env.send([0], [0])
    with pytest.raises(RuntimeError, match="recv"):
        env.reset(options={"reset_mask": mask})


def test_seeds_wait_for_those_that_are_not_reset_yet(make: Make) -> None:
    whole, parts = make(Counter, seed=4), make(Counter, seed=4)
    expected = whole.reset()[0]
    parts.reset(options={"reset_mask": np.array([True, False, False])})
    obs = parts.reset(options={"reset_mask": np.array([False, True, True])})[0]
    np.testing.assert_array_equal(obs, expected)
