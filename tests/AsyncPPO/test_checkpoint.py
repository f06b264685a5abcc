"""Checkpoints: a resumed run equals one that never stopped."""

from collections.abc import Iterable, Sequence
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.wrappers import NormalizeReward, RecordEpisodeStatistics, TimeLimit

from AsyncPPO import AsyncPPO, AsyncTrainer, make_env
from AsyncPPO.callbacks import Callback, CSVLog
from AsyncPPO.callbacks.logs import read_table
from AsyncPPO.episodes import Episode, Evaluation
from parallel_rl.utils import History, load_state, save_state
from PPO import PPO
from tests.covering import rest_slow
from tests.envs import Counter, Nested, Pixels

FIXTURES = Path(__file__).parents[1] / "fixtures" / "checkpoints"


def trainer(
    env: Any, steps: int = 1000, *, num_envs: int = 5, seed: int = 3, loop: dict[str, Any] | None = None, **ppo: Any
) -> AsyncPPO:
    settings: dict[str, Any] = {
        "use_RND": True, "rnd_warmup": 100, "normalize_obs": True, "k_epochs": 2, "hidden_sizes": (16,), "core_size": 8,
        "batch_size": 128, "mini_batch_size": 64,
    } | ppo  # fmt: skip
    agent = PPO.for_env(env if isinstance(env, str) else env(), seed=1, **settings)
    return AsyncPPO(env, agent, num_envs, steps, seed=seed, progress=False, **{"backend": "inline", **(loop or {})})


def half(run: AsyncPPO, path: Path) -> History:
    """Take half of the steps, save, and return the metrics so far."""
    with run:
        for row in run.updates():
            if row["steps"] >= run.steps / 2:
                break
        run.save_checkpoint(path)
        return run.history


@pytest.fixture(scope="module")
def half_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the checkpoint of half a run."""
    path = tmp_path_factory.mktemp("half") / "half.state"
    half(trainer("CartPole-v1"), path)
    return path


def metrics_of(history: Iterable[dict[str, float]]) -> list[dict[str, float]]:
    return [
        {name: value for name, value in row.items() if name != "seconds" and not np.isnan(value)} for row in history
    ]


def check_exact(tmp_path: Path, env: Any, loop: dict[str, Any], backend: str = "inline", **ppo: Any) -> None:
    ppo = {"steps": 390} | ppo
    with trainer(env, loop=loop, **ppo) as run:
        expected = metrics_of(run.run())
        weights = run.ppo.policy.state_dict()
    before = half(trainer(env, loop=loop, **ppo), tmp_path / "half.state")
    with trainer(env, loop=loop | {"backend": backend}, **ppo) as run:
        run.load_checkpoint(tmp_path / "half.state")
        run.history = History(before)
        assert metrics_of(run.run()) == expected
        for name, tensor in run.ppo.policy.state_dict().items():
            assert (tensor == weights[name]).all(), name
    assert len(expected) > len(before) > 0


@pytest.mark.covering
@pytest.mark.parametrize(
    ("env", "acting"),
    [
        ("CartPole-v1", "auto"),
        ("CartPole-v1", "central"),
        ("Pendulum-v1", "auto"),
        ("Acrobot-v1", "central"),
        ("MountainCar-v0", "auto"),
        ("FrozenLake-v1", "central"),
        ("Taxi-v4", "auto"),
        (Nested, "auto"),
        (Nested, "central"),
        (Pixels, "central"),
    ],
)
def test_resumed_run_equals_uninterrupted_run_to_the_bit(tmp_path: Path, env: Any, acting: str) -> None:
    check_exact(tmp_path, env, {"acting": acting})


@pytest.mark.parametrize("env", rest_slow("LunarLander-v3", "CartPole-v1"))
def test_resumed_mask_mode_is_exact_if_the_environment_has_one_random_stream(tmp_path: Path, env: str) -> None:
    check_exact(tmp_path, env, {"mode": "mask"}, steps=1500)


@pytest.mark.parametrize("core", rest_slow("lstm", "gru"))
def test_resumed_recurrent_policy_is_exact(tmp_path: Path, core: str) -> None:
    check_exact(tmp_path, "CartPole-v1", {}, core=core, k_epochs=1)


def test_resume_on_another_backend_with_annealing_is_exact(tmp_path: Path) -> None:
    annealed = {"anneal_lr": True, "anneal_clip": True, "anneal_entropy": True, "entropy_coef": 0.01}
    check_exact(tmp_path, "CartPole-v1", {}, backend="process", **annealed, recompute_advantage=True)


def test_resume_restores_wrappers(tmp_path: Path) -> None:
    def wrapped() -> Any:
        return NormalizeReward(RecordEpisodeStatistics(TimeLimit(make_env(lambda: Nested()), 2)))  # noqa: PLW0108

    check_exact(tmp_path, wrapped, {})


def test_resume_in_the_middle_of_a_batch_is_exact(tmp_path: Path) -> None:
    with trainer("CartPole-v1", 660) as run:
        expected = metrics_of(run.run())
    with trainer("CartPole-v1", 330) as run:
        first = run.run()
        assert len(run.buffer) > 0
        run.save_checkpoint(tmp_path / "a.state")
    with trainer("CartPole-v1", 330) as run:
        run.load_checkpoint(tmp_path / "a.state")
        run.history = History(first)
        assert metrics_of(run.run()) == expected


class SavesBeforeTheRow(Callback):
    """Saves in `on_rollout`, when an update is done but `on_update` has not been called yet."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_rollout(self, trainer: AsyncTrainer, steps: int, episodes: Sequence[Episode]) -> None:
        if trainer.row_is_due and not self.path.exists():
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("acting", ["central", "auto"])
def test_a_run_saved_in_on_rollout_resumes_with_the_same_rows(tmp_path: Path, acting: str) -> None:
    loop = {"acting": acting}
    saved, metrics = [SavesBeforeTheRow(tmp_path / "a.state")], CSVLog(tmp_path)
    with trainer("CartPole-v1", 660, loop=loop | {"callbacks": [*saved, metrics]}) as run:
        expected = metrics_of(run.run())
    with trainer("CartPole-v1", 660, loop=loop | {"callbacks": [CSVLog(tmp_path)]}) as run:
        run.load_checkpoint(tmp_path / "a.state")
        assert metrics_of(run.run()) == expected
    assert metrics_of(read_table(metrics.metrics.path)) == expected
    assert len(expected) > 3


