"""A run over several ranks: the same experience, the same weights on all, one checkpoint."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from AsyncPPO import AsyncPPO, AsyncTrainer
from AsyncPPO.callbacks import Callback, Checkpoints, checkpoints_in
from parallel_rl.utils import ALONE, RankError, Ranks, Trajectory
from PPO import PPO
from tests.envs import Nested
from tests.ranks import errors_on_ranks, on_elastic_ranks, on_ranks
from tests.toy_agent import ToyAgent

ENVS, BATCH = 5, 100


def trainer_of(ranks: Ranks, steps: int = 3 * BATCH, env: Any = "CartPole-v1", **options: Any) -> AsyncPPO:
    settings = {"batch_size": BATCH, "mini_batch_size": 40, "k_epochs": 2} | options.pop("settings", {})
    one = env() if callable(env) else env if isinstance(env, str) else "CartPole-v1"
    agent = PPO.for_env(one, **{"seed": 7} | settings)
    options = {"seed": 11, "progress": False, "backend": "inline"} | options
    return AsyncPPO(env, agent, options.pop("num_envs", ENVS), steps, ranks=ranks, **options)


def digest(trainer: AsyncPPO) -> bytes:
    agent = trainer.ppo
    tensors = [tensor for module, _ in agent.modules() for tensor in module.state_dict().values()]
    history = [[value for name, value in row.items() if name != "seconds"] for row in trainer.history]
    numbers = np.concatenate([*(tensor.double().flatten() for tensor in tensors), np.ravel(history)])
    return numbers.tobytes() + np.float64(agent.rng.random()).tobytes()


def run(ranks: Ranks, **options: Any) -> bytes:
    with trainer_of(ranks, **options) as trainer:
        trainer.run()
        return digest(trainer)


WAYS: dict[str, dict[str, Any]] = {
    "replicas": {},
    "central": {"acting": "central"},
    "continuous": {"env": "Pendulum-v1", "settings": {"normalize_obs": True, "normalize_advantage": "batch"}},
    "recurrent": {"settings": {"core": "gru", "core_size": 8}},
}


def agent_settings(way: str) -> dict[str, Any]:
    return WAYS[way].get("settings", {})


def made(ranks: Ranks, way: str, **settings: Any) -> AsyncPPO:
    options = dict(WAYS[way])
    if "env" in options:
        agent = PPO.for_env(options["env"], seed=7, batch_size=BATCH, **(agent_settings(way) | settings))
        return AsyncPPO(options["env"], agent, ENVS, BATCH, ranks=ranks, seed=11, progress=False, backend="inline")
    options["settings"] = agent_settings(way) | settings
    return trainer_of(ranks, BATCH, **options)


@pytest.mark.covering
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("way", WAYS)
def test_first_batch_and_its_gradient_do_not_depend_on_the_number_of_ranks(way: str, count: int) -> None:
    def body(ranks: Ranks) -> tuple[np.ndarray, dict[str, float]]:
        with made(ranks, way, mini_batch_size=BATCH, k_epochs=1) as trainer:
            history = trainer.run()
            return trainer.ppo.optimizers[0].gradient.numpy().copy(), history[-1]

    gradient, row = body(ALONE)
    for other, metrics in on_ranks(count, body):
        assert np.linalg.norm(other - gradient) <= 1e-4 * np.linalg.norm(gradient)
        for name in ("steps", "episodes", "mean_return", "mean_length", "entropy", "value_loss", "explained_variance"):
            assert metrics[name] == pytest.approx(row[name], rel=1e-4, abs=1e-6, nan_ok=True), name


@pytest.mark.parametrize("options", [{}, {"acting": "central"}], ids=["replicas", "central"])
def test_ranks_stay_alike_and_a_run_is_repeatable(options: dict[str, Any]) -> None:
    first, second = (on_ranks(2, lambda ranks: run(ranks, **options)) for _ in range(2))
    assert len({*first, *second}) == 1


@pytest.mark.parametrize("options", [{}, {"acting": "central"}], ids=["replicas", "central"])
def test_a_run_of_one_rank_is_a_run_without_ranks(options: dict[str, Any]) -> None:
    alone = run(ALONE, **options)
    assert on_ranks(1, lambda ranks: run(ranks, **options)) == [alone]
    (elastic,) = on_elastic_ranks(1, lambda ranks: run(ranks, **options)).values()
    assert elastic.result == alone


class SaveOnce(Callback):
    """Saves a checkpoint after the first update."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_update(self, trainer: AsyncTrainer, metrics: Any) -> None:
        if len(trainer.history) == 1:
            trainer.save_checkpoint(self.path)


