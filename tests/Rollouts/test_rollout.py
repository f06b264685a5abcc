"""Fragments: what is in them, against loops by hand and tables."""

import random
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

from parallel_rl.utils import element_of, rows_of, spawn_seeds
from Rollouts import Fragment, State, evaluations, rollout
from Rollouts.nested import tree_leaves, tree_map
from tests.covering import rest_slow
from tests.envs import Counter, Hybrid, Nested, Pixels
from tests.Rollouts.actors import Chance, Scripted, StepCounter

WORKERS = [0, 1, 2, 3]
PLACES = [(number, 0) for number in WORKERS] + [(number, 1) for number in WORKERS[1:]]
"""How many workers, and the lag."""


def pendulum_action(total: torch.Tensor) -> torch.Tensor:
    return torch.rand(*total.shape, 1) * 2 - 1


def pixel_action(total: torch.Tensor) -> torch.Tensor:
    return torch.rand(*total.shape, 2)


def hybrid_action(total: torch.Tensor) -> dict[str, Any]:
    lead = total.shape
    return {
        "move": torch.randint(3, 5, lead),
        "aim": (torch.rand(*lead, 1, 1, dtype=torch.float64), torch.randint(2, (*lead, 2))),
        "gears": torch.stack([torch.randint(2, lead), torch.randint(5, 8, lead)], -1),
    }


TASKS: dict[str, tuple[Any, Any]] = {
    "cartpole": (lambda: gym.make("CartPole-v1", max_episode_steps=15), None),
    "pendulum": (lambda: gym.make("Pendulum-v1", max_episode_steps=7), pendulum_action),
    "dict": (Nested, None),
    "pixels": (Pixels, pixel_action),
    "dict actions": (Hybrid, hybrid_action),
}


def by_hand(make: Callable[[], gym.Env], actor: Chance, num_envs: int, n_steps: int, seed: int) -> dict[str, Any]:
    """Return the rows of `n_steps` steps, the straightforward way."""
    envs = [make() for _ in range(num_envs)]
    obs = [env.reset(seed=one)[0] for env, one in zip(envs, spawn_seeds(seed, num_envs), strict=True)]
    space = envs[0].action_space
    stepno, rew, fin = [0] * num_envs, [0.0] * num_envs, [True] * num_envs
    state: list[Any] = [(stepno, obs, rew, fin)]
    flags, values, nexts, acts = [], [], [], []
    for _ in range(n_steps):
        batch = tree_map(lambda *parts: torch.as_tensor(np.array([parts])), *obs)
        act, _, info = actor(batch, stepno=torch.tensor([stepno]), rew=torch.tensor([rew]))
        values.append(info["value"])
        acts.append(act)
        given = tree_map(lambda part: part[0].numpy(), act)
        rows = rows_of(space, given, num_envs) if isinstance(space, spaces.Dict) else given
        elements = [element_of(space, row) for row in rows]
        results = [env.step(element) for env, element in zip(envs, elements, strict=True)]
        nexts.append([result[0] for result in results])
        rew = [float(np.float32(result[1])) for result in results]
        flags.append([result[2:4] for result in results])
        fin = [result[2] or result[3] for result in results]
        obs = [env.reset()[0] if over else result[0] for env, result, over in zip(envs, results, fin, strict=True)]
        stepno = [0 if over else number + 1 for number, over in zip(stepno, fin, strict=True)]
        state.append((stepno, obs, rew, fin))
    return {"state": state, "flags": flags, "values": values, "nexts": nexts, "acts": acts}


