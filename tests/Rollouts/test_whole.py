"""Whole episodes, and their returns."""

from functools import partial
from itertools import islice
from typing import Any

import pytest
import torch

from Rollouts import BaseActorModule, episodes, evaluations, rollout
from tests.envs import Counter
from tests.Rollouts.actors import Chance, Scripted, StepCounter


@pytest.mark.parametrize("sticky", [False, True])
@pytest.mark.parametrize("n_steps", [1, 3, 20])
def test_environments_take_turns(n_steps: int, sticky: bool) -> None:
    """Otherwise there would be five episodes of 1 step to one of 5."""
    lengths = [2, 5, 1]
    feed = rollout([partial(Counter, length) for length in lengths], Chance(), n_steps, sticky=sticky)
    batches = [*islice(episodes(feed, 2), 6)]
    assert [len(batch) for batch in batches] == [2] * 6
    taken = [len(episode.env["valid"]) for batch in batches for episode in batch]
    assert taken == lengths * 4


@pytest.mark.parametrize("truncates", [False, True])
@pytest.mark.parametrize("n_steps", [1, 2, 7])
def test_episodes_have_the_rows_of_the_environment(n_steps: int, truncates: bool) -> None:
    script = Scripted(*[[number % 3] for number in range(50)])
    feed = rollout(partial(Counter, 4, truncates), script, n_steps)
    ((first,), (second,)) = islice(episodes(feed), 2)
    for episode, acts in ((first, [0, 0, 1, 2, 0]), (second, [0, 1, 2, 0, 1])):
        state = episode.state
        assert state.stepno.tolist() == [[0], [1], [2], [3], [4]]
        assert state.obs[:, 0, 1].tolist() == [0, 1, 2, 3, 4], "with the true last observation"
        assert (state.obs[:, 0, 0] != 0).all()
        assert state.act[:, 0].tolist() == acts
        assert state.rew[1:, 0].tolist() == [1, 2, 3, 4]
        assert state.fin[:, 0].tolist() == [True, False, False, False, True]
        assert episode.env["truncated" if truncates else "terminated"][:, 0].tolist() == [False, False, False, True]
        assert not episode.env["terminated" if truncates else "truncated"].any()
        last = 50 if truncates else 0
        assert episode.actor["value"][:, 0].tolist() == [10, 20, 30, 40, last]
        assert episode.following("value")[:, 0].tolist() == [20, 30, 40, last]
        assert episode.next_obs[:, 0, 1].tolist() == [1, 2, 3, 4]
    assert [int(first.lag), int(second.lag)] == {1: [3, 3], 2: [1, 1], 7: [0, 1]}[n_steps]


def test_an_episode_begins_with_the_recurrent_state_of_a_reset() -> None:
    class Learned(StepCounter):
        def reset(self, hx: Any, at: Any) -> Any:
            count = hx["count"].clone()
            count[:, at] = 40
            return {"count": count}

    for batch in islice(episodes(rollout(partial(Counter, 4), Learned(), 3, 2)), 5):
        assert batch[0].hx["count"].flatten().tolist() == [40, 40]
        assert batch[0].actor["count"][:-1, 0].tolist() == [40, 41, 42, 43]


@pytest.mark.parametrize("sticky", [False, True])
def test_an_episode_has_the_recurrent_state_that_was_used_although_its_start_is_learned(sticky: bool) -> None:
    class Learned(StepCounter):
        start = 0

        def reset(self, hx: Any, at: Any) -> Any:
            count = hx["count"].clone()
            count[:, at] = self.start
            return {"count": count}

    actor = Learned()

    def feed() -> Any:
        for fragment in rollout(partial(Counter, 3), actor, 4, 2, sticky=sticky):
            yield fragment
            actor.start += 100

    for (episode,) in islice(episodes(feed()), 8):
        assert episode.hx["count"][0].tolist() == episode.actor["count"][:1, 0, None].tolist()
    assert int(episode.hx["count"][0]) > 0


def test_episodes_that_began_before_the_feed_are_left_out() -> None:
    feed = rollout(partial(Counter, 4), Chance(), 3)
    next(feed)
    ((episode,),) = islice(episodes(feed), 1)
    assert episode.state.obs[:, 0, 1].tolist() == [0, 1, 2, 3, 4]


class Failing(Counter):
    """Its third step fails, and the one after it, which is the first of an episode."""

    steps = 0

    def step(self, action: int) -> Any:
        self.steps += 1
        if self.steps in (3, 4):
            raise ValueError("the step is broken")
        return super().step(action)


@pytest.mark.parametrize("n_steps", [1, 2, 3, 20])
def test_an_episode_ends_before_a_step_that_failed(n_steps: int) -> None:
    env = Failing(4)
    feed = rollout(lambda: env, Scripted([1], [2]), n_steps, 1, on_env_error="restart")
    ((failed,), (whole,)) = islice(episodes(feed), 2)
    assert failed.state.stepno.tolist() == failed.state.obs[:, :, 1].tolist() == [[0], [1], [2]]
    assert failed.state.act[:, 0].tolist() == [0, 1, 2]
    assert failed.state.rew[1:, 0].tolist() == [1, 2]
    assert failed.state.fin.tolist() == [[True], [False], [True]]
    assert failed.env["valid"].all()
    assert failed.env["truncated"].tolist() == [[False], [True]]
    assert not failed.env["terminated"].any()
    assert failed.actor["value"][:, 0].tolist() == [10, 20, 30]
    assert failed.following("value")[:, 0].tolist() == [20, 30], "a bootstrap value, as at any truncation"
    assert failed.next_obs[:, 0, 1].tolist() == [1, 2]
    assert whole.state.obs[:, 0, 1].tolist() == [0, 1, 2, 3, 4]
    assert whole.env["valid"].all()


def test_no_episodes_are_an_error() -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        episodes([], 0)


class Greedy(BaseActorModule):
    """Its weight is its action, but while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.0))

    def forward(self, obs: Any, **_: Any) -> Any:
        assert not self.training
        torch.rand(1)
        return torch.full(obs.shape[:2], int(self.weight)), (), {}


class Paying(Counter):
    """The reward is the action."""

    def step(self, action: int) -> Any:
        obs, _, terminated, truncated, info = super().step(action)
        return obs, float(action), terminated, truncated, info


def test_evaluations_use_current_weights_and_change_no_random_streams() -> None:
    actor = Greedy()
    feed = evaluations([partial(Paying, length) for length in (3, 100, 5)], actor, 3)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for weight in (0, 1, 2):
        with torch.no_grad():
            actor.weight.fill_(weight)
        assert next(feed).tolist() == [3 * weight, 100 * weight, 5 * weight]
    assert actor.training
    assert torch.equal(torch.get_rng_state(), before)


def test_an_evaluation_without_an_end_is_truncated_with_a_warning() -> None:
    feed = evaluations([partial(Counter, 10**9), partial(Counter, 2)], Chance(), 2, max_steps=100)
    with pytest.warns(UserWarning, match="1 of 2 episodes were truncated after 100 steps") as warned:
        returns = next(feed)
    assert returns.tolist() == [sum(range(1, 101)), 3]
    assert warned[0].filename == __file__


def test_evaluations_of_no_episodes_are_an_error() -> None:
    with pytest.raises(ValueError, match="episodes must be at least 1, not 0"):
        evaluations(Counter, Chance(), 0)
