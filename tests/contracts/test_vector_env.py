"""Gymnasium's vector environments in ours, and ours as one of Gymnasium's: the same experience in both directions."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers.vector import ClipReward, NormalizeObservation, RecordEpisodeStatistics

from AsyncPPO import AsyncPPO, EnvVectorizer, VecMemory, evaluate
from AsyncPPO.backends import EnvError
from AsyncPPO.collector import Collector
from OffPolicy import DQN
from parallel_rl.utils import Trajectory
from PPO import PPO
from tests.covering import rest_slow
from tests.envs import Counter

pytestmark = pytest.mark.covering

MODES = [*AutoresetMode]
SEEDS = [11, 12, 13]
LENGTHS = (3, 5, 4)


class Pair(Counter):
    """A Counter with observations and actions of two parts, whose actions begin at 1."""

    def __init__(self, length: int = 5, truncates: bool = False) -> None:
        super().__init__(length, truncates)
        self.observation_space = spaces.Dict(a=self.observation_space, b=spaces.Discrete(100))  # type: ignore[assignment]
        self.action_space = spaces.Tuple([spaces.Discrete(3, start=1), spaces.Box(-1, 1, (2,))])  # type: ignore[assignment]

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        return super().step(action[0])

    def _obs(self) -> Any:
        return {"a": super()._obs(), "b": self.count}


class Choice:
    """Acts by the observation: two trajectories of the same observations have the same actions."""

    def act(self, obs: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        return (obs[:, 0] * 1e4).astype(np.int64) % 3, {"mark": obs[:, 1] + 1}

    def get_action(self, obs: np.ndarray, *, deterministic: bool = False) -> np.ndarray:
        return self.act(obs)[0]


class Parts(Choice):
    """The same for a Pair."""

    def act(self, obs: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        first = (obs["a"][:, 0] * 1e4).astype(np.int64) % 3
        box = np.repeat(obs["a"][:, :1], 2, axis=1)
        action = np.empty(len(obs), [("0", np.int64), ("1", np.float32, 2)])
        action["0"], action["1"] = first + 1, box
        return action, {"mark": obs["b"] + 1}


def factories(kind: type[Counter] = Counter) -> list[Any]:
    return [partial(kind, length, truncates=length == 5) for length in LENGTHS]


def collected(env: EnvVectorizer, agent: Any, steps: int) -> tuple[list[Trajectory], list[Any], int]:
    """Return the trajectories of some vector steps, the episodes, and the number of transitions."""
    collector = Collector(env, agent, VecMemory(env.num_envs), ("action",))
    parts = [collector.collect(1) for _ in range(steps)]
    return collector.buffer.take(), [episode for _, ended in parts for episode in ended], sum(n for n, _ in parts)


def assert_same(one: Trajectory, two: Trajectory) -> None:
    """Compare the rows that both have: a trajectory may stop earlier."""
    rows = min(len(one.reward), len(two.reward))
    assert rows >= 20
    for name in ("obs", "action", "reward", "terminated", "truncated"):
        assert np.array_equal(getattr(one, name)[:rows], getattr(two, name)[:rows]), name
    assert np.array_equal(one.extras["mark"][:rows], two.extras["mark"][:rows])
    assert np.array_equal(one.next_obs[: rows - 1], two.next_obs[: rows - 1])


@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("env_kind", [Counter, Pair])
def test_trajectories_are_those_of_our_own_environments(kind: Any, mode: AutoresetMode, env_kind: Any) -> None:
    if kind is AsyncVectorEnv and env_kind is Pair:
        pytest.skip("the same code")
    agent = Parts() if env_kind is Pair else Choice()
    with EnvVectorizer(factories(env_kind), backend="inline", autoreset=True, seed=SEEDS) as ours:
        expected, episodes, taken = collected(ours, agent, 40)
    assert taken == 120
    vector = kind(factories(env_kind), autoreset_mode=mode)
    with EnvVectorizer(vector, autoreset=True, seed=SEEDS) as env:
        assert env.backend == "vector"
        got, ended, count = collected(env, agent, 40)
    for one, two in zip(got, expected, strict=True):
        assert_same(one, two)
    assert count == sum(len(trajectory.reward) for trajectory in got)
    assert (count == taken) == (mode is not AutoresetMode.NEXT_STEP), "the rows of resets do not count"
    assert {*ended} == {*episodes}
    assert all(episode.infos.keys() == {"action"} for episode in ended), "from the last info of each"
    vector.reset()  # it belongs to the caller, so it is still open
    vector.close()


@pytest.mark.parametrize("mode", MODES)
def test_without_autoreset_each_finishes_one_episode(mode: AutoresetMode) -> None:
    vector = SyncVectorEnv(factories(), autoreset_mode=mode)
    ours = collected(EnvVectorizer(factories(), backend="inline", seed=SEEDS), Choice(), 30)
    theirs = collected(EnvVectorizer(vector, seed=SEEDS), Choice(), 30)
    (_, episodes, count), (_, own_episodes, own_count) = theirs, ours
    assert count == own_count
    assert [(one.return_, one.length) for one in episodes] == [(one.return_, one.length) for one in own_episodes]
    for one, two in zip(theirs[0], ours[0], strict=True):
        first = (
            int(one.terminated.argmax() or one.truncated.argmax()) + 1
        )  # later ones depend on steps that do not count
        assert np.array_equal(one.obs[:first], two.obs[:first])
        assert np.array_equal(one.next_obs[:first], two.next_obs[:first])
        assert np.array_equal(one.next_obs[:, 1], two.next_obs[:, 1])
    assert evaluate(Choice(), vector, 7).tolist() == [6.0, 15.0, 10.0, 6.0, 15.0, 10.0, 6.0]
    vector.close()


@pytest.mark.parametrize("mode", MODES)
def test_all_may_finish_at_once(mode: AutoresetMode) -> None:
    with EnvVectorizer(SyncVectorEnv([Counter] * 2, autoreset_mode=mode), autoreset=True, seed=0) as env:
        trajectories, episodes, _ = collected(env, Choice(), 20)
    for trajectory in trajectories:
        assert trajectory.obs[:, 1].tolist() == [0, 1, 2, 3, 4] * 4
        assert trajectory.next_obs[:, 1].tolist() == [1, 2, 3, 4, 5] * 4
    assert [episode.length for episode in episodes] == [5] * 8


@pytest.mark.parametrize("mode", rest_slow(*MODES))
def test_an_agent_learns_in_them(mode: AutoresetMode) -> None:
    def make(num_envs: int) -> VectorEnv:
        return SyncVectorEnv([partial(gym.make, "CartPole-v1")] * num_envs, autoreset_mode=mode)

    ppo = PPO.for_env("CartPole-v1", k_epochs=10, batch_size=512, mini_batch_size=256, gamma=0.99, seed=0)
    with AsyncPPO(make, ppo, 8, 8_000, seed=0, progress=False) as trainer:
        history = trainer.run()
    assert trainer.acting_reason == "the agent acts in this process, in every step: a VectorEnv"
    assert history[-1]["mean_return"] > 60
    assert evaluate(ppo, make, 5, seed=1).mean() > 100


class Levels(Counter):
    """Has a level for some seeds only."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        if seed not in (None, 7, 8):
            raise ValueError(f"no level {seed}")
        return super().reset(seed=seed, options=options)


