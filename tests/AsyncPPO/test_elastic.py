"""Ranks that are lost and replaced while a run goes on."""

import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from AsyncPPO import AsyncPPO, AsyncTrainer
from AsyncPPO.callbacks import Callback
from parallel_rl.ranks.elastic import Elastic, LostError
from parallel_rl.utils import ALONE, RankError, Ranks, load_state
from parallel_rl.utils.ranks import Alone
from PPO import PPO
from tests.envs import Counter
from tests.ranks import Fragile, Killed, on_elastic_ranks, on_ranks

ENVS, BATCH = 6, 120
UPDATES = 4


@pytest.fixture
def fragile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parallel_rl.ranks.elastic.Generation", Fragile)


def trainer_of(ranks: Any, updates: int = UPDATES, env: Any = "CartPole-v1", **options: Any) -> AsyncPPO:
    one = env() if isinstance(env, type) else "CartPole-v1"
    agent = PPO.for_env(one, seed=7, batch_size=BATCH, mini_batch_size=60, k_epochs=2)
    options = {"seed": 11, "progress": False, "backend": "inline"} | options
    return AsyncPPO(env, agent, ENVS, updates * BATCH, ranks=ranks, **options)


def weights(trainer: AsyncPPO) -> bytes:
    return trainer.ppo.optimizers[0].vector.numpy().tobytes()


def trained(ranks: Any, **options: Any) -> tuple[bytes, int]:
    with trainer_of(ranks, **options) as trainer:
        trainer.run()
        return weights(trainer), trainer.steps_done


def test_a_run_that_loses_no_rank_is_that_of_fixed_ranks() -> None:
    threads = on_elastic_ranks(2, trained)
    assert [thread.result for thread in threads.values()] == on_ranks(2, trained)


MESSAGES = 70
"""Fewer than the last of three ranks sends and receives in its updates; the first has twice as many."""
SOME = [*range(3, MESSAGES, 30)]


@pytest.mark.covering
@pytest.mark.usefixtures("fragile")
@pytest.mark.parametrize("victim", [0, 2])
@pytest.mark.parametrize(
    "left", [pytest.param(left, marks=() if left in SOME else pytest.mark.slow) for left in range(MESSAGES)]
)
def test_a_rank_killed_at_a_message_is_replaced_and_all_have_the_same_weights(left: int, victim: int) -> None:
    def body(ranks: Elastic) -> tuple[bytes, int]:
        Fragile.lives.left = left if ranks.node == victim and not ranks.joined else None
        return trained(ranks)

    said: list[str] = []
    threads = on_elastic_ranks(3, body, said=said)
    assert said[0] == f"lost      rank {victim}"
    ended = [thread for thread in threads.values() if thread.result is not None]
    assert 0 in {thread.ranks.node for thread in ended}
    assert len({thread.result for thread in ended}) == 1
    assert ended[0].result[1] >= UPDATES * BATCH
    assert sum(thread.result is None for thread in threads.values()) <= 2  # the victim, and a rank that came too late


@pytest.mark.covering
@pytest.mark.usefixtures("fragile")
@pytest.mark.parametrize("victim", [0, 2])
@pytest.mark.parametrize("left", [0, 2, 3, 5])
def test_a_rank_killed_while_a_checkpoint_is_saved_is_replaced(left: int, victim: int, tmp_path: Path) -> None:
    class Save(Callback):
        def on_update(self, trainer: AsyncTrainer, metrics: Any) -> None:
            if len(trainer.history) == 2 and not trainer.ranks.joined:
                if trainer.ranks.node == victim:
                    Fragile.lives.left = left
                trainer.save_checkpoint(tmp_path / "two.state")

    said: list[str] = []
    threads = on_elastic_ranks(3, lambda ranks: trained(ranks, callbacks=[Save()]), said=said)
    assert said[0] == f"lost      rank {victim}"
    ended = [thread for thread in threads.values() if thread.result is not None]
    assert 0 in {thread.ranks.node for thread in ended}
    assert len({thread.result for thread in ended}) == 1
    if victim:
        assert load_state(tmp_path / "two.state")["progress"]["steps_done"] == 2 * BATCH