def test_a_checkpoint_that_is_loaded_after_later_steps_drops_their_rows_and_evaluations(tmp_path: Path) -> None:
    with trainer("CartPole-v1", 330) as run:
        run.run()
        run.add_evaluation(Evaluation.of(run.steps_done, [Episode(1.0, 1)]))
        run.save_checkpoint(tmp_path / "a.state")
        run.run()
        run.add_evaluation(Evaluation.of(run.steps_done, [Episode(2.0, 1)]))
        expected = metrics_of(run.history)
        run.load_checkpoint(tmp_path / "a.state")
        assert [evaluation.mean for evaluation in run.evaluations] == [1.0]
        assert metrics_of(run.run()) == expected


def test_resume_with_environments_that_cannot_be_saved_starts_new_episodes(tmp_path: Path) -> None:
    half(trainer("LunarLander-v3"), tmp_path / "half.state")
    runs = []
    for _ in range(2):
        with trainer("LunarLander-v3") as run:
            run.load_checkpoint(tmp_path / "half.state")
            runs.append(metrics_of(run.run()))
            assert run.steps_done >= 1000
    assert runs[0] == runs[1]


@pytest.mark.covering
@pytest.mark.parametrize(
    ("num_envs", "loop", "settings"),
    [
        (2, {"acting": "central"}, {"core": "gru"}),
        (9, {"acting": "central"}, {"core": "gru"}),
        (9, {"acting": "replicas"}, {}),
        (2, {"acting": "replicas", "backend": "process", "num_workers": 2}, {}),
        (2, {"mode": "mask"}, {}),
        (9, {"mode": "mask"}, {}),
    ],
)
def test_resume_with_another_number_of_environments_is_deterministic(
    tmp_path: Path, num_envs: int, loop: dict[str, Any], settings: dict[str, Any]
) -> None:
    with trainer("CartPole-v1", 300, loop=loop, **settings) as run:
        first = run.run()
        run.save_checkpoint(tmp_path / "a.state")
    runs = []
    for _ in range(2):
        with trainer("CartPole-v1", 300, num_envs=num_envs, loop=loop, **settings) as run:
            with pytest.raises(ValueError, match=f"num_envs is 5 there and {num_envs} here"):
                run.load_checkpoint(tmp_path / "a.state")
            run.load_checkpoint(tmp_path / "a.state", any_num_envs=True)
            assert len(run.buffer) == 0
            run.history = History(first)
            runs.append(metrics_of(run.run()))
            run.save_checkpoint(tmp_path / "b.state")
    assert runs[0] == runs[1]
    assert len(runs[0]) > len(first)
    assert all(np.isfinite(row["rnd_loss"]) for row in runs[0])
    with trainer("CartPole-v1", 300, num_envs=num_envs, loop=loop, **settings) as run:
        run.load_checkpoint(tmp_path / "b.state")


