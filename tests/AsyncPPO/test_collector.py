"""Collecting and evaluating, with an actor that needs no network."""

from functools import partial
from typing import Any

import numpy as np
import pytest

from AsyncPPO import EnvError, EnvVectorizer, VecMemory, evaluate
from AsyncPPO.collector import Collector
from AsyncPPO.episodes import Episode
from tests.envs import Counter, Hanging


class Scripted:
    """Always takes action 1; stores the observations of each query."""

    def __init__(self) -> None:
        self.queried: list[np.ndarray] = []

    def act(self, states: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        self.queried.append(states)
        return np.ones(len(states), np.int64), {"log_prob": np.full(len(states), -0.5)}

    def get_action(self, states: np.ndarray, *, deterministic: bool = False) -> np.ndarray:
        return self.act(states)[0]


@pytest.mark.parametrize("autoreset", [False, True])
def test_collector_rows_equal_the_transitions(autoreset: bool) -> None:
    with EnvVectorizer(partial(Counter, 3), 2, backend="inline", seed=0, autoreset=autoreset) as env:
        buffer, actor = VecMemory(2), Scripted()
        collector = Collector(env, actor, buffer)
        results = [collector.collect(1) for _ in range(5)]
    assert [stepped for stepped, _ in results] == [2] * 5
    assert [len(episodes) for _, episodes in results] == [0, 0, 2, 0, 0]
    assert results[2][1] == [Episode(6.0, 3)] * 2, "return 1 + 2 + 3 and length"
    for trajectory in buffer.take():
        assert trajectory.obs[:, 1].tolist() == [0, 1, 2, 0, 1], "no row of a reset, none missing"
        assert trajectory.reward.tolist() == [1, 2, 3, 1, 2]
        assert trajectory.terminated.tolist() == [False, False, True, False, False]
        assert trajectory.final_obs[:, 1].tolist() == [3, 2]
        assert trajectory.final_obs[0, 0] != trajectory.obs[3, 0]
        assert trajectory.extras["log_prob"].tolist() == [-0.5] * 5


def test_collector_queries_and_counts_only_running_environments() -> None:
    lengths = iter([2, 1, 3, 3])  # one for the probe of the spaces, then one for each copy
    with EnvVectorizer(lambda: Counter(next(lengths)), 3, backend="inline") as env:
        actor = Scripted()
        collector = Collector(env, actor, VecMemory(3))
        assert [collector.collect(1)[0] for _ in range(4)] == [3, 2, 2, 3]
        assert [len(states) for states in actor.queried] == [3, 2, 2, 3]


def test_collector_takes_the_requested_number_of_steps() -> None:
    with EnvVectorizer(partial(Counter, 3), 2, backend="inline", seed=0) as env:
        assert Collector(env, Scripted(), VecMemory(2)).collect(7) == (14, [Episode(6.0, 3)] * 4)


def test_evaluate_returns_as_many_whole_episodes_as_requested() -> None:
    for episodes, num_envs in [(1, 100), (7, 3), (6, 3)]:
        returns = evaluate(Scripted(), partial(Counter, 4), episodes, num_envs=num_envs, backend="inline")
        assert returns.tolist() == [1 + 2 + 3 + 4] * episodes


def test_evaluate_does_not_favor_short_episodes() -> None:
    lengths = iter([9, 1, 4, 1, 4])
    returns = evaluate(Scripted(), lambda: Counter(next(lengths)), 4, num_envs=4, backend="inline")
    assert sorted(returns.tolist()) == [1, 1, 10, 10]


def test_evaluate_truncates_an_endless_episode() -> None:
    returns = evaluate(Scripted(), partial(Counter, 10**9), 2, backend="inline", seed=0, max_steps=4)
    assert returns.tolist() == [10.0, 10.0]
    with pytest.warns(RuntimeWarning, match="1 of 1 episodes were truncated after 10,000 steps"):
        returns = evaluate(Scripted(), partial(Counter, 10**9), 1, backend="inline", seed=0)
    assert returns.tolist() == [sum(range(1, 10_001))]


def test_evaluate_with_a_bad_number_names_it() -> None:
    for bad, message in [
        ({"max_steps": 0}, "max_steps must be at least 1, not 0"),
        ({"max_steps": 2.5}, "max_steps must be a whole number, not 2.5"),
        ({"episodes": 0}, "episodes must be at least 1, not 0"),
    ]:
        settings: Any = {"episodes": 1, "backend": "inline"} | bad
        with pytest.raises(ValueError, match=message):
            evaluate(Scripted(), partial(Counter, 4), **settings)


class Flaky(Counter):
    """Fails in the second step of some episodes."""

    def __init__(self, share: float) -> None:
        super().__init__(4)
        self.share = share

    def step(self, action: int) -> Any:
        if self.count == 1 and self.np_random.random() < self.share:
            raise OSError("the simulator is gone")
        return super().step(action)


def test_evaluate_with_restart_repeats_failed_episodes() -> None:
    returns = evaluate(Scripted(), partial(Flaky, 0.5), 9, num_envs=4, seed=0, backend="inline", on_env_error="restart")
    assert returns.tolist() == [10.0] * 9
    with pytest.raises(EnvError, match="the simulator is gone"):
        evaluate(Scripted(), partial(Flaky, 0.5), 9, seed=0, backend="inline")
    with pytest.raises(EnvError, match="no episode was finished"):
        evaluate(Scripted(), partial(Flaky, 1.0), 9, backend="inline", on_env_error="restart")


def test_evaluate_with_step_timeout_raises_if_an_environment_hangs() -> None:
    with pytest.raises(EnvError, match="hung"):
        evaluate(Scripted(), Hanging, 2, num_workers=1, step_timeout=0.3)
