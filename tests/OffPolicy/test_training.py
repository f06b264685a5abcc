"""The agents in `AsyncTrainer`."""

import math
from functools import partial
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch

from AsyncPPO import AsyncTrainer, evaluate
from AsyncPPO.callbacks import Callback, Checkpoints, CSVLog, checkpoints_in, read_table
from AsyncPPO.callbacks.checkpoints import steps_of
from benchmarks.bit_flip import BitFlip
from OffPolicy import DDPG, DQN, SAC, TD3
from parallel_rl.commands.build import make_trainer
from parallel_rl.config import train_config
from parallel_rl.presets import preset
from parallel_rl.utils import load_state, save_state
from tests.OffPolicy.probes import OneState

SMALL: dict[str, Any] = {"hidden_sizes": (16,), "buffer_size": 500, "batch_size": 16, "learning_starts": 40, "utd": 0.5}
CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "dqn": (DQN, "CartPole-v1", {"prioritized": True}),
    "dqn-hindsight": (DQN, partial(BitFlip, 4), {"hindsight": "future"}),
    "ddpg": (DDPG, "Pendulum-v1", {"action_noise": "ou_0.2", "parameter_noise": 0.1}),
    "td3": (TD3, "Pendulum-v1", {"normalize_obs": True, "train_freq": 16}),
    "sac": (SAC, "Pendulum-v1", {}),
}
ALL = pytest.mark.parametrize("name", CASES)


def trainer_of(name: str, steps: int, seed: int = 3, num_envs: int = 4, **changed: Any) -> AsyncTrainer:
    kind, env, settings = CASES[name]
    agent = kind.for_env(env if isinstance(env, str) else env(), seed=seed, **(SMALL | settings | changed))
    return AsyncTrainer(env, agent, num_envs, steps, backend="inline", seed=3, progress=False)


def parameters(trainer: AsyncTrainer) -> list[torch.Tensor]:
    return [learner.vector for learner in trainer.agent.learners.values()]  # type: ignore[attr-defined]