@pytest.mark.usefixtures("fragile")
def test_a_repeated_update_is_that_of_the_ranks_that_are_left() -> None:
    def learned_without_rank_1(left: int) -> tuple[bytes, int]:
        over = threading.Event()

        def body(ranks: Elastic) -> tuple[bytes, int] | None:
            if ranks.joined:  # it comes too late
                over.wait(30)
                raise Killed
            Fragile.lives.left = left if ranks.node else None
            try:
                return trained(ranks, updates=1)
            finally:
                if not ranks.node:
                    over.set()

        return on_elastic_ranks(2, body)[0].result

    before_it, *within_it = [learned_without_rank_1(left) for left in (2, 9, 16)]
    assert {*within_it} == {before_it}
    assert before_it != on_ranks(2, lambda ranks: trained(ranks, updates=1))[0]


@pytest.mark.slow
@pytest.mark.filterwarnings("error:after .* the weights of the ranks differ")
@pytest.mark.usefixtures("fragile")
def test_after_fifty_random_kills_all_ranks_have_had_the_same_weights_in_each_update() -> None:
    kills, rng, lock = 50, np.random.default_rng(0), threading.Lock()
    mortal, killed = dict[int, Elastic](), list[int]()  # by node, the rank that will be killed; nodes
    seen: dict[int, set[bytes]] = {}

    class Fate(Callback):
        def on_update(self, trainer: AsyncTrainer, metrics: Any) -> None:
            node = trainer.ranks.node
            with lock:
                seen.setdefault(trainer.steps_done, set()).add(weights(trainer))
                if trainer.running_envs < ENVS:
                    return  # a rank is missing: the others may be the only ones that have learned
                if len(killed) == kills:
                    trainer.stop("all kills are over")
                others = len({*mortal} - {node})
                if node not in mortal and others < 2 and others + len(killed) < kills and rng.random() < 0.5:
                    mortal[node] = trainer.ranks
                    Fragile.lives.left = int(rng.integers(MESSAGES))

    def body(ranks: Elastic) -> tuple[bytes, int]:
        with lock:
            mortal.pop(ranks.node, None)  # the rank before it was given up while it joined
        try:
            return trained(ranks, updates=100_000, callbacks=[Fate()])
        except Killed:
            with lock:
                del mortal[ranks.node]
                killed.append(ranks.node)
            raise

    said: list[str] = []
    threads = on_elastic_ranks(3, body, said=said)
    assert len(killed) == kills
    assert {*killed} == {0, 1, 2}
    assert sum(line.startswith("lost") for line in said) >= kills
    assert all(len(same) == 1 for same in seen.values())
    assert len({thread.result for thread in threads.values() if thread.result is not None}) == 1


class FailsInThirdStep(Counter):
    def step(self, action: int) -> Any:
        if self.count == 2:
            raise ValueError("now and then")
        return super().step(action)


class Repeating(Alone):
    """A rank alone that does, undoes and repeats the work of each turn."""

    def attempt(self, work: Callable[[Ranks], Any], savepoint: Callable[[], Callable[[], None]]) -> Any:
        undo = savepoint()
        work(self)
        undo()
        return work(self)


def test_a_turn_that_is_repeated_counts_once() -> None:
    def rows(ranks: Alone) -> list[list[float]]:
        with trainer_of(ranks, env=FailsInThirdStep, on_env_error="restart") as trainer:
            return [[row[name] for name in ("steps", "restarts", "policy_loss")] for row in trainer.run()]

    once = rows(ALONE)
    assert once[0][1] > 0
    assert rows(Repeating()) == once


class KilledAfter(Callback):
    """Kills its rank after an update, unless it has joined later."""

    def __init__(self, update: int) -> None:
        self.update = update

    def on_update(self, trainer: AsyncTrainer, metrics: Any) -> None:
        if len(trainer.history) == self.update and not trainer.ranks.joined:
            raise Killed