def test_resume_with_any_num_envs_drops_what_belongs_to_other_environments(half_state: Path) -> None:
    with trainer("CartPole-v1", num_envs=3) as run:
        run.collector.collect(1)
        assert len(run.buffer) > 0
        run.load_checkpoint(half_state, any_num_envs=True)
        assert len(run.buffer) == 0
        assert len(run.ppo.companions[0].return_stats.discounted) == 0


def test_resume_with_any_num_envs_seeds_new_environments_and_keeps_listed_seeds(half_state: Path) -> None:
    first = []
    for seed in (3, [7, 8, 9]):
        with trainer("CartPole-v1", num_envs=3, seed=seed) as run:  # type: ignore[arg-type]
            begun = run.env.reset()[0]
            run.load_checkpoint(half_state, any_num_envs=True)
            first.append((begun, run.env.reset()[0]))
    assert (first[0][0] != first[0][1]).all()
    assert not np.array_equal(first[0][1], first[1][1])
    with trainer("CartPole-v1", num_envs=3, seed=[7, 8, 9]) as run:  # type: ignore[arg-type]
        run.load_checkpoint(half_state, any_num_envs=True)
        np.testing.assert_array_equal(run.env.reset()[0], first[1][0])


def test_resume_restores_reset_options(tmp_path: Path) -> None:
    options = {"low": 0.01, "high": 0.02}
    run = trainer("CartPole-v1")
    run.env.reset_options = options
    half(run, tmp_path / "half.state")
    for any_num_envs, num_envs in ((False, 5), (True, 4)):
        with trainer("CartPole-v1", num_envs=num_envs) as run:
            run.load_checkpoint(tmp_path / "half.state", any_num_envs=any_num_envs)
            assert run.env.reset_options == options
            assert (run.env.reset()[0] >= 0.01).all()


class World:
    """An object that an environment holds."""

    def __init__(self) -> None:
        self.at = 0


class Phase(Enum):
    DAY = 0
    NIGHT = 1


class Made(Counter):
    """Creates its objects when it is reset; stores its last action and the time of day."""

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict]:
        self.world, self.phase = World(), Phase.DAY
        return super().reset(**kwargs)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.world.at += 2 * int(action) - 1
        self.phase = Phase(1 - self.phase.value)
        obs, reward, terminated, truncated, info = super().step(action)
        return obs + self.phase.value, reward + self.world.at, terminated, truncated, info


class Twice(Counter):
    """Has its random generator under two names, and uses both."""

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict]:
        answer = super().reset(**kwargs)
        self.dice = self.np_random
        return answer

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        obs, reward, terminated, truncated, info = super().step(action)
        return obs + np.float32(self.dice.random()), reward, terminated, truncated, info


def test_resume_restores_objects_made_in_reset(tmp_path: Path) -> None:
    check_exact(tmp_path, partial(Made, 50), {})
    assert (Phase.DAY.value, Phase.NIGHT.value) == (0, 1)