class StopAfter(Callback):
    """Ends a run after some steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_rollout(self, trainer: Any, steps: int, episodes: Any) -> None:
        if trainer.steps_done >= self.steps:
            trainer.stop("that is enough")


def test_a_last_row_without_an_update_of_the_actor_has_nan_for_its_metrics() -> None:
    options = {"learning_starts": 988, "utd": 1.0, "train_freq": 1, "batch_size": 4, "buffer_size": 1000}
    with trainer_of("td3", 1001, num_envs=1, **options) as trainer:
        history = trainer.run()  # a row at step 1,000, and one of a single update, of the critics alone
    assert [row["steps"] for row in history] == [1000, 1001]
    assert [math.isnan(row["actor_loss"]) for row in history] == [False, True]


def test_metrics_have_the_learning_rate_and_epsilon() -> None:
    with trainer_of("dqn", 400, learning_starts=50, lr=0.01, anneal_lr=True, epsilon_steps=800) as trainer:
        (row,) = trainer.run()
    assert 0 < row["lr"] < 0.01
    assert 1 - 0.98 * 400 / 800 < row["epsilon"] < 1, "a mean over the updates"


class Updates(Callback):
    """Counts the updates."""

    def __init__(self) -> None:
        self.count = 0

    def on_update(self, trainer: Any, metrics: Any) -> None:
        self.count += 1


def test_a_run_without_an_update_has_one_row_with_the_returns_of_its_episodes(tmp_path: Any) -> None:
    with trainer_of("dqn", 200, learning_starts=300) as trainer:
        updates = Updates()
        trainer.callbacks += [updates, CSVLog(tmp_path)]
        (row,) = trainer.run()
        assert (row["steps"], row["episodes"]) == (200, trainer.episodes_done)
        assert row["mean_return"] == trainer.mean_return > 1
        assert read_table(tmp_path / "metrics.csv") == [row]
        assert not updates.count, "there was none"
        trainer.steps = 800
        history = trainer.run()  # updates begin
        assert [line["steps"] for line in history] == [200, 1000]
        assert math.isnan(history[0]["q_loss"])
        assert str(read_table(tmp_path / "metrics.csv")) == str(list(history))


def test_a_stopped_run_without_an_update_has_the_row_once_it_is_complete(tmp_path: Any) -> None:
    with trainer_of("dqn", 200, learning_starts=300) as first, trainer_of("dqn", 200, learning_starts=300) as second:
        first.callbacks.append(StopAfter(120))
        assert not first.run()
        first.save_checkpoint(tmp_path / "checkpoint")
        second.load_checkpoint(tmp_path / "checkpoint")
        assert [row["steps"] for row in second.run()] == [200]


@ALL
def test_a_stopped_run_resumes_bit_identical(name: str, tmp_path: Any) -> None:
    with trainer_of(name, 160) as whole, trainer_of(name, 160) as first, trainer_of(name, 160, seed=8) as second:
        whole.run()
        first.callbacks.append(StopAfter(80))
        first.run()
        assert first.steps_done == 80
        first.save_checkpoint(tmp_path / "checkpoint")
        second.load_checkpoint(tmp_path / "checkpoint")
        second.run()
        assert second.steps_done == whole.steps_done == 160
        assert second.agent.updates == whole.agent.updates > 50  # type: ignore[attr-defined]
        assert all(map(torch.equal, parameters(whole), parameters(second)))


def test_a_run_is_saved_in_time_between_rows_of_metrics(tmp_path: Any) -> None:
    with trainer_of("dqn", 80) as first, trainer_of("dqn", 80, seed=8) as second:
        first.callbacks.append(Checkpoints(tmp_path, every_seconds=1e-9, keep=99))
        first.run()
        saved = checkpoints_in(tmp_path)
        assert [*map(steps_of, saved)] == [*range(4, 84, 4)]
        second.load_checkpoint(saved[14])
        second.run()
        assert second.history[-1] | {"seconds": 0} == first.history[-1] | {"seconds": 0}
        assert all(map(torch.equal, parameters(first), parameters(second)))


@pytest.mark.covering
@ALL
@pytest.mark.parametrize("with_replay", [True, False])
@pytest.mark.filterwarnings("ignore:the replay buffer was not saved")
def test_a_failed_load_of_a_checkpoint_changes_nothing(name: str, with_replay: bool, tmp_path: Any) -> None:
    with trainer_of(name, 80) as run, trainer_of(name, 80) as untouched, trainer_of(name, 80, seed=8) as other:
        for trainer in (run, other):
            trainer.agent.replay_in_checkpoint = with_replay  # type: ignore[attr-defined]
        for trainer in (run, untouched, other):
            trainer.run()
        other.save_checkpoint(tmp_path / "forged")
        forged = load_state(tmp_path / "forged")
        forged["collector"] = {}
        save_state(tmp_path / "forged", forged)
        with pytest.raises(ValueError, match="forged"):
            run.load_checkpoint(tmp_path / "forged")
        for trainer in (run, untouched):
            trainer.run()
        assert all(map(torch.equal, parameters(run), parameters(untouched)))


@pytest.mark.covering
@ALL
@pytest.mark.parametrize("num_envs", [2, 7])
def test_a_run_resumes_with_another_number_of_environments(name: str, num_envs: int, tmp_path: Any) -> None:
    with trainer_of(name, 120) as first, trainer_of(name, 120, num_envs=num_envs) as second:
        first.run()
        first.save_checkpoint(tmp_path / "checkpoint")
        with pytest.warns(RuntimeWarning, match="of other environments: 40 steps"):
            second.load_checkpoint(tmp_path / "checkpoint", any_num_envs=True)
        second.run()
        agent: Any = second.agent
        taken, updates = (getattr(agent, count) - getattr(first.agent, count) for count in ("steps", "updates"))
        assert agent.replay.num_envs == num_envs
        assert len(agent.replay) == taken > 100
        assert updates == int(0.5 * (taken - 40))


@pytest.mark.parametrize("num_envs", [1, 7])
def test_a_trained_agent_trains_on_with_another_number_of_environments(num_envs: int) -> None:
    with trainer_of("sac", 120) as first:
        first.run()
        agent: Any = first.agent
    with pytest.warns(RuntimeWarning, match="of other environments: 40 steps"):
        second = AsyncTrainer("Pendulum-v1", agent, num_envs, 120, backend="inline", seed=4, progress=False)
    updates = agent.updates
    with second:
        second.run()
    taken = agent.steps - 120
    assert (agent.replay.num_envs, len(agent.replay)) == (num_envs, taken)
    assert agent.updates - updates == int(0.5 * (taken - 40))


@pytest.mark.covering
@pytest.mark.parametrize("name", ["dqn", "td3"])
@pytest.mark.parametrize("changed", [{"utd": 2.0}, {"utd": 0.1}, {"learning_starts": 10}, {"learning_starts": 90}])
def test_a_resumed_run_with_another_schedule_makes_up_for_no_updates(
    name: str, changed: dict[str, Any], tmp_path: Any
) -> None:
    with trainer_of(name, 120) as first, trainer_of(name, 40, **changed) as second:
        first.run()
        first.save_checkpoint(tmp_path / "checkpoint")
        second.load_checkpoint(tmp_path / "checkpoint", changed=changed)
        second.run()
        agent: Any = second.agent
        taken, updates = (getattr(agent, count) - getattr(first.agent, count) for count in ("steps", "updates"))
        assert taken > 30
        assert updates == int(taken * agent.utd)


@pytest.mark.parametrize("buffer_size", [60, 900])
def test_a_resumed_run_refills_a_replay_buffer_of_another_size(buffer_size: int, tmp_path: Any) -> None:
    with trainer_of("dqn", 120) as first, trainer_of("dqn", 120, buffer_size=buffer_size) as second:
        first.run()
        first.save_checkpoint(tmp_path / "checkpoint")
        with pytest.warns(RuntimeWarning, match="another buffer_size: 40 steps"):
            second.load_checkpoint(tmp_path / "checkpoint", changed=["buffer_size"])
        second.run()
        made = second.agent.updates - first.agent.updates  # type: ignore[attr-defined]
        assert made == 0.5 * (120 - 40)


def test_replay_can_become_prioritized_when_a_run_resumes(tmp_path: Any) -> None:
    with trainer_of("dqn", 120, prioritized=False) as first, trainer_of("dqn", 40, prioritized=True) as second:
        first.run()
        first.save_checkpoint(tmp_path / "checkpoint")
        second.load_checkpoint(tmp_path / "checkpoint", changed=["prioritized"])
        agent: Any = second.agent
        priorities = agent.sampler.priorities.tree.leaves[: agent.replay.rows]
        assert (priorities == agent.replay.is_transition).all()
        second.run()
        assert (priorities > 0).sum() == len(agent.replay) == 160


class Failing(OneState):
    """Its number 2 fails in its third step, or in its first one with `at_once`; `episodes` has the actions of all."""

    episodes: ClassVar[list[list[float]]] = []
    at_once = False

    def __init__(self, continuous: bool = True) -> None:
        super().__init__(continuous)
        self.native = memoryview(b"")  # so that it cannot be saved

    def reset(self, **options: Any) -> tuple[np.ndarray, dict]:
        self.actions: list[float] = []
        self.episodes.append(self.actions)
        self.number = len(self.episodes)
        return super().reset(**options)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.actions.append(float(action.item()))
        if self.number == 2 and (self.at_once or len(self.actions) == 3):
            raise RuntimeError
        return super().step(action)


class Steady(TD3):
    """Its normal numbers are ones, so that the noise of all episodes is the same."""

    def normals(self, count: int) -> np.ndarray:
        return np.ones((count, 1))


@pytest.mark.parametrize("schedule", [{"utd": 0.3}, {"train_freq": 13}])
def test_noise_begins_at_zero_in_each_episode(schedule: dict[str, Any], tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(Failing, "episodes", episodes := [])
    options = SMALL | {"learning_starts": 0, "lr": 1e-30, "action_noise": "ou_0.1"} | schedule
    for resumed in (False, True):
        agent = Steady.for_env(OneState(True), seed=1, **options)
        with AsyncTrainer(Failing, agent, 2, 44, on_env_error="restart", progress=False, backend="inline") as trainer:
            if resumed:
                trainer.load_checkpoint(tmp_path / "checkpoint")
                trainer.steps = 20
            trainer.run()
            trainer.save_checkpoint(tmp_path / "checkpoint")
    assert [len(episode) for episode in episodes[:4]] == [5, 3, 5, 5]
    assert len(episodes) > 12
    for episode in episodes:
        assert episode == pytest.approx(episodes[0][: len(episode)])
    assert np.diff(episodes[0]).min() > 0


def test_an_environment_that_fails_at_once_still_has_a_part_of_the_replay_buffer(monkeypatch: Any) -> None:
    monkeypatch.setattr(Failing, "episodes", [])
    monkeypatch.setattr(Failing, "at_once", True)
    agent = SAC.for_env(OneState(True), seed=0, **(SMALL | {"learning_starts": 0}))
    with AsyncTrainer(Failing, agent, 2, 20, on_env_error="restart", progress=False, backend="inline") as trainer:
        trainer.run()
        with pytest.warns(RuntimeWarning, match="of other environments"):
            agent.forget_environments()
        assert (agent.replay.num_envs, agent.replay.ring_length) == (2, 250)


def test_epsilon_counts_transitions_and_not_failed_steps(monkeypatch: Any) -> None:
    monkeypatch.setattr(Failing, "episodes", [])
    agent = DQN.for_env(OneState(False), seed=0, **SMALL, epsilon_steps=100)
    env, quiet = partial(Failing, False), {"progress": False, "backend": "inline"}
    with AsyncTrainer(env, agent, 2, 50, on_env_error="restart", **quiet) as trainer:  # type: ignore[arg-type]
        trainer.run()
    assert agent.steps == 51
    assert agent.epsilon == pytest.approx(1 - 0.98 * 0.51)


def test_progress_ends_at_one_though_all_environments_take_the_last_step() -> None:
    with trainer_of("dqn", 42) as trainer:
        trainer.run()
        assert trainer.steps_done == 44
        assert trainer.agent.progress == 1  # type: ignore[attr-defined]


@ALL
def test_mask_mode_trains_off_policy_agents(name: str) -> None:
    kind, env, settings = CASES[name]
    short = "CartPole-v1" if kind is DQN and isinstance(env, str) else env
    if env == "Pendulum-v1":
        short = partial(gym.make, env, max_episode_steps=20)
    agent = kind.for_env(short if isinstance(short, str) else short(), seed=0, **(SMALL | settings))
    with AsyncTrainer(short, agent, 4, 200, mode="mask", backend="inline", seed=0, progress=False) as trainer:
        history = trainer.run()
    assert agent.updates > 20
    assert any(name.endswith("_loss") for name in history[-1])


def test_mask_mode_saves_between_episodes_also_when_a_row_is_due(tmp_path: Any) -> None:
    agent = DQN.for_env("CartPole-v1", seed=0, **(SMALL | {"utd": 0.01}))
    options: dict[str, Any] = {"mode": "mask", "backend": "inline", "seed": 0, "progress": False}
    saves = Checkpoints(tmp_path, every_seconds=1e-9, keep=999)
    with AsyncTrainer("CartPole-v1", agent, 4, 1100, callbacks=[saves], **options) as trainer:
        assert len(trainer.run()) == 2
    *timed, _ = checkpoints_in(tmp_path)
    assert len(timed) > 3
    assert all(load_state(path)["collector"]["env"]["finished"].all() for path in timed)


@pytest.mark.slow
def test_dqn_balances_the_pole_with_its_preset() -> None:
    config = train_config("dqn", preset("dqn", "CartPole-v1") | {"seed": 101, "backend": "inline"})
    with make_trainer(config) as trainer:
        trainer.run()
    assert evaluate(trainer.agent, "CartPole-v1", 100, seed=1, num_envs=20, backend="inline").mean() >= 475


@pytest.mark.slow
def test_sac_swings_the_pendulum_up() -> None:
    agent = SAC.for_env("Pendulum-v1", seed=0, lr=1e-3, buffer_size=20_000, hidden_sizes=(64, 64))
    with AsyncTrainer("Pendulum-v1", agent, 2, 10_000, backend="inline", seed=0, progress=False) as trainer:
        trainer.run()
    assert evaluate(agent, "Pendulum-v1", 20, seed=1, backend="inline").mean() > -250