@pytest.mark.parametrize("agent", [PPO, DQN])
def test_an_agent_is_made_for_the_function_that_makes_them(agent: Any) -> None:
    def make(num_envs: int) -> VectorEnv:
        return SyncVectorEnv([Counter] * num_envs)

    assert agent.for_env(make).observation_space == Counter().observation_space


def test_a_restored_state_keeps_the_seeds_of_a_list() -> None:
    with EnvVectorizer(SyncVectorEnv([Levels] * 2), seed=[7, 8]) as env:
        obs, _ = env.reset()
        assert env.load_state(env.state()) is None
        np.testing.assert_array_equal(env.reset()[0], obs)


def test_a_vector_environment_of_its_own_gets_one_seed() -> None:
    def make(num_envs: int) -> VectorEnv:
        return gym.make_vec("CartPole-v1", num_envs, vectorization_mode="vector_entry_point")

    ppo = PPO.for_env("CartPole-v1", batch_size=256, seed=0)
    returns = []
    for _ in range(2):
        with AsyncPPO(make, ppo, 4, 512, mode="streaming", seed=3, progress=False) as trainer:
            assert trainer.env.spec is not None
            trainer.env.reset()
            returns.append(trainer.env.obs.copy())
    assert np.array_equal(*returns)


class Silent(SyncVectorEnv):
    """Reports no last observation."""

    def step(self, actions: Any) -> Any:
        *rows, _ = super().step(actions)
        return *rows, {}