@pytest.mark.covering
@pytest.mark.parametrize("acting", ["central", "replicas"])
@pytest.mark.parametrize("env", [partial(Twice, 50), "LunarLander-v3"])
def test_rows_in_the_buffer_are_truncated_if_new_episodes_start(tmp_path: Path, env: Any, acting: str) -> None:
    with trainer(env, 200, loop={"acting": acting}, use_RND=False) as run:
        run.run()
        assert len(run.buffer) > 0
        run.save_checkpoint(tmp_path / "a.state")
    with trainer(env, 200, loop={"acting": acting}, use_RND=False) as run:
        run.load_checkpoint(tmp_path / "a.state")
        assert run.env.finished.all()
        waiting = len(run.buffer) // run.num_envs
        seen = []
        learn, run.ppo.learn = run.ppo.learn, lambda *args: (seen.append(run.ppo.memory.batch()), learn(*args))[1]  # type: ignore[method-assign, misc, func-returns-value]
        run.run()
    per_env = len(seen[0].reward) // run.num_envs
    lasts = np.arange(run.num_envs) * per_env + waiting - 1
    assert seen[0].ends[lasts].all(), "two episodes run together"
    assert not seen[0].terminated[lasts].all()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"env": "Acrobot-v1"}, "the environment is 'CartPole-v1' there and 'Acrobot-v1' here"),
        ({"num_envs": 4}, "num_envs is 5 there and 4 here"),
        ({"loop": {"mode": "mask"}}, "mode is 'streaming' there and 'mask' here"),
        ({"hidden_sizes": (8,)}, r"hidden_sizes is \[16\] there and \[8\] here"),
        ({"use_RND": False}, "use_RND is True there and False here"),
        ({"core": "gru"}, "core is 'none' there and 'gru' here"),
        ({"gamma": 0.5, "lr": 0.01}, r"lr is 0\.001 there and 0\.01 here; gamma is 0\.995 there and 0\.5 here"),
        ({"normalize_advantage": "none"}, "normalize_advantage is 'minibatch' there and 'none' here"),
    ],
)
def test_checkpoint_of_another_run_is_refused_with_the_differences(
    half_state: Path, other: dict[str, Any], message: str
) -> None:
    with trainer(**{"env": "CartPole-v1", **other}) as run:
        before = {name: tensor.clone() for name, tensor in run.ppo.policy.state_dict().items()}
        with pytest.raises(ValueError, match=message):
            run.load_checkpoint(half_state)
        assert all((tensor == before[name]).all() for name, tensor in run.ppo.policy.state_dict().items())


def test_state_of_an_agent_in_a_custom_loop_is_complete(tmp_path: Path) -> None:
    settings = {"seed": 0, "batch_size": 64, "mini_batch_size": 32, "use_RND": True, "rnd_warmup": 32}
    one, other = (PPO(False, 3, 2, **settings) for _ in range(2))  # type: ignore[arg-type]
    learn_from(one, np.random.default_rng(0))
    save_state(tmp_path / "one.state", one.state())
    other.load_state(load_state(tmp_path / "one.state"))
    for name, agent in {"one": one, "other": other}.items():
        learn_from(agent, np.random.default_rng(1))
        save_state(tmp_path / f"{name}.state", agent.state())
    assert (tmp_path / "one.state").read_bytes() == (tmp_path / "other.state").read_bytes()
    with pytest.raises(
        ValueError, match=r"Policy_weights.pth, RND_weights.pth, but this agent's networks are Policy_weights.pth"
    ):
        PPO(False, 3, 2).load_state(one.state())


def learn_from(ppo: PPO, rng: np.random.Generator) -> None:
    from parallel_rl.utils import Trajectory

    obs = rng.normal(size=(65, 3)).astype(np.float32)
    action, extras = ppo.act(obs[:64])
    over = np.zeros(64, bool)
    ppo.memory.append(Trajectory(0, obs[:64], action, rng.normal(size=64), over, over, obs[64:], extras))
    assert ppo.learn()


def test_checkpoint_is_one_file_of_arrays_and_plain_values(half_state: Path) -> None:
    state = load_state(half_state)
    assert state.keys() == {"made_for", "signature", "progress", "recent", "agent", "buffer", "collector"}
    assert state["agent"].keys() == {
        "networks",
        "intrinsic_returns",
        "optimiser",
        "random",
        "updates",
        "rewarded",
        "stacked",
    }


def test_checkpoint_of_an_older_version_continues_as_that_version_did() -> None:
    """It names `signature`, `agent` and `recurrent` as `settings`, `ppo` and `core`, and has rows in its buffer."""
    settings: dict[str, Any] = {
        "batch_size": 64,
        "mini_batch_size": 32,
        "k_epochs": 1,
        "hidden_sizes": (8,),
        "core": "gru",
    }
    ppo = PPO.for_env("Pendulum-v1", core_size=4, **settings)
    with AsyncPPO("Pendulum-v1", ppo, 3, 200, backend="inline", progress=False) as run:
        run.load_checkpoint(FIXTURES / "with_settings.state")
        assert (run.steps_done, run.ppo.updates, len(run.buffer)) == (201, 3, 3)
        history = run.run()
    assert [row["steps"] for row in history] == [264, 330, 396]
    assert [row["policy_loss"] for row in history] == pytest.approx(
        [-6.7551918618846685e-06, -1.3379888514464255e-05, -9.540355677017942e-05], rel=1e-3, abs=1e-7
    )
    ppo = PPO.for_env("Pendulum-v1", core_size=4, **(settings | {"batch_size": 32}))
    with (
        AsyncPPO("Pendulum-v1", ppo, 3, 200, backend="inline", progress=False) as run,
        pytest.raises(ValueError, match="batch_size is 64 there and 32 here"),
    ):
        run.load_checkpoint(FIXTURES / "with_settings.state")