@pytest.mark.parametrize("task", TASKS)
def test_fragments_equal_those_of_a_loop_by_hand(task: str) -> None:
    make, act = TASKS[task]
    num_envs, n_steps, count = 3, 5, 6
    torch.manual_seed(1)
    hand = by_hand(make, Chance(act), num_envs, n_steps * count, seed=0)
    torch.manual_seed(1)
    fragments = [*islice(rollout(make, Chance(act), n_steps, num_envs, seed=0), count)]
    assert {fragment.state.rew.shape for fragment in fragments} == {(1 + n_steps, num_envs)}
    joined = tree_map(lambda *parts: torch.cat(parts), *(fragment.after for fragment in fragments))
    first = tree_map(lambda tensor: tensor[0], fragments[0].state)

    def rows(number: int) -> Any:
        return [tree_map(lambda *parts: np.array(parts), *row[number]) for row in hand["state"]]

    for name, number in (("stepno", 0), ("obs", 1), ("rew", 2), ("fin", 3)):
        expected = rows(number)
        tree_map(np.testing.assert_array_equal, getattr(first, name), expected[0])
        stacked = tree_map(lambda *parts: np.stack(parts), *expected[1:])
        tree_map(np.testing.assert_array_equal, getattr(joined, name), stacked)
    tree_map(np.testing.assert_array_equal, joined.act, tree_map(lambda *acts: torch.cat(acts), *hand["acts"]))
    flags = np.array(hand["flags"])
    assert flags.any(), "no episode ended"
    for number, name in enumerate(("terminated", "truncated")):
        np.testing.assert_array_equal(torch.cat([fragment.env[name] for fragment in fragments]), flags[..., number])
    values = torch.cat([fragment.actor["value"][:-1] for fragment in fragments])
    np.testing.assert_array_equal(values, torch.cat(hand["values"]).detach())
    true_next = tree_map(lambda *parts: torch.cat(parts), *(fragment.next_obs for fragment in fragments))
    nexts = [tree_map(lambda *parts: np.array(parts), *row) for row in hand["nexts"]]
    tree_map(np.testing.assert_array_equal, true_next, tree_map(lambda *parts: np.stack(parts), *nexts))


@pytest.mark.parametrize(("num_workers", "lag"), PLACES)
@pytest.mark.parametrize("truncates", [False, True])
def test_fragments_of_a_counter_equal_the_table(truncates: bool, num_workers: int, lag: int) -> None:
    script = Scripted([2], [1], [0], [1], [2])
    feed = rollout(partial(Counter, 3, truncates), script, 5, num_workers=num_workers, lag=lag)
    one, two = islice(feed, 2)
    feed.close()  # type: ignore[attr-defined]
    assert column(one) == [
        # stepno, obs, act, rew, fin
        (0, 0, 0, 0, True),
        (1, 1, 2, 1, False),
        (2, 2, 1, 2, False),
        (0, 0, 0, 3, True),
        (1, 1, 1, 1, False),
        (2, 2, 2, 2, False),
    ]
    assert column(two)[:3] == [(2, 2, 2, 2, False), (0, 0, 0, 3, True), (1, 1, 0, 1, False)]
    ends = [False, False, True, False, False]
    assert one.env["truncated" if truncates else "terminated"][:, 0].tolist() == ends
    assert not one.env["terminated" if truncates else "truncated"].any()
    assert one.env["valid"].all()
    assert one.next_obs[:, 0, 1].tolist() == [1, 2, 3, 1, 2]
    assert one.actor["value"][:, 0].tolist() == [10, 20, 30, 10, 20, 30]
    at_end = 40 if truncates else 0
    with pytest.raises(KeyError, match="no output 'q' of the actor: there are value"):
        one.following("q")
    assert one.following("value")[:, 0].tolist() == [20, 30, at_end, 20, 30]
    assert two.following("value")[:, 0].tolist() == [at_end, 20, 30, at_end, 20]


@pytest.mark.parametrize("truncates", [False, True])
def test_a_sticky_environment_waits_for_the_next_fragment(truncates: bool) -> None:
    makes = [partial(Counter, 3, truncates), partial(Counter, 9, truncates)]
    feed = rollout(makes, Scripted(*[[1, 2]] * 4), 5, sticky=True)
    one, two = islice(feed, 2)
    assert column(one) == [
        (0, 0, 0, 0, True),
        (1, 1, 1, 1, False),
        (2, 2, 1, 2, False),
        (0, 0, 1, 3, True),
        (0, 0, 1, 0, True),
        (0, 0, 1, 0, True),
    ]
    assert column(one, 1)[-1] == (5, 5, 0, 5, False), "the other goes on"
    assert column(two)[:2] == [(0, 0, 1, 0, True), (1, 1, 0, 1, False)]
    assert torch.equal(one.state.obs[3, 0], two.state.obs[0, 0]), "the same episode, still to be begun"
    assert one.env["valid"][:, 0].tolist() == [True, True, True, False, False]
    assert one.env["valid"][:, 1].all()
    assert one.env["truncated" if truncates else "terminated"][:, 0].tolist() == [False, False, True, True, True]
    assert one.following("value")[:, 0].tolist() == [20, 30, 40 if truncates else 0, 0, 0]