def test_unsupported_uses_of_a_vector_env_are_refused() -> None:
    vector = SyncVectorEnv([Counter] * 2)
    with pytest.raises(ValueError, match="num_envs is 3, but env has 2"):
        EnvVectorizer(vector, 3)
    with pytest.raises(TypeError, match="pass that itself, or a function of `num_envs`"):
        EnvVectorizer(lambda: vector, 2)
    with pytest.raises(TypeError, match="num_envs=3 must make a VectorEnv of that size"):
        EnvVectorizer(lambda num_envs: vector, 3)
    with pytest.raises(ValueError, match="backend='process' does not work with a VectorEnv"):
        EnvVectorizer(vector, backend="process")
    for options in ({"asynchronous": True}, {"on_env_error": "restart"}, {"step_timeout": 1.0}):
        with pytest.raises(ValueError, match="can neither be asynchronous nor restart"):
            EnvVectorizer(vector, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="acting='replicas' needs mode='streaming', no VectorEnv"):
        AsyncPPO(vector, PPO.for_env(vector), acting="replicas")
    vector.metadata = {}
    with pytest.raises(ValueError, match=r"metadata\['autoreset_mode'\] of .* must be an AutoresetMode") as caught:
        EnvVectorizer(vector)
    (advice,) = re.findall(r"env\.metadata = \{.*?\}", str(caught.value))
    exec(advice, {"env": vector, "gymnasium": gym})
    EnvVectorizer(vector).close()
    silent = Silent([Counter] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    with (
        EnvVectorizer(silent, autoreset=True) as env,
        pytest.raises(EnvError, match="environment 0 ended, but the infos have no 'final_obs'"),
    ):
        collected(env, Choice(), 6)


class Changed(SyncVectorEnv):
    """Its steps return a value in another form: 0 observations, 1 rewards, 2 terminated, 3 truncated."""

    def __init__(self, place: int, change: Callable[[np.ndarray], Any], **kwargs: Any) -> None:
        super().__init__([Counter] * 2, **kwargs)
        self.place, self.change = place, change

    def step(self, actions: Any) -> Any:
        values = [*super().step(actions)]
        values[self.place] = self.change(values[self.place])
        return tuple(values)


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        (0, lambda obs: obs[:, :1], r"Changed returned observations of shape (2, 1); its spaces say (2, 2)"),
        (0, lambda obs: obs[:1], r"Changed returned observations of shape (1, 2); its spaces say (2, 2)"),
        (0, lambda obs: obs.astype(str), "Changed returned observations of type <U"),
        (1, lambda rewards: rewards[:, None], "Changed returned rewards of shape (2, 1), not (2,)"),
        (1, lambda rewards: rewards[:1], "Changed returned rewards of shape (1,), not (2,)"),
        (1, lambda rewards: 1.0, "Changed returned rewards of shape (), not (2,)"),
        (2, lambda flags: flags[:, None], "Changed returned terminated of shape (2, 1), not (2,)"),
        (3, lambda flags: False, "Changed returned truncated of shape (), not (2,)"),
    ],
)
def test_what_does_not_fit_is_one_clear_error(place: int, change: Any, message: str) -> None:
    with (
        EnvVectorizer(Changed(place, change), autoreset=True) as env,
        pytest.raises(EnvError, match=re.escape(message)),
    ):
        collected(env, Choice(), 1)


def test_observations_that_their_type_cannot_hold_are_an_error() -> None:
    vector = Changed(0, lambda obs: obs / 2)
    vector.single_observation_space = spaces.Box(0, 255, (2,), np.uint8)
    with pytest.raises(EnvError, match="Changed returned observations of type float32; its space says Box"):
        EnvVectorizer(vector).reset()
    vector.single_observation_space, vector.change = spaces.MultiDiscrete([2, 2]), lambda obs: obs.astype(int)
    vector.reset = lambda **_: (np.array([[0, 1], [2, 1]]), {})  # type: ignore[method-assign]
    with pytest.raises(EnvError, match="Changed returned observations of numbers from 0 to 2; its space says MultiD"):
        EnvVectorizer(vector).reset()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("place", "change"),
    [
        (1, np.ndarray.tolist),
        (2, np.ndarray.tolist),
        (2, lambda flags: flags.astype(int)),
        (3, lambda flags: flags * 1),
    ],
)
def test_numbers_and_flags_of_other_types_are_the_same_experience(place: int, change: Any, mode: AutoresetMode) -> None:
    found = []
    for vector in (SyncVectorEnv([Counter] * 2, autoreset_mode=mode), Changed(place, change, autoreset_mode=mode)):
        with EnvVectorizer(vector, autoreset=True, seed=0) as env:
            trajectories, episodes, count = collected(env, Choice(), 25)
            found.append((trajectories, [(one.return_, one.length) for one in episodes], count))
    (expected, *figures), (got, *others) = found
    assert figures == others
    for one, two in zip(got, expected, strict=True):
        assert_same(one, two)