def test_resume_with_another_learner_and_acting_is_allowed(half_state: Path) -> None:
    with trainer("CartPole-v1", learner="torch", loop={"acting": "central"}) as run:
        run.load_checkpoint(half_state)
        assert run.steps_done >= 500


@pytest.mark.parametrize("acting", ["replicas", "central"])
def test_a_finished_run_continues_with_smaller_batches(acting: str, tmp_path: Path) -> None:
    with trainer("CartPole-v1", 200, batch_size=128, loop={"acting": acting}) as run:
        run.run()
        assert len(run.buffer) == 70
        run.save_checkpoint(tmp_path / "state")
    with trainer("CartPole-v1", 200, batch_size=20, mini_batch_size=10, loop={"acting": acting}) as run:
        run.load_checkpoint(tmp_path / "state", changed=["batch_size", "mini_batch_size"])
        history = run.run()
    assert run.steps_done == 400
    assert len(history) >= 10


FORGERIES: list[tuple[tuple[Any, ...], Any]] = [
    (("made_for",), 5),
    (("signature",), None),
    (("signature", "gamma"), "x"),
    (("progress",), {}),
    (("progress", "steps_done"), "x"),
    (("progress", "steps_done"), 10**400),
    (("progress", "seconds"), 10**400),
    (("progress", "goal"), [1]),
    (("progress", "rows"), {"last": 0, "sums": {"loss": ["x", 1]}}),
    (("recent",), 5),
    (("recent",), [[1.0]]),
    (("recent",), [["x", 1]]),
    (("recent",), [[1.0, -1]]),
    (("agent",), {}),
    (("agent", "updates"), "x"),
    (("agent", "random"), {}),
    (("agent", "networks", "Policy_weights.pth", "actor.0.bias"), np.zeros(3, np.float32)),
    (("buffer",), {}),
    (("buffer", "lengths"), np.full(5, 10**12)),
    (("buffer", "lengths"), np.full(5, -1)),
    (("buffer", "lengths"), np.zeros(4, np.int64)),
    (("buffer", "ends"), np.full(5, 7)),
    (("buffer", "arrays"), {}),
    (("buffer", "arrays", "reward"), np.zeros((5, 1), np.float32)),
    (("buffer", "arrays", "terminated"), None),
    (("collector",), {}),
    (("collector", "env"), None),
    (("collector", "env", "environments"), [1] * 5),
    (("collector", "env", "environments"), [{"random": [], "layers": None}]),
    (("collector", "env", "obs"), np.zeros((5, 3), np.float32)),
    (("collector", "env", "finished"), [False] * 5),
    (("collector", "env", "next_seeds"), ["x"] * 5),
    (("collector", "episodes"), {"returns": np.zeros(3), "lengths": np.zeros(5, np.int64)}),
    (("collector", "recurrent"), np.zeros((5, 3))),
]
"""A place in a checkpoint, and what is put there; its checksum is right."""


@pytest.mark.parametrize(
    "settings", [{"loop": {"acting": "central"}}, {"loop": {"acting": "replicas"}}, {"core": "gru"}]
)
def test_forged_checkpoint_is_refused_by_name_and_changes_nothing(settings: dict[str, Any], tmp_path: Path) -> None:
    settings = {"use_RND": False, "k_epochs": 1, "hidden_sizes": (4,)} | settings
    with trainer("CartPole-v1", 150, **settings) as run:
        run.run()
        assert len(run.buffer) > 0
        run.save_checkpoint(tmp_path / "a.state")
    with trainer("CartPole-v1", 150, **settings) as run, trainer("CartPole-v1", 150, **settings) as untouched:
        for path, value in FORGERIES:
            if path == ("collector", "recurrent") and "core" not in settings:
                continue  # nothing is remembered, and nothing taken over
            state = part = load_state(tmp_path / "a.state")
            for key in path[:-1]:
                part = part[key]
            part[path[-1]] = value
            save_state(tmp_path / "forged.state", state)
            with pytest.raises(ValueError, match=r"forged\.state"):
                run.load_checkpoint(tmp_path / "forged.state")
        assert metrics_of(run.run()) == metrics_of(untouched.run())