def test_sticky_environments_that_all_wait_are_not_stepped() -> None:
    one, two = islice(rollout(partial(Counter, 2), Scripted(), 4, 2, sticky=True), 2)
    assert one.state.fin[:, 0].tolist() == [True, False, True, True, True]
    assert two.state.obs[:, 0, 1].tolist() == [0, 1, 0, 0, 0]


def column(fragment: Fragment, env_id: int = 0) -> list[tuple]:
    stepno, obs, act, rew, fin = (tensor[:, env_id] for tensor in fragment.state)
    return [*zip(*(part.tolist() for part in (stepno, obs[:, 1], act, rew, fin)), strict=True)]


def test_types_are_those_of_the_spaces() -> None:
    (fragment,) = islice(rollout(Nested, Chance(), 2, 3), 1)
    state = fragment.state
    assert isinstance(state, State)
    assert state.obs["picture"].dtype == torch.uint8
    assert state.obs["picture"].shape == (3, 3, 4, 4, 1)
    assert isinstance(state.obs["inner"], tuple)
    assert [part.dtype for part in (state.stepno, state.act, state.rew, state.fin)] == [
        torch.int64, torch.int64, torch.float32, torch.bool,
    ]  # fmt: skip
    assert fragment.before.rew.shape == fragment.after.rew.shape == (2, 3)


def test_the_recurrent_state_counts_the_steps_of_the_episodes() -> None:
    makes = [partial(Counter, 3, True), partial(Counter, 4)]
    for fragment in islice(rollout(makes, StepCounter(), 5), 4):
        assert torch.equal(fragment.hx["count"][0, :, 0], fragment.state.stepno[0])
        assert fragment.hx["count"].shape == (2, 2, 1)
        assert torch.equal(fragment.actor["count"], fragment.state.stepno)
        following = fragment.following("count")
        assert torch.equal(following[:, 0], fragment.state.stepno[:-1, 0] + 1), "through truncations, too"
        assert (following[:, 1] == fragment.state.stepno[1:, 1]).all()


def test_a_look_ahead_sees_the_episode_that_was_truncated() -> None:
    for fragment in islice(rollout(partial(Counter, 4, True), Chance(), 6, 2), 2):
        expected = fragment.next_obs.double().sum(-1) + 100 * (fragment.before.stepno + 1) + fragment.after.rew
        assert torch.equal(fragment.following("value"), expected)


def test_an_episode_that_is_terminated_and_truncated_at_once_is_worth_nothing_more() -> None:
    class Both(Counter):
        def step(self, action: int) -> Any:
            obs, reward, over, _, info = super().step(action)
            return obs, reward, over, over, info

    (fragment,) = islice(rollout(partial(Both, 2), Scripted(), 4), 1)
    assert fragment.env["truncated"][:, 0].tolist() == fragment.env["terminated"][:, 0].tolist() == [False, True] * 2
    assert fragment.following("value")[:, 0].tolist() == [20, 0, 20, 0]


def test_custom_reset_of_the_recurrent_state_is_used() -> None:
    class Learned(StepCounter):
        def reset(self, hx: Any, at: Any) -> Any:
            count = hx["count"].clone()
            count[:, at] = 40
            return {"count": count}

    (fragment,) = islice(rollout(partial(Counter, 3), Learned(), 5), 1)
    assert fragment.hx["count"].flatten().tolist() == [40, 40]
    assert fragment.actor["count"][:, 0].tolist() == [40, 41, 42, 40, 41, 42]


