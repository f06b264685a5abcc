"""Successes and other infos of episodes: in metrics, files, callbacks and evaluations, however the agent acts."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from AsyncPPO import AsyncPPO, EnvError, evaluate, evaluate_episodes
from AsyncPPO.callbacks import CSVLog, TensorBoard, read_table
from AsyncPPO.episodes import FIGURES, Episode, Evaluation
from AsyncPPO.evaluation import BackgroundEvaluation
from parallel_rl.utils import History, load_state, save_state
from PPO import PPO
from tests.AsyncPPO.test_callbacks import Witness, scalars
from tests.AsyncPPO.test_collector import Scripted
from tests.envs import Counter

WAYS: dict[str, dict[str, Any]] = {
    "central": {"acting": "central", "backend": "inline"},
    "central-processes": {"acting": "central", "backend": "process", "num_workers": 2},
    "replicas": {"acting": "replicas", "backend": "inline"},
    "replicas-processes": {"acting": "replicas", "backend": "process", "num_workers": 2},
}


class Goal(Counter):
    """Ends after three to six steps, at some distance from its goal, which is in its last info with other entries."""

    def __init__(self, name: str = "is_success", every: int = 1) -> None:
        super().__init__()
        self.name, self.every, self.played = name, every, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        obs, _ = super().reset(seed=seed)
        self.length, self.played = int(self.np_random.integers(3, 7)), self.played + 1
        return obs, {"distance": 1000.0, self.name: True}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        obs, reward, terminated, truncated, _ = super().step(action)
        info: dict[str, Any] = {"distance": 100.0, "label": "far"}
        if terminated and self.played % self.every == 0:
            draw = self.np_random.random()
            info |= {self.name: np.bool_(draw < 0.5), "distance": np.array([draw], np.float32)}
        return obs, reward, terminated, truncated, info


def trainer(env: Any = Goal, steps: int = 512, **kwargs: Any) -> AsyncPPO:
    ppo = PPO.for_env(env(), seed=0, batch_size=128, mini_batch_size=64, k_epochs=1)
    return AsyncPPO(env, ppo, 4, steps, **{"seed": 0, "progress": False, "backend": "inline", **kwargs})


def episodes_of(**kwargs: Any) -> list[tuple[float, ...]]:
    witness = Witness()
    with trainer(info_keys=["distance"], callbacks=[witness], **kwargs) as run:
        for update in run.updates():
            row, rate, infos = update, run.success_rate, [episode.infos for episode in run.recent]
    assert row["success_rate"] == rate == pytest.approx(np.mean([info["is_success"] for info in infos]))
    assert row["info_distance"] == pytest.approx(np.mean([info["distance"] for info in infos]))
    assert 0 < row["success_rate"] < 1
    assert all((info["is_success"] == 1.0) == (info["distance"] < 0.5) for info in infos)
    return [
        (episode.return_, episode.length, episode.infos["distance"], episode.infos["is_success"])
        for episode in witness.episodes
    ]


@pytest.mark.covering
@pytest.mark.parametrize("name", ["is_success", "success"])
@pytest.mark.parametrize("way", WAYS)
def test_the_last_infos_of_episodes_are_metrics_however_the_agent_acts(way: str, name: str) -> None:
    """Actions have no effect here, so the episodes are the same however the agent acts."""
    expected = episodes_of(env=partial(Goal, name), **WAYS["central"])
    assert episodes_of(env=partial(Goal, name), **WAYS[way]) == expected


def test_infos_are_metrics_in_mask_mode() -> None:
    assert len(episodes_of(mode="mask")) > 100


def test_without_infos_there_are_no_metrics_of_them() -> None:
    with trainer(Counter) as run:
        row = run.run()[-1]
        assert not {"success_rate", "info_distance"} & row.keys()
        assert np.isnan(run.success_rate)
    missing = pytest.warns(RuntimeWarning, match="the last 100 episodes have no distance")
    with trainer(Counter, info_keys=("distance",)) as run, missing:
        assert np.isnan(run.run()[-1]["info_distance"]), "what was asked for is a column"


def test_success_rate_is_nan_in_rows_without_reported_successes(tmp_path: Path) -> None:
    """The environment reports it in every 12th episode. The table began without the column, and gets it throughout."""
    with trainer(partial(Goal, every=12), callbacks=[CSVLog(tmp_path)], steps=1280) as run:
        history = run.run()
        run.save_checkpoint(tmp_path / "a.state")
    rates = [row["success_rate"] for row in history]
    assert np.isnan(rates[0])
    assert not np.isnan(rates[-1])
    assert str(read_table(tmp_path / "metrics.csv")) == str(list(history))
    with trainer(partial(Goal, every=10**9), callbacks=[CSVLog(tmp_path)], steps=2560) as run:
        run.load_checkpoint(tmp_path / "a.state")
        run.env.set_attr("every", 10**9)
        run.run()
        assert len(run.history) == 30
        assert np.isnan(run.history[-1]["success_rate"])
        assert str(read_table(tmp_path / "metrics.csv")) == str(list(run.history))


def test_runs_of_earlier_versions_without_infos_continue(tmp_path: Path) -> None:
    """Their tables have no success rate, and their checkpoints episodes of two numbers."""
    with trainer(callbacks=[CSVLog(tmp_path)]) as run:
        run.run()
        run.history = History({k: v for k, v in row.items() if k != "success_rate"} for row in run.history)
        run.save_checkpoint(tmp_path / "a.state")
        state = load_state(tmp_path / "a.state")
        save_state(tmp_path / "a.state", state | {"recent": [episode[:2] for episode in state["recent"]]})
        CSVLog(tmp_path).on_start(run)
    assert "success_rate" not in (tmp_path / "metrics.csv").read_text()
    with trainer(callbacks=[CSVLog(tmp_path)]) as run:
        run.load_checkpoint(tmp_path / "a.state")
        run.run()
        rates = [row["success_rate"] for row in run.history]
    assert np.isnan(rates[:4]).all()
    assert not np.isnan(rates[4:]).any()
    assert str(read_table(tmp_path / "metrics.csv")) == str(list(run.history))


@pytest.mark.parametrize("acting", ["central", "replicas"])
def test_a_resumed_run_counts_infos_as_an_uninterrupted_one(tmp_path: Path, acting: Any) -> None:
    with trainer(steps=1024, acting=acting) as run:
        whole = [row["success_rate"] for row in run.run()]
    with trainer(acting=acting) as run:
        run.run()
        run.save_checkpoint(tmp_path / "a.state")
    with trainer(acting=acting) as run:
        run.load_checkpoint(tmp_path / "a.state")
        assert [row["success_rate"] for row in run.run()] == whole[4:]


def test_infos_are_in_evaluations_csv_and_tensorboard(tmp_path: Path) -> None:
    evaluation = BackgroundEvaluation(
        Goal, 256, episodes=8, seed=1, info_keys=["distance"], keep_best=tmp_path / "best"
    )
    logs = CSVLog(tmp_path), TensorBoard(tmp_path), evaluation
    with trainer(callbacks=logs, info_keys=["distance"]) as run:
        run.run()
        last = run.evaluations[-1]
    assert 0 < last.success_rate < 1
    assert last.infos.keys() == {"success_rate", "info_distance"}
    rows = read_table(tmp_path / "evaluations.csv", FIGURES)
    assert [Evaluation.of_figures(row).figures() for row in rows] == [made.figures() for made in run.evaluations]
    assert json.loads((tmp_path / "best" / "evaluation.json").read_text())["success_rate"] == last.success_rate
    found = scalars(tmp_path)
    assert found["rollout/success_rate"][-1][1] == pytest.approx(run.success_rate)
    assert found["eval/success_rate"][-1] == (512, pytest.approx(last.success_rate))
    assert {"rollout/info_distance", "eval/info_distance"} <= found.keys()


def test_an_old_table_of_evaluations_without_infos_continues(tmp_path: Path) -> None:
    (tmp_path / "evaluations.csv").write_text("steps,episodes,mean,std,min,max\n0,2,1.0,0.0,1.0,1.0\n")
    log = CSVLog(tmp_path)
    with trainer(callbacks=[log]) as run:
        log.on_start(run)
        assert run.evaluations == [Evaluation(0, 2, 1.0, 0.0, 1.0, 1.0)]
        run.add_evaluation(Evaluation.of(5, [Episode(1.0, 2, {"is_success": 0.5})]))
    rows = read_table(tmp_path / "evaluations.csv", FIGURES)
    assert np.isnan(rows[0]["success_rate"])
    assert rows[1]["success_rate"] == 0.5


def test_evaluate_episodes_returns_lengths_and_infos() -> None:
    played = evaluate_episodes(Scripted(), Goal, 9, num_envs=4, seed=0, backend="inline", info_keys=("distance",))
    assert evaluate(Scripted(), Goal, 9, num_envs=4, seed=0, backend="inline").tolist() == [
        one.return_ for one in played
    ]
    assert all(3 <= one.length <= 6 for one in played)
    assert all(one.infos.keys() == {"is_success", "distance"} for one in played)
    assert 0 < Evaluation.of(0, played).success_rate < 1


@pytest.mark.parametrize("way", ["central", "replicas", "replicas-processes"])
def test_an_info_that_is_not_a_number_is_an_error_only_if_it_is_requested(way: str) -> None:
    with (
        trainer(info_keys=["label"], **WAYS[way]) as run,
        pytest.raises(EnvError, match=r"environment \d: its info 'label' is not a number, but 'far'"),
    ):
        run.run()
    with trainer(partial(Goal, "label"), **WAYS[way]) as run:
        run.run()


class Vague(Goal):
    """Reports its success as text."""

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, terminated, truncated, info | {"is_success": "rather"}


def test_a_success_that_is_not_a_number_is_ignored() -> None:
    with trainer(Vague) as run:
        assert "success_rate" not in run.run()[-1]


def test_an_info_key_that_no_info_has_is_named_at_the_end(recwarn: pytest.WarningsRecorder) -> None:
    with trainer(info_keys=["distance", "nope"]) as run:
        run.run()
    (text,) = [str(warning.message) for warning in recwarn]
    assert re.fullmatch(r"the last infos of the last \d+ episodes have no nope \(info_keys\)", text)


def test_info_keys_as_a_string_are_refused() -> None:
    with pytest.raises(TypeError, match="info_keys must be a list of names, not the string 'distance'"):
        trainer(info_keys="distance")


class Shaky(Goal):
    """Fails in some steps."""

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        if self.np_random.random() < 0.02:
            raise ConnectionError("gone")
        return super().step(action)


@pytest.mark.parametrize("way", ["central", "replicas", "replicas-processes"])
def test_an_episode_that_a_failure_truncated_does_not_count(way: str) -> None:
    witness = Witness()
    with trainer(Shaky, on_env_error="restart", callbacks=[witness], **WAYS[way]) as run:
        run.run()
        assert run.env.restarts > 0
        assert run.episodes_done == len(witness.episodes) > 0
    for episode in witness.episodes:
        assert episode.return_ == sum(range(1, episode.length + 1)), "it is whole"
        assert episode.length >= 3
        assert episode.infos.keys() == {"is_success"}
