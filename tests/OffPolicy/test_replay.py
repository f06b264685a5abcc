from dataclasses import replace

import numpy as np
import pytest
from gymnasium import spaces

from OffPolicy import Replay
from parallel_rl.utils import Trajectory, load_state, save_state
from tests.OffPolicy.episodes import ACTIONS, OBSERVATIONS, Source, n_step_by_hand


def stored(replay: Replay) -> np.ndarray:
    return np.flatnonzero(replay.is_transition)


def filled(capacity: int, lengths: list[int], num_envs: int = 1, ends: float = 0.3) -> tuple[Replay, list[Source]]:
    replay = Replay(capacity, OBSERVATIONS, ACTIONS)
    sources = [Source(env_id, np.random.default_rng(env_id)) for env_id in range(num_envs)]
    for length in lengths:
        replay.extend([source.trajectory(length, ends) for source in sources])
    return replay, sources


@pytest.mark.parametrize("seed", range(8))
def test_trajectories_of_any_length_give_the_newest_transitions_unchanged(seed: int) -> None:
    """Random trajectories, resets in the middle of episodes and wrap-arounds, against lists of what happened."""
    rng = np.random.default_rng(seed)
    replay = Replay(60, OBSERVATIONS, ACTIONS)
    sources = [Source(env_id, rng) for env_id in range(3)]
    replay.extend([source.trajectory(1) for source in sources])
    for _ in range(40):
        some = [source for source in sources if rng.random() < 0.7]
        for source in some:
            if rng.random() < 0.1 and source.episodes[-1]:
                source.restart()
        if some:
            replay.extend(
                [source.trajectory(int(rng.choice([1, 2, 7, 30])), rng.choice([0.05, 0.5])) for source in some]
            )
        check(replay, sources)


def check(replay: Replay, sources: list[Source], gamma: float = 0.5) -> None:
    rows = stored(replay)
    assert len(replay) == len(rows)
    places = {row["obs"]: (episode, step) for source in sources for episode in source.episodes
              for step, row in enumerate(episode)}  # fmt: skip
    kept = {source.env_id: [] for source in sources}
    for n_step in (1, 3):
        batch = replay.transitions(rows, gamma, n_step)
        for index, obs in enumerate(map(tuple, batch.obs.tolist())):
            episode, step = places[obs]
            reward, next_obs, discount = n_step_by_hand(episode, step, gamma, n_step)
            assert batch.action[index] == episode[step]["action"]
            assert (batch.reward[index], tuple(batch.next_obs[index]), batch.discount[index]) == (
                reward, next_obs, discount,
            )  # fmt: skip
            assert replay.steps_to_final(rows[[index]]) == len(episode) - step
            kept[int(obs[0])].append(obs[1])
    for source in sources:  # the newest, without a gap, and as many as there is room for beside the final observations
        numbers = [row["obs"][1] for episode in source.episodes for row in episode]
        mine = sorted({*kept[source.env_id]})
        assert mine == numbers[len(numbers) - len(mine) :]
        finals = sum(bool(episode) and episode[-1]["obs"][1] in mine for episode in source.episodes)
        assert len(mine) == len(numbers) or len(mine) + finals >= replay.ring_length - 1
        for row in rows[rows % replay.num_envs == source.env_id]:
            episode, step = places[tuple(replay.obs[row].tolist())]
            before = sum(one["obs"][1] in mine for one in episode[:step])
            assert replay.steps_kept_before(np.array([row])) == before


def test_n_steps_stop_at_an_end_and_only_a_termination_has_no_value() -> None:
    replay = Replay(20, OBSERVATIONS, ACTIONS)
    obs = np.arange(12, dtype=np.float32).reshape(6, 2)
    flags = np.array([0, 0, 1, 0, 0, 0], bool), np.array([0, 0, 0, 0, 1, 0], bool)
    finals = np.array([[90, 90], [91, 91], [92, 92]], np.float32)
    replay.extend([Trajectory(0, obs, np.arange(6), np.float32([1, 2, 4, 8, 16, 32]), *flags, finals)])
    batch = replay.transitions(stored(replay), 0.5, n_step=3)
    np.testing.assert_array_equal(batch.reward, [1 + 1 + 1, 2 + 2, 4, 8 + 8, 16, 32])
    np.testing.assert_array_equal(batch.discount, [0, 0, 0, 0.25, 0.5, 0.5])
    np.testing.assert_array_equal(batch.next_obs[:, 0], [90, 90, 90, 91, 91, 92])


def test_uniform_samples_are_uniform() -> None:
    replay, _ = filled(40, [9, 8, 30], num_envs=2)
    drawn = replay.sample(60_000, np.random.default_rng(0))
    rows, counts = np.unique(drawn, return_counts=True)
    np.testing.assert_array_equal(rows, stored(replay))
    np.testing.assert_allclose(counts, 60_000 / len(rows), rtol=0.12)


def test_an_empty_buffer_has_nothing_to_sample() -> None:
    with pytest.raises(ValueError, match="empty"):
        Replay(10, OBSERVATIONS, ACTIONS).sample(1, np.random.default_rng())