def test_look_aheads_change_no_random_streams() -> None:
    """However the same steps are divided into fragments, they are the same."""

    class AllStreams(Chance):
        def choose(self, total: torch.Tensor) -> torch.Tensor:
            odd = (random.random() < 0.5) ^ (np.random.random() < 0.5)  # noqa: NPY002
            return super().choose(total) ^ odd

    def experience(n_steps: int) -> State:
        torch.manual_seed(0), random.seed(0), np.random.seed(0)  # noqa: NPY002
        feed = rollout(partial(Counter, 4, True), AllStreams(), n_steps, 3, seed=5)
        return tree_map(lambda *parts: torch.cat(parts), *(one.before for one in islice(feed, 24 // n_steps)))

    tree_map(lambda one, two: torch.testing.assert_close(one, two, rtol=0, atol=0), experience(3), experience(12))


@pytest.mark.parametrize(("num_workers", "lag"), PLACES)
def test_lag_is_the_age_of_the_weights_that_act(num_workers: int, lag: int) -> None:
    actor = Chance()
    feed = rollout(partial(Counter, 4), actor, 3, 3, num_workers=num_workers, lag=lag)
    for today, before in ((1.0, 1.0), (2.0, 1.0), (5.0, 2.0), (9.0, 5.0)):
        with torch.no_grad():
            actor.weight.fill_(today)
        fragment = next(feed)
        state = fragment.state
        expected = (before if lag else today) * state.obs.double().sum(-1) + 100 * state.stepno + state.rew
        assert torch.equal(fragment.actor["value"], expected)
        assert fragment.lag == (lag if today > 1 else 0)
    feed.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("num_workers", rest_slow(*reversed(WORKERS[1:])))
def test_a_lagged_rollout_is_reproducible_by_its_seed(num_workers: int) -> None:
    def run(seed: int, before: int) -> list[Fragment]:
        torch.manual_seed(before)
        feed = rollout(partial(Counter, 4, True), Chance(), 6, 4, num_workers=num_workers, lag=1, seed=seed)
        fragments = [*islice(feed, 3)]
        feed.close()  # type: ignore[attr-defined]
        return fragments

    first, again, other = run(1, 0), run(1, 5), run(2, 0)
    for one, same in zip(first, again, strict=True):
        tree_map(np.testing.assert_array_equal, (one.state, one.actor, one.hx), (same.state, same.actor, same.hx))
        tree_map(np.testing.assert_array_equal, one.following("value"), same.following("value"))
    assert any(not torch.equal(one.state.act, different.state.act) for one, different in zip(first, other, strict=True))


def test_workers_sample_different_actions() -> None:
    feed = rollout(partial(Counter, 10**9), Chance(), 60, 2, num_workers=2, lag=1)
    act = next(feed).state.act
    feed.close()  # type: ignore[attr-defined]
    assert not torch.equal(act[:, 0], act[:, 1])


def test_columns_of_workers_are_those_of_the_environments() -> None:
    lengths = [2, 3, 4, 5, 6]
    feed = rollout([partial(Counter, length, True) for length in lengths], StepCounter(), 8, num_workers=2, lag=1)
    fragment = next(feed)
    feed.close()  # type: ignore[attr-defined]
    assert [int(column.nonzero()[0]) + 1 for column in fragment.env["truncated"].T] == lengths
    assert fragment.hx["count"].shape == (2, 5, 1)
    for column, length in enumerate(lengths):
        assert int(fragment.following("count")[length - 1, column]) == length, "the look-ahead of this one"
        assert int(fragment.next_obs[length - 1, column, 1]) == length


def test_workers_receive_buffers_and_the_training_mode() -> None:
    class Modal(Chance):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("number", torch.tensor(0))
            self.frozen = torch.nn.Dropout().eval()

        def forward(self, obs: Any, **_: Any) -> Any:
            act = torch.full(obs.shape[:2], int(self.training))
            frozen = torch.tensor(not self.frozen.training).expand(obs.shape[:2])
            return act, (), {"number": self.number.expand(obs.shape[:2]), "frozen": frozen}

    actor = Modal().eval()
    feed = rollout(Counter, actor, 2, 2, num_workers=2, lag=1)
    actor.number.fill_(3)
    fragment = next(feed)
    assert (fragment.actor["number"] == 3).all()
    assert not fragment.state.act.any()
    actor.train()
    actor.frozen.eval()
    actor.number.fill_(4)
    next(feed)
    fragment = next(feed)
    assert (fragment.actor["number"] == 4).all()
    assert fragment.state.act[1:].all()
    assert fragment.actor["frozen"].all(), "a part has a mode of its own"
    feed.close()  # type: ignore[attr-defined]


def test_lag_with_an_actor_that_is_no_module_is_refused() -> None:
    class NoModule:
        reset, step = Chance.reset, Chance.step

    with pytest.raises(TypeError, match="lag=1 needs a torch module"):
        rollout(Counter, NoModule(), num_workers=1, lag=1)


def test_the_same_seeds_are_the_same_run_in_any_number_of_workers() -> None:
    runs = []
    for num_workers in WORKERS:
        torch.manual_seed(3)
        feed = rollout("CartPole-v1", Chance(), 6, 4, num_workers=num_workers, seed=1)
        runs.append([*islice(feed, 3)])
        feed.close()  # type: ignore[attr-defined]
    for run in runs[1:]:
        for one, other in zip(runs[0], run, strict=True):
            tree_map(
                np.testing.assert_array_equal, (one.state, one.actor, one.env), (other.state, other.actor, other.env)
            )


def test_fragments_that_are_kept_do_not_change() -> None:
    feed = rollout(partial(Counter, 4, True), StepCounter(), 3, 2)
    kept = [next(feed)]
    copies = tree_map(torch.clone, (kept[0].state, kept[0].actor, kept[0].env, kept[0].hx))
    kept += islice(feed, 3)
    for fragment in kept:
        fragment.state.rew.zero_()  # nor does what is done to them matter
    assert next(feed).state.rew[:, 0].tolist() == [4, 1, 2, 3]
    kept[0].state.rew.copy_(copies[0].rew)
    for before, after in zip(
        tree_leaves(copies), tree_leaves((kept[0].state, kept[0].actor, kept[0].env, kept[0].hx)), strict=True
    ):
        assert torch.equal(before[1], after[1])
    storages = [leaf.untyped_storage().data_ptr() for one in kept for _, leaf in tree_leaves(one.state)]
    assert len(set(storages)) == len(storages)


def test_fragments_train_an_actor() -> None:
    actor = Chance()
    (fragment,) = islice(rollout(partial(Counter, 4, True), actor, 3, 2), 1)
    assert not any(leaf.requires_grad for _, leaf in tree_leaves((fragment.state, fragment.actor, fragment.hx)))
    _, _, info = actor.step(*fragment.before, hx=fragment.hx, virtual=False)
    assert torch.equal(info["value"], fragment.actor["value"][:-1])
    info["value"].sum().backward()
    assert actor.weight.grad is not None


def test_the_first_action_is_one_of_the_choices() -> None:
    class Shifted(Counter):
        def __init__(self) -> None:
            super().__init__()
            self.action_space = spaces.Discrete(2, start=3)

    actor = Scripted([4], [3])
    actor.script += [[3]] * 9
    (fragment,) = islice(rollout(Shifted, actor, 2), 1)
    assert fragment.state.act[:, 0].tolist() == [3, 4, 3]


def test_environments_that_are_one_object_are_refused() -> None:
    envs = SyncVectorEnv([Counter] * 2)
    for use in (lambda: rollout(envs, Chance()), lambda: evaluations(lambda num_envs: envs, Chance())):
        with pytest.raises(TypeError, match="rollouts step single environments: pass a function that makes one"):
            use()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_steps": 0}, "n_steps must be at least 1, not 0"),
        ({"num_workers": -1}, "num_workers must be at least 0, not -1"),
        ({"num_workers": 1.5}, "num_workers must be a whole number, not 1.5"),
        ({"num_envs": 0}, "num_envs must be at least 1, not 0"),
        ({"lag": 2}, "lag must be 0 or 1, not 2"),
        ({"lag": 1}, "lag=1 needs num_workers >= 1"),
        ({"step_timeout": 1.0}, "step_timeout needs num_workers >= 1"),
        (
            {"step_timeout": float("nan"), "num_workers": 1, "lag": 1},
            "step_timeout must be positive and finite, not nan",
        ),
        ({"step_timeout": -1.0, "num_workers": 1}, "step_timeout must be positive and finite, not -1.0"),
        ({"on_env_error": "x", "num_workers": 1, "lag": 1}, "on_env_error must be 'raise' or 'restart', not 'x'"),
    ],
)
def test_incompatible_arguments_of_rollout_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rollout(Counter, Chance(), **arguments)
