"""Environments of any shape and type, and calls in any order."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from AsyncPPO import AsyncPPO, EnvVectorizer
from PPO import PPO
from tests.envs import Counter

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import stateful  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)
types = st.sampled_from([np.float16, np.float32, np.float64, np.int8, np.int64, np.uint8, np.bool_])


@st.composite
def boxes(draw: Any) -> spaces.Box:
    kind = draw(types)
    if np.dtype(kind).kind == "f":
        low, high = draw(st.sampled_from([(-np.inf, np.inf), (0, np.inf), (-1, 3), (0, 1e-3)]))
    else:
        low, high = (0, 1) if kind is np.bool_ else draw(st.sampled_from([(0, 5), (0, 100)]))
    return spaces.Box(low, high, draw(shapes), kind)


choices = st.one_of(
    st.builds(lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 5), st.integers(-3, 3)),
    st.builds(spaces.MultiDiscrete, st.lists(st.integers(1, 4), min_size=1, max_size=3)),
    st.builds(spaces.MultiBinary, st.integers(1, 4)),
)
nested = st.recursive(
    st.one_of(boxes(), choices),
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3).map(spaces.Dict),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: spaces.Tuple(tuple(parts))),
    ),
    max_leaves=4,
)


class Random(gym.Env):
    """Returns samples of its observation space; checks that actions are in its action space."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        if isinstance(self.action_space, spaces.Dict | spaces.Tuple):
            assert self.action_space.contains(action)
        else:
            assert action.shape == (self.action_space.shape or ())
            assert self.action_space.contains(np.asarray(action, self.action_space.dtype))
        over = self.np_random.random() < 0.2
        return self.observation_space.sample(), 1.0, bool(over), False, {}


@hypothesis.settings(max_examples=20, deadline=None)
@hypothesis.given(observation_space=nested, action_space=nested, seed=st.integers(0, 9))
def test_any_spaces_are_learned_on_or_refused_by_name(
    observation_space: spaces.Space, action_space: spaces.Space, seed: int
) -> None:
    env = Random(observation_space, action_space)
    try:
        ppo = PPO.for_env(
            env, seed=seed, hidden_sizes=(4,), batch_size=16, mini_batch_size=8, k_epochs=1, normalize_obs=seed % 2 == 0
        )
    except TypeError as error:
        hypothesis.event("refused")
        if "space" not in str(error):
            raise
        return
    with AsyncPPO(env, ppo, 3, 40, backend="inline", seed=seed, progress=False) as run:
        history = run.run()
    assert np.isfinite([value for name, value in history[-1].items() if "mean" not in name]).all()


class Calls(stateful.RuleBasedStateMachine):
    """An `EnvVectorizer` against a model: the number of steps of each of four `Counter`s."""

    @stateful.initialize(
        autoreset=st.booleans(),
        options=st.sampled_from([{"backend": "inline"}, {"backend": "process", "num_workers": 2}]),
    )
    def make(self, autoreset: bool, options: dict[str, Any]) -> None:
        self.env = EnvVectorizer(Counter, 4, autoreset=autoreset, seed=0, **options)
        self.autoreset = autoreset
        self.counts: list[int] = []
        self.closed = False

    @stateful.rule()
    def reset(self) -> None:
        if self.closed:
            with pytest.raises(RuntimeError, match="closed"):
                self.env.reset()
            return
        obs, infos = self.env.reset()
        self.counts = [0] * 4
        assert obs[:, 1].tolist() == self.counts
        assert infos == [{}] * 4

    @stateful.rule(count=st.integers(0, 5))
    def step(self, count: int) -> None:
        running = [] if self.closed else np.flatnonzero(~self.env.finished).tolist()
        if self.closed or not running:
            with pytest.raises(RuntimeError, match=r"closed|reset\(\) first"):
                self.env.step([0] * count)
        elif count != len(running):
            with pytest.raises(ValueError, match="environments are running"):
                self.env.step([0] * count)
        else:
            self.step_all(running)

    @stateful.rule()
    def step_as_many_as_run(self) -> None:
        if not self.closed and (running := np.flatnonzero(~self.env.finished).tolist()):
            self.step_all(running)

    def step_all(self, running: list[int]) -> None:
        obs, rewards, terminated, _, infos = self.env.step([0] * len(running))
        for row, index in enumerate(running):
            self.counts[index] += 1
            assert rewards[row] == self.counts[index]
            assert terminated[row] == (self.counts[index] >= 5)
            if terminated[row] and self.autoreset:
                assert infos[row]["final_obs"][1] == self.counts[index]
                self.counts[index] = 0
            assert obs[row, 1] == self.counts[index]

    @stateful.rule(index=st.integers(0, 3), finished=st.booleans())
    def mark(self, index: int, finished: bool) -> None:
        if self.counts:
            self.env.envs_active[index] = finished

    @stateful.precondition(lambda self: self.counts)
    @stateful.rule()
    def save_and_load(self) -> None:
        if not self.closed:
            running = ~self.env.finished
            obs = self.env.load_state(self.env.state())
            if obs is not None:
                assert obs[:, 1].tolist() == np.array(self.counts)[running].tolist()
            assert (self.env.finished == ~running).all()

    @stateful.rule()
    def close(self) -> None:
        self.env.close()
        self.closed = True

    def teardown(self) -> None:
        if hasattr(self, "env"):
            self.env.close()


Calls.TestCase.settings = hypothesis.settings(max_examples=10, stateful_step_count=20, deadline=None)
TestCalls = Calls.TestCase
