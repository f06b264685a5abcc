"""The `Agent` protocol is enough: a tabular agent goes through trainer, evaluation, checkpoint and resume."""

import dataclasses
import multiprocessing
import pickle
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from AsyncPPO import AsyncPPO, AsyncTrainer, evaluate
from AsyncPPO.agent import OptionalMembers, optional
from AsyncPPO.callbacks import BackgroundEvaluation, Callback, CSVLog, read_table
from AsyncPPO.rows import ROW_STEPS
from PPO import PPO
from tests.toy_agent import ToyAgent

LAKE = "FrozenLake-v1"


def toy(**settings: Any) -> ToyAgent:
    return ToyAgent(**({"states": 16, "actions": 4} | settings))


def trainer(
    steps: int = 2600, agent: ToyAgent | None = None, num_envs: int = 4, **options: Any
) -> AsyncTrainer[ToyAgent]:
    options = {"seed": 1, "backend": "inline", "progress": False} | options
    return AsyncTrainer(LAKE, agent or toy(), num_envs, steps, **options)


def without_clock(rows: Iterable[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_a_toy_agent_learns_and_is_evaluated(tmp_path: Path) -> None:
    def lake() -> gym.Env:
        return gym.make(LAKE, is_slippery=False)

    agent = toy()
    evaluation = BackgroundEvaluation(lake, 2500, episodes=2, keep_best=tmp_path)
    with AsyncTrainer(lake, agent, 8, 5_000, seed=0, progress=False, callbacks=[evaluation]) as run:
        assert run.acting == "central"
        run.run()
    assert evaluate(agent, lake, 3).tolist() == [1.0] * 3
    last = run.evaluations[-1]
    assert (last.steps, last.episodes, last.mean) == (5_000, 2, 1.0)
    best = toy()
    best.load_weights(tmp_path)
    assert evaluate(best, lake, 3).tolist() == [1.0] * 3


@pytest.mark.covering
@pytest.mark.parametrize("mode", ["streaming", "mask"])
@pytest.mark.parametrize("stop_at", [1000, 1300])
def test_a_toy_agent_resumes_to_the_bit(tmp_path: Path, mode: str, stop_at: int) -> None:
    class StopAt(Callback):
        """The run also stops between two rows of metrics."""

        def on_rollout(self, trainer: AsyncTrainer, steps: int, episodes: Any) -> None:
            if stop_at <= trainer.steps_done < stop_at + steps:
                trainer.stop("here")

    with trainer(1700, mode=mode) as run:
        expected, table = without_clock(run.run()), run.agent.q.copy()
    with trainer(1700, mode=mode, callbacks=[StopAt()]) as run:
        first = without_clock(run.run())
        assert stop_at <= run.steps_done < stop_at + 200, "it stops at once, not at the next row"
        run.save_checkpoint(tmp_path / "half.state")
    with trainer(1700, mode=mode) as run:
        run.load_checkpoint(tmp_path / "half.state")
        assert first + without_clock(run.run()) == expected
        np.testing.assert_array_equal(run.agent.q, table)


def test_off_policy_updates_share_rows_and_metrics_are_their_means() -> None:
    updates: list[tuple[int, float]] = []
    with trainer(2500) as run:
        update = run.agent.update

        def spy(*arguments: Any) -> dict[str, float]:
            metrics = update(*arguments)
            updates.append((run.steps_done, metrics["td_error"]))
            return metrics

        run.agent.update = spy  # type: ignore[method-assign]
        rows = [*run.run()]
    assert [steps for steps, _ in updates] == [*range(200, 2501, 4)], "learning starts, then every vector step"
    assert [row["steps"] for row in rows] == [ROW_STEPS, 2 * ROW_STEPS, 2500]
    for row, start in zip(rows, (0, ROW_STEPS, 2 * ROW_STEPS), strict=True):
        errors = [error for steps, error in updates if start < steps <= row["steps"]]
        assert row["td_error"] == pytest.approx(np.mean(errors))


def test_stop_before_learning_starts_does_not_wait_for_an_update() -> None:
    class StopAt300(Callback):
        def on_rollout(self, trainer: AsyncTrainer, steps: int, episodes: Any) -> None:
            if trainer.steps_done == 300:
                trainer.stop("here")

    with trainer(2000, toy(learning_starts=1000), callbacks=[StopAt300()]) as run:
        run.run()
        assert (run.steps_done, run.stopped) == (300, "here")


def test_a_trainer_collects_steps_wanted_before_each_update() -> None:
    with trainer(100) as run:
        with pytest.warns(RuntimeWarning, match=r"steps \(100\) is less than the 200 transitions that the agent waits"):
            history = run.run()
        assert [row["steps"] for row in history] == [100], "the returns of a run without an update"
        assert len(run.buffer) == 100
        run.run()
        assert [len(run.buffer), len(run.agent.replay)] == [0, 200]


@pytest.mark.filterwarnings("error")
def test_a_run_whose_last_vector_step_completes_the_batch_learns_without_a_warning() -> None:
    with trainer(197) as run:  # 4 environments
        run.run()
        assert [run.steps_done, len(run.agent.replay)] == [200, 200]
    with trainer(196) as run, pytest.raises(RuntimeWarning, match=r"steps \(196\) is less than the 200 transitions"):
        run.run()


@pytest.mark.filterwarnings("error")
def test_a_run_that_goes_on_is_not_too_short_for_an_agent_that_learns_already(tmp_path: Path) -> None:
    with trainer(240) as run:
        run.run()
        path = tmp_path / "run.state"
        run.save_checkpoint(path)
    with trainer(40) as run:
        run.load_checkpoint(path)
        assert not np.isnan(run.run()[-1]["td_error"])


def test_mask_mode_observes_whole_episodes_until_steps_wanted() -> None:
    seen: list[int] = []
    with trainer(600, mode="mask") as run:
        update = run.agent.update

        def spy(*arguments: Any) -> dict[str, float]:
            assert run.env.finished.all() or run.steps_done >= 600
            seen.append(len(run.agent.replay))
            return update(*arguments)

        run.agent.update = spy  # type: ignore[method-assign]
        run.run()
    assert 200 <= seen[0] < 500
    assert len(seen) > 2
    assert len(run.agent.replay) == run.steps_done


def test_a_checkpoint_of_another_agent_is_refused(tmp_path: Path) -> None:
    with trainer(500) as run:
        run.run()
        run.save_checkpoint(tmp_path / "a.state")
    with trainer(500, toy(gamma=0.5)) as run:
        with pytest.raises(ValueError, match=r"a\.state does not fit: gamma is 0\.95 there and 0\.5 here"):
            run.load_checkpoint(tmp_path / "a.state")
        assert (run.agent.q == 1).all()
    ppo = PPO.for_env(LAKE, seed=0)
    with AsyncPPO(LAKE, ppo, 4, 2000, seed=1, progress=False) as other, pytest.raises(ValueError, match=r"a\.state"):
        other.load_checkpoint(tmp_path / "a.state")


def test_a_member_of_an_agent_replaces_what_stands_for_it() -> None:
    class Own(ToyAgent):
        on_policy = True

        def whole_state(self) -> dict[str, Any]:
            return {"own": True}

    assert (optional(toy(), "on_policy"), optional(Own(states=1, actions=1), "on_policy")) == (False, True)
    assert optional(Own(states=1, actions=1), "whole_state")() == {"own": True}
    agent = toy()
    undo = optional(agent, "savepoint")()
    agent.q[:] = 7
    undo()
    assert (agent.q == 1).all()
    with pytest.raises(AttributeError, match="on_polcy"):
        optional(agent, "on_polcy")


def test_the_docs_list_the_optional_members() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "agents.md").read_text()
    (table,) = re.findall(r"Some members are optional:\n\n(.*?)\n\n", docs, re.DOTALL)
    listed = [name for row in table.splitlines() for name in re.findall(r"`(\w+)", row.split("|")[1])]
    assert {*listed} == {name for name in vars(OptionalMembers) if not name.startswith("_")}


def test_an_agent_that_does_not_fit_leaves_no_process() -> None:
    class Picky(ToyAgent):
        def check_fits(self, env: Any) -> None:
            raise ValueError("not there")

    with pytest.raises(ValueError, match="not there"):
        trainer(agent=Picky(states=16, actions=4), backend="process")
    assert not multiprocessing.active_children()


def test_a_toy_agent_can_train_in_other_environments(tmp_path: Path) -> None:
    with trainer(500) as run:
        run.run()
        run.save_checkpoint(tmp_path / "a.state")
    with trainer(500, num_envs=6) as run:
        run.load_checkpoint(tmp_path / "a.state", any_num_envs=True)
        run.run()
        assert run.steps_done >= 1000


def test_csv_tables_have_the_rows_of_a_toy_agent(tmp_path: Path) -> None:
    with trainer(2200, callbacks=[CSVLog(tmp_path)]) as run:
        run.run()
    assert [*map(dict, read_table(tmp_path / "metrics.csv"))] == [*run.history]
    assert dataclasses.is_dataclass(run.agent.config)


def test_actor_of_ppo_is_a_small_copy_unchanged_by_later_updates() -> None:
    ppo = PPO.for_env("CartPole-v1", seed=0, hidden_sizes=(256, 256), batch_size=64, mini_batch_size=64)
    with AsyncPPO("CartPole-v1", ppo, 4, 160, seed=0, progress=False, acting="central") as run:
        run.run()
        ppo.observe(run.buffer.take())
        assert len(ppo.memory) == 32
        obs = np.random.default_rng(0).normal(size=(99, 4)).astype(np.float32)
        actor, same = ppo.actor(), pickle.loads(pickle.dumps(ppo.actor()))
        weights = 4 * sum(parameter.numel() for parameter in ppo.policy.parameters())
        assert len(pickle.dumps(actor)) < 1.1 * weights, "neither memory nor moments, and each weight once"
        now = ppo.act(obs, deterministic=True)[1]["log_prob"]
        run.run()
    for each in (actor, same):
        np.testing.assert_array_equal(each.act(obs, deterministic=True)[1]["log_prob"], now)
    assert not np.array_equal(ppo.act(obs, deterministic=True)[1]["log_prob"], now)