NOISY = {"use_sde": True, "sde_sample_freq": 7, "use_RND": True, "rnd_warmup": 0, "companions": ("icm",)}
"""Settings with state for each environment: the noise of gSDE, and the discounted sums of intrinsic rewards."""


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"env": "Pendulum-v1", "settings": NOISY},
        pytest.param({"settings": {"core": "gru", "core_size": 8}}, marks=pytest.mark.slow),
    ],
    ids=["replicas", "gSDE, RND and ICM", "recurrent"],
)
def test_resume_with_as_many_ranks_is_exact(options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "one.state"

    def whole(ranks: Ranks) -> bytes:
        with trainer_of(ranks, callbacks=[SaveOnce(path)], **copy.deepcopy(options)) as trainer:
            trainer.run()
            return trainer.ppo.optimizers[0].vector.numpy().tobytes()

    expected = on_ranks(2, whole)

    def resumed(ranks: Ranks) -> tuple[bytes, bytes]:
        with trainer_of(ranks, **copy.deepcopy(options)) as trainer:
            trainer.load_checkpoint(path)
            trainer.run()
            return digest(trainer), trainer.ppo.optimizers[0].vector.numpy().tobytes()

    ends = on_ranks(2, resumed)
    assert len({*ends}) == 1

    assert {weights for _, weights in ends} == {*expected}


@pytest.mark.parametrize("count", [1, 3])
def test_resume_with_another_number_of_ranks_continues_every_episode(count: int, tmp_path: Path) -> None:
    path = tmp_path / "one.state"
    on_ranks(2, lambda ranks: run(ranks, callbacks=[SaveOnce(path)]))

    def state(ranks: Ranks) -> tuple[dict, dict]:
        with trainer_of(ranks) as trainer:
            trainer.load_checkpoint(path)
            assert trainer.steps_done == BATCH
            return trainer.collector.state()

    def parts(count: int) -> list[Any]:
        states = [collector for collector, _ in (on_ranks(count, state) if count > 1 else [state(ALONE)])]
        return [
            np.concatenate([each["env"]["obs"] for each in states]),
            np.concatenate([each["episodes"]["returns"] for each in states]),
            [one for each in states for one in each["env"]["environments"]],
        ]

    for mine, theirs in zip(parts(count), parts(2), strict=True):
        np.testing.assert_equal(mine, theirs)


@pytest.mark.parametrize("seed", [11, [*range(ENVS + 1)]], ids=["a seed", "listed seeds"])
def test_resume_with_another_number_of_environments_has_the_seeds_of_one_rank(seed: Any, tmp_path: Path) -> None:
    path = tmp_path / "one.state"
    on_ranks(2, lambda ranks: run(ranks, callbacks=[SaveOnce(path)]))

    def first_obs(ranks: Ranks, resumed: bool) -> np.ndarray:
        with trainer_of(ranks, num_envs=ENVS + 1, seed=seed) as trainer:
            if resumed:
                trainer.load_checkpoint(path, any_num_envs=True)
            return trainer.env.reset()[0]

    begun, resumed = (np.concatenate(on_ranks(2, partial(first_obs, resumed=resumed))) for resumed in (False, True))
    np.testing.assert_array_equal(begun, first_obs(ALONE, resumed=False))
    np.testing.assert_array_equal(resumed, first_obs(ALONE, resumed=True))
    assert np.array_equal(begun, resumed) == isinstance(seed, list)


@pytest.mark.parametrize("env", ["CartPole-v1", Nested])
def test_checkpoint_of_a_batch_that_is_not_full_holds_the_rows_of_all_ranks(env: Any, tmp_path: Path) -> None:
    def save(ranks: Ranks) -> list[Trajectory]:
        with trainer_of(ranks, steps=BATCH + 40, env=env) as trainer:
            trainer.run()
            trainer.save_checkpoint(tmp_path / f"{ranks.world_size}.state")
            return trainer.buffer.take()

    def load(ranks: Ranks, saved: int) -> list[Trajectory]:
        with trainer_of(ranks, env=env) as trainer:
            trainer.load_checkpoint(tmp_path / f"{saved}.state")
            return trainer.buffer.take()

    def rows(parts: list[list[Trajectory]]) -> list[Any]:
        return [trajectory.obs.tolist() for part in parts for trajectory in part]

    before = {1: rows([save(ALONE)]), 2: rows(on_ranks(2, save))}
    assert [len(own) for own in before.values()] == [ENVS] * 2
    for saved, expected in before.items():
        np.testing.assert_equal(rows([load(ALONE, saved)]), expected)
        for count in (2, 3):
            np.testing.assert_equal(rows(on_ranks(count, partial(load, saved=saved))), expected)


@pytest.mark.covering
@pytest.mark.parametrize("acting", ["replicas", "central"])
@pytest.mark.parametrize("before", [1, 2])
def test_run_that_ended_within_a_batch_continues_on_ranks(acting: str, before: int, tmp_path: Path) -> None:
    path = tmp_path / "half.state"

    def whole(ranks: Ranks) -> list[Any]:
        with trainer_of(ranks, 3 * BATCH, acting=acting) as trainer:
            trainer.run()
            return metrics_of(trainer)

    def first(ranks: Ranks) -> list[Any]:
        with trainer_of(ranks, 3 * BATCH // 2, acting=acting) as trainer:
            trainer.run()
            trainer.save_checkpoint(path)
            return metrics_of(trainer)

    def second(ranks: Ranks) -> list[Any]:
        with trainer_of(ranks, 3 * BATCH // 2, acting=acting) as trainer:
            trainer.load_checkpoint(path)
            trainer.run()
            return metrics_of(trainer)

    rows = (first(ALONE) if before == 1 else on_ranks(2, first)[0]) + on_ranks(2, second)[0]
    assert [row["steps"] for row in rows] == [BATCH, 2 * BATCH, 3 * BATCH]
    assert before == 1 or rows == on_ranks(2, whole)[0]


def metrics_of(trainer: AsyncPPO) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in trainer.history]


def test_stop_of_one_rank_ends_all_after_the_same_update() -> None:
    class Stop(Callback):
        def on_update(self, trainer: AsyncTrainer, metrics: Any) -> None:
            if trainer.steps_done == 2 * BATCH and trainer.ranks.rank == 1:
                trainer.stop("as asked")

    def body(ranks: Ranks) -> tuple[int, str | None]:
        with trainer_of(ranks, steps=10 * BATCH, callbacks=[Stop()]) as trainer:
            trainer.run()
            return trainer.steps_done, trainer.stopped

    assert on_ranks(3, body) == [(2 * BATCH, "as asked")] * 3


def test_stops_of_several_ranks_skip_slow_work_on_all_if_one_says_so() -> None:
    class Stop(Callback):
        def on_update(self, trainer: AsyncTrainer, metrics: Any) -> None:
            trainer.stop(f"by rank {trainer.ranks.rank}", skip_slow_work=trainer.ranks.rank == 1)

    def body(ranks: Ranks) -> tuple[str | None, bool]:
        with trainer_of(ranks, callbacks=[Stop()]) as trainer:
            trainer.run()
            return trainer.stopped, trainer.skip_slow_work

    assert on_ranks(3, body) == [("by rank 0", True)] * 3


def test_ranks_whose_weights_differ_take_over_those_of_the_first() -> None:
    class Rounds(Callback):
        def on_update(self, trainer: AsyncTrainer, metrics: Any) -> None:
            if trainer.ranks.rank == 1 and len(trainer.history) == 1:
                trainer.agent.optimizers[0].vector.mul_(1 + 1e-6)

    with pytest.warns(RuntimeWarning, match="the weights of the ranks differ: all take over those of the first"):
        assert len({*on_ranks(3, lambda ranks: run(ranks, callbacks=[Rounds()]))}) == 1


def test_agents_without_a_seed_begin_with_the_weights_of_the_first() -> None:
    def body(ranks: Ranks) -> bytes:
        with trainer_of(ranks, BATCH, settings={"seed": None}) as trainer:
            trainer.run()
            return trainer.agent.optimizers[0].vector.numpy().tobytes()

    with pytest.warns(RuntimeWarning, match="after 0 steps the weights of the ranks differ") as warned:
        assert len({*on_ranks(3, body)}) == 1
    assert len(warned) == 1, "they are the same from then on"


def test_only_the_first_rank_writes_checkpoints(tmp_path: Path) -> None:
    def body(ranks: Ranks) -> None:
        directory = tmp_path / str(ranks.rank)
        with trainer_of(ranks, callbacks=[Checkpoints(directory, 1e-9, keep=2)]) as trainer:
            trainer.run()

    on_ranks(2, body)
    assert [path.name for path in tmp_path.iterdir()] == ["0"]
    assert [path.stem for path in checkpoints_in(tmp_path / "0")] == [f"{2 * BATCH:012d}", f"{3 * BATCH:012d}"]


class Breaks(gym.Wrapper):
    """CartPole that raises after some steps."""

    def step(self, action: Any) -> Any:
        self.steps = getattr(self, "steps", 0) + 1
        if self.steps == 30:
            raise ValueError("the pole broke")
        return self.env.step(action)


def test_an_error_of_an_environment_is_told_on_all_ranks() -> None:
    def body(ranks: Ranks) -> None:
        envs = [lambda: gym.make("CartPole-v1") for _ in range(ENVS - 1)] + [lambda: Breaks(gym.make("CartPole-v1"))]
        with trainer_of(ranks, env=envs) as trainer:
            trainer.run()

    errors = errors_on_ranks(2, body)
    assert isinstance(errors[0], RankError)
    assert "rank 1 on " in str(errors[0])
    assert "the pole broke" in str(errors[0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "mask"}, "streaming"),
        ({"lag": 1}, "lag=0"),
        ({"seed": None}, "need a seed"),
    ],
)
def test_what_several_ranks_cannot_do_is_an_error(options: dict[str, Any], words: str) -> None:
    for error in errors_on_ranks(2, lambda ranks: run(ranks, **options)):
        assert isinstance(error, ValueError)
        assert words in str(error)


def test_an_agent_that_does_not_learn_on_ranks_or_too_few_environments_are_an_error() -> None:
    def toy(ranks: Ranks) -> None:
        AsyncTrainer("CartPole-v1", ToyAgent(states=2, actions=2), 4, 100, ranks=ranks, seed=0)

    def few(ranks: Ranks) -> None:
        AsyncPPO("CartPole-v1", PPO.for_env("CartPole-v1"), 1, ranks=ranks, seed=0)

    assert "ToyAgent does not learn on several ranks" in str(errors_on_ranks(2, toy)[0])
    assert "2 ranks need at least as many environments, not 1" in str(errors_on_ranks(2, few)[0])


def test_noise_that_is_given_is_the_noise_of_actions() -> None:
    ppo = PPO.for_env("Pendulum-v1", seed=0)
    obs, noise = np.zeros((3, 3), np.float32), np.zeros((3, 1), np.float32)
    np.testing.assert_array_equal(ppo.act(obs, noise=noise)[0], ppo.get_action(obs, deterministic=True))