def assert_equal(one: Any, two: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        for name in one:
            assert_equal(one[name], two[name])
    elif isinstance(one, tuple) or (isinstance(one, np.ndarray) and one.dtype == object):
        for a, b in zip(one, two, strict=True):
            assert_equal(a, b)
    else:
        assert np.array_equal(one, two)
        assert np.asarray(one).dtype == np.asarray(two).dtype


@pytest.mark.parametrize("kind", [Counter, Pair])
@pytest.mark.parametrize("backend", ["inline", "process"])
@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_ours_is_a_vector_env_like_gymnasiums(kind: type[Counter], backend: Any, mode: AutoresetMode) -> None:
    theirs = SyncVectorEnv(factories(kind), autoreset_mode=mode)
    autoreset = mode is AutoresetMode.SAME_STEP
    ours = EnvVectorizer(factories(kind), backend=backend, num_workers=2, autoreset=autoreset).as_vector_env()
    for name in ("num_envs", "observation_space", "action_space", "single_observation_space", "single_action_space"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.metadata == theirs.metadata
    assert ours.render_mode == theirs.render_mode
    assert_equal(ours.reset(seed=5, options={"level": 2}), theirs.reset(seed=5, options={"level": 2}))
    theirs.action_space.seed(0)
    for _ in range(25):
        actions = theirs.action_space.sample()
        assert_equal(ours.step(actions), theirs.step(actions))
    assert_equal(ours.reset(seed=[1, 2, 3]), theirs.reset(seed=[1, 2, 3]))
    assert ours.get_attr("length") == ours.call("length") == LENGTHS
    ours.set_attr("length", [1, 1, 1])
    assert ours.step(actions)[2].tolist() == [True, False, True], "the second is truncated"
    ours.close()
    ours.close()
    assert ours.closed
    theirs.close()
    with pytest.raises(RuntimeError, match="closed"):
        ours.step(actions)


def test_a_caller_may_reset_some() -> None:
    theirs = SyncVectorEnv(factories())
    ours = EnvVectorizer(factories(), backend="inline").as_vector_env()
    assert_equal(ours.reset(seed=5), theirs.reset(seed=5))
    actions = np.zeros(3, np.int64)
    for _ in range(12):
        one, two = ours.step(actions), theirs.step(actions)
        assert_equal(one, two)
        over = one[2] | one[3]
        if over.any():
            assert_equal(*(vector.reset(options={"reset_mask": over})[0] for vector in (ours, theirs)))


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_gymnasiums_vector_wrappers_run_on_ours(mode: AutoresetMode) -> None:
    autoreset = mode is AutoresetMode.SAME_STEP

    def wrapped(vector: VectorEnv) -> VectorEnv:
        vector = ClipReward(RecordEpisodeStatistics(vector), max_reward=2)
        return vector if autoreset else NormalizeObservation(vector)

    def view() -> VectorEnv:
        return wrapped(EnvVectorizer(factories(), backend="inline", autoreset=autoreset).as_vector_env())

    theirs, ours = wrapped(SyncVectorEnv(factories(), autoreset_mode=mode)), view()
    assert_equal(ours.reset(seed=1)[0], theirs.reset(seed=1)[0])
    for _ in range(12):
        one, two = ours.step(np.zeros(3, np.int64)), theirs.step(np.zeros(3, np.int64))
        for info in (one[4], two[4], one[4].get("final_info", {}), two[4].get("final_info", {})):
            info.get("episode", {}).pop("t", None)  # seconds
        assert_equal(one, two)
    with EnvVectorizer(view(), autoreset=True, seed=0) as env:
        trajectories, _, _ = collected(env, Choice(), 12)
        assert trajectories[0].terminated[:9].tolist() == [False, False, True] * 3
    with EnvVectorizer(SyncVectorEnv([Counter])) as env, pytest.raises(ValueError, match="need no VectorEnv around"):
        env.as_vector_env()