def test_a_saved_replay_buffer_continues_equal(tmp_path) -> None:
    replay, sources = filled(30, [4, 1, 3], num_envs=2)
    for again in range(3):
        save_state(tmp_path / "replay", replay.state())
        other = Replay(30, OBSERVATIONS, ACTIONS)
        other.load_state(load_state(tmp_path / "replay"))
        more = [source.trajectory(5) for source in sources]
        for one in (replay, other):
            one.extend(more)
        check(other, sources)
        assert {name: np.asarray(part).tobytes() for name, part in other.state().items()} == {
            name: np.asarray(part).tobytes() for name, part in replay.state().items()
        }
        drawn = [one.sample(50, np.random.default_rng(again)) for one in (replay, other)]
        np.testing.assert_array_equal(*drawn)


def test_a_state_holds_no_copies() -> None:
    replay, _ = filled(1000, [10], num_envs=4)
    state = replay.state()
    assert np.shares_memory(state["obs"], replay.obs)
    assert state["obs"].flags.c_contiguous
    assert len(state["obs"]) < 100


def test_the_state_of_another_buffer_is_refused() -> None:
    replay, _ = filled(30, [4], num_envs=2)
    other = Replay(40, spaces.Box(0, 1, (3,)), ACTIONS)
    with pytest.raises(ValueError, match="obs of the replay buffer"):
        other.load_state(replay.state())
    assert len(other) == 0


def test_a_buffer_that_does_not_fit_into_memory_is_refused_before_it_is_allocated() -> None:
    with pytest.raises(ValueError, match=r"buffer_size=1,000,000,000,000 takes .* GB .* would fit"):
        Replay(10**12, OBSERVATIONS, ACTIONS, num_envs=1)
    unused = Replay(10**12, OBSERVATIONS, ACTIONS)
    with pytest.raises(ValueError, match="would fit"):
        unused.extend([Source(0, np.random.default_rng()).trajectory(1)])


def test_a_full_buffer_is_emptied_and_loaded_in_the_memory_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    replay, _ = filled(30, [4])
    monkeypatch.setattr("OffPolicy.rings.free_memory", lambda: 10)
    state = replay.state()
    replay.clear()
    replay.load_state(state)
    assert len(replay) == 4


def test_a_million_transitions_take_hardly_more_than_one_observation_each() -> None:
    space = spaces.Dict(
        {
            "observation": spaces.Box(-np.inf, np.inf, (25,), np.float64),
            "achieved_goal": spaces.Box(-np.inf, np.inf, (3,), np.float64),
            "desired_goal": spaces.Box(-np.inf, np.inf, (3,), np.float64),
        }
    )
    replay = Replay(10**6, space, spaces.Box(-1, 1, (4,)), num_envs=1)
    assert replay.obs.nbytes == 10**6 * 31 * 4
    assert replay.nbytes <= 1.1 * (replay.obs.nbytes + replay.action.nbytes + replay.reward.nbytes)


def test_parts_of_dict_observations_are_kept_by_name() -> None:
    space = spaces.Dict(a=spaces.Box(0, 255, (2, 2), np.uint8), b=spaces.Box(-1, 1, (3,), np.float64))
    replay = Replay(10, space, ACTIONS)
    obs = np.zeros(4, np.dtype([("a", "u1", (2, 2)), ("b", "f8", (3,))], align=True))
    obs["a"], obs["b"] = np.arange(16).reshape(4, 2, 2), np.linspace(0, 1, 12).reshape(4, 3)
    no = np.zeros(3, bool)
    replay.extend([Trajectory(0, obs[:3], np.arange(3), np.ones(3, np.float32), no, no, obs[3:])])
    batch = replay.transitions(stored(replay), 0.9)
    np.testing.assert_array_equal(batch.obs["a"], obs["a"][:3])
    np.testing.assert_array_equal(batch.next_obs["b"], obs["b"][1:].astype(np.float32))


def test_replay_with_an_unknown_environment_names_it() -> None:
    replay, _ = filled(30, [2], num_envs=2)
    with pytest.raises(ValueError, match=r"environment 2 is not one of the 2 .* call take_share"):
        replay.extend([Source(2, np.random.default_rng()).trajectory(1)])


def test_a_buffer_without_room_for_its_environments_is_refused() -> None:
    with pytest.raises(ValueError, match="no room for 8 environments"):
        Replay(15, OBSERVATIONS, ACTIONS, num_envs=8)


@pytest.mark.parametrize("name", ["obs", "action", "reward", "terminated", "truncated", "final_obs"])
def test_a_trajectory_with_an_array_of_another_shape_is_refused_before_anything_changes(name: str) -> None:
    replay, sources = filled(20, [3])
    source = sources[0]
    right = source.trajectory(4, ends=0.5)
    shape = getattr(right, name).shape
    wrong = np.zeros((*shape, 1), getattr(right, name).dtype)  # assigning it would broadcast, or fail halfway
    before = bytes_of(replay)
    with pytest.raises(ValueError, match=rf"{name} of the trajectory of environment 0 is \({shape[0]}, .*not"):
        replay.extend([replace(right, **{name: wrong})])
    assert bytes_of(replay) == before
    replay.extend([right])
    check(replay, sources)


def bytes_of(replay: Replay) -> dict[str, bytes]:
    return {name: np.asarray(value).tobytes() for name, value in replay.state().items()}