class Envs(Callback):
    """Notes the environments of all ranks and the steps in each update, and stops when all have come again."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self.steps = [0]

    def on_update(self, trainer: AsyncTrainer, metrics: Any) -> None:
        self.counts.append(trainer.running_envs)
        self.steps.append(trainer.steps_done)
        if len(self.counts) > 3 and self.counts[-1] == ENVS:
            trainer.stop("all have come")


def test_a_lost_rank_takes_its_environments_along_and_another_brings_new_ones() -> None:
    noted = Envs()

    def body(ranks: Elastic) -> list[list[float]]:
        callbacks = {0: [noted], 2: [KilledAfter(2)]}.get(ranks.node, [])
        with trainer_of(ranks, updates=10_000, callbacks=callbacks) as trainer:
            trainer.run()
            return trainer.collector.state()[0]["episodes"]["returns"].tolist()

    said: list[str] = []
    threads = on_elastic_ranks(3, body, min_nodes=2, said=said)
    assert said == ["lost      rank 2", "joins     rank 2"]
    assert {*noted.counts} == {ENVS, ENVS * 2 // 3}
    assert noted.counts == sorted(noted.counts[:2], reverse=True) + sorted(noted.counts[2:])
    assert {after - before for before, after in pairwise(noted.steps)} == {BATCH}, "also after the loss and the joining"
    assert [thread.result is None for thread in threads.values()] == [False, False, True, False]


def test_a_rank_that_joins_a_resumed_run_begins_new_episodes_with_the_options_of_the_run(tmp_path: Path) -> None:
    path, options = tmp_path / "one.state", {"low": 0.01}
    with trainer_of(ALONE, updates=1) as trainer:
        trainer.run()
        trainer.save_checkpoint(path)
    joined = []

    class NotesJoin(Callback):
        def on_start(self, trainer: AsyncTrainer) -> None:
            if trainer.ranks.joined:
                joined.append((trainer.env.finished.all(), trainer.env.reset_options))

    def body(ranks: Elastic) -> None:
        callbacks = {0: [Envs()], 2: [NotesJoin(), KilledAfter(2)]}.get(ranks.node, [])
        with trainer_of(ranks, updates=10_000, callbacks=callbacks) as trainer:
            trainer.load_checkpoint(path)
            if not ranks.joined:
                trainer.env.reset_options = options
            trainer.run()

    on_elastic_ranks(3, body, min_nodes=2)
    assert joined == [(True, options)]


def test_new_episodes_have_other_seeds_after_other_numbers_of_steps() -> None:
    first = []
    for steps in (None, 0, 100, 200, 200):
        with trainer_of(ALONE) as trainer:
            if steps is not None:
                trainer.env.begin_after(trainer.env.new_episodes(steps))
            first.append(trainer.env.reset()[0].tobytes())
    assert first[3] == first[4]
    assert len({*first}) == 4


def test_the_run_waits_while_there_are_fewer_ranks_than_it_needs() -> None:
    noted = Envs()

    def body(ranks: Elastic) -> None:
        callbacks = {0: [noted], 1: [KilledAfter(2)]}.get(ranks.node, [])
        with trainer_of(ranks, callbacks=callbacks) as trainer:
            trainer.run()

    said: list[str] = []
    on_elastic_ranks(3, body, min_nodes=3, said=said)
    assert said == ["lost      rank 1", "waiting   for 1 more of 3 nodes", "joins     rank 1"]
    assert noted.counts[2] == ENVS * 2 // 3  # the update in which it was lost
    assert {*noted.counts[3:]} == {ENVS}


def test_a_silent_rank_is_given_up_after_the_timeout() -> None:
    over = threading.Event()

    class Hangs(Callback):
        def on_update(self, trainer: AsyncTrainer, metrics: Any) -> None:
            if len(trainer.history) == 2 and not trainer.ranks.joined:
                over.wait(60)
                raise Killed

    def body(ranks: Elastic) -> None:
        with trainer_of(ranks, callbacks=[Hangs()] if ranks.node == 1 else []) as trainer:
            start = time.monotonic()
            trainer.run()
            assert time.monotonic() - start < 20
            if ranks.node == 0:
                over.set()

    said: list[str] = []
    on_elastic_ranks(3, body, timeout=0.5, said=said)
    assert said[0] == "lost      rank 1"


def test_an_error_on_a_rank_ends_all_and_is_named() -> None:
    class Breaks(Callback):
        def on_update(self, trainer: AsyncTrainer, metrics: Any) -> None:
            if trainer.ranks.node == 1:
                raise ValueError("the pole broke")

    def body(ranks: Elastic) -> None:
        with trainer_of(ranks, callbacks=[Breaks()]) as trainer:
            trainer.run()

    threads = on_elastic_ranks(3, body)
    for number in (0, 2):
        assert isinstance(threads[number].error, RankError)
        assert str(threads[number].error).startswith("rank 1 on ")
        assert str(threads[number].error).endswith(" failed: the pole broke")


def test_a_run_that_loses_all_ranks_is_an_error() -> None:
    """They are lost together: otherwise another rank could join the one that is left."""
    together = threading.Barrier(2, timeout=30)

    class Killing(Callback):
        def on_update(self, trainer: AsyncTrainer, metrics: Any) -> None:
            together.wait()
            raise Killed

    def body(ranks: Elastic) -> None:
        with trainer_of(ranks, callbacks=[Killing()]) as trainer:
            trainer.run()

    try:
        told = [thread.error for thread in on_elastic_ranks(2, body).values()]  # by a rank 0 that waited to join
    except RankError as error:
        told = [error]
    assert "all ranks were lost; the run can be resumed from its last checkpoint" in {*map(str, told)}


def test_a_node_whose_ranks_never_join_is_an_error() -> None:
    def body(ranks: Elastic) -> None:
        if ranks.node == 1:
            raise Killed
        ranks.join()

    threads = on_elastic_ranks(2, body)
    assert str(threads[0].error) == "rank 1 was lost 3 times in a row before it had joined"


def test_ranks_that_cannot_connect_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise LostError({1})

    monkeypatch.setattr("parallel_rl.ranks.elastic.Generation", refuse)
    monkeypatch.setattr("parallel_rl.ranks.driver.SILENT_SECONDS", 0.1)
    threads = on_elastic_ranks(2, lambda ranks: ranks.join())
    assert "the ranks cannot connect" in str(threads[0].error)


def test_a_checkpoint_with_a_rank_missing_resumes_with_new_episodes(tmp_path: Path) -> None:
    class Save(Callback):
        def on_update(self, trainer: AsyncTrainer, metrics: Any) -> None:
            if len(trainer.history) == 3:
                trainer.save_checkpoint(tmp_path / "three.state")

    def body(ranks: Elastic) -> None:
        callbacks = [Save()] + [KilledAfter(2)] * (ranks.node == 1)
        with trainer_of(ranks, updates=3, callbacks=callbacks) as trainer:
            trainer.run()

    on_elastic_ranks(2, body)
    with trainer_of(ALONE) as trainer:
        with pytest.raises(ValueError, match="num_envs is 3 there and 6 here"):
            trainer.load_checkpoint(tmp_path / "three.state")
        trainer.load_checkpoint(tmp_path / "three.state", any_num_envs=True)
        assert trainer.steps_done >= 3 * BATCH
        trainer.run()


class Slow(gym.Wrapper):
    """Takes 10 ms a step."""

    def step(self, action: Any) -> Any:
        time.sleep(0.01)
        return self.env.step(action)


def test_a_slow_rank_is_preempted_and_all_learn_from_a_whole_batch() -> None:
    def body(ranks: Elastic) -> tuple[int, bytes, float]:
        rows = []

        class Rows(Callback):
            def on_rollout(self, trainer: AsyncTrainer, steps: int, episodes: Any) -> None:
                rows.append(steps)

        env = Slow if ranks.node == 2 else gym.Wrapper
        with trainer_of(ranks, env=lambda: env(gym.make("CartPole-v1")), callbacks=[Rows()]) as trainer:
            own = 0
            collect = trainer.collector.collect

            def counted(steps: int) -> Any:
                nonlocal own
                taken, episodes = collect(steps)
                own += taken
                return taken, episodes

            trainer.collector.collect = counted  # type: ignore[method-assign]
            trainer.run()
            assert sum(rows) == trainer.steps_done >= UPDATES * BATCH
            return own, weights(trainer), trainer.agent.rng.random()

    results = [thread.result for thread in on_elastic_ranks(3, body, preempt=0.6).values()]
    own, learned, random = zip(*results, strict=True)
    assert own[2] < 0.7 * own[0]
    assert own[2] >= UPDATES * BATCH / 3 / 4, "a quarter of its share"
    assert own[0] == own[1]
    assert len({*learned}) == len({*random}) == 1
