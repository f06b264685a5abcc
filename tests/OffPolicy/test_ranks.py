"""Off-policy agents on several ranks learn what one learns from the rows of all."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from AsyncPPO import AsyncTrainer
from AsyncPPO.callbacks import Callback
from OffPolicy import DDPG, DQN, SAC, TD3, OffPolicyAgent
from OffPolicy.learner import WeightedRanks
from OffPolicy.replay import Transitions
from OffPolicy.sampler import shares
from parallel_rl.ranks.elastic import Elastic
from parallel_rl.utils import ALONE, Ranks, Trajectory, load_state, state_to_bytes
from tests.covering import rest_slow
from tests.ranks import Fragile, Killed, errors_on_ranks, on_elastic_ranks, on_ranks

OBSERVATIONS, BOX, CHOICES = spaces.Box(-1, 1, (3,), np.float32), spaces.Box(-2, 2, (2,)), spaces.Discrete(3)
ENVS = 5
AGENTS: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "sac": (SAC, "Pendulum-v1", {"normalize_obs": True}),
    "td3": (TD3, "Pendulum-v1", {"eps_greedy": 0.2, "policy_delay": 1}),
    "ddpg": (DDPG, "Pendulum-v1", {"action_noise": "ou_0.2", "parameter_noise": 0.1, "prioritized": True}),
    "dqn": (DQN, "CartPole-v1", {"n_step": 3, "dueling": True, "prioritized": True}),
}
ALL = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ("sac", "ddpg") else pytest.mark.slow) for name in AGENTS]
)
PRIORITIZED = pytest.mark.parametrize("name", rest_slow("ddpg", "dqn", "sac", "td3"))
SIZES: dict[str, Any] = {
    "hidden_sizes": (8,), "batch_size": 16, "learning_starts": 50, "train_freq": 10, "buffer_size": 100, "utd": 0.2,
}  # fmt: skip
STEPS, HALF = 150, 100


class Given:
    """A random stream that returns the rows of a table in place of new normal numbers."""

    def __init__(self, table: np.ndarray) -> None:
        self.table = table

    def standard_normal(self, shape: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
        *copies, rows, columns = shape
        return np.broadcast_to(self.table[:rows, :columns], (*copies, rows, columns)).astype(dtype)


def batch_of(agent: OffPolicyAgent, size: int) -> Transitions:
    rng = np.random.default_rng(5)
    action = rng.integers(3, size=size) if agent.action_space == CHOICES else np.float32(rng.uniform(-1, 1, (size, 2)))
    numbers = [np.float32(rng.normal(size=shape)) for shape in ((size, 3), size, (size, 3))]
    discount, weight = np.float32(rng.choice([0, 0.9], size)), np.float32(rng.random(size))
    return Transitions(*map(torch.from_numpy, (numbers[0], action, *numbers[1:], discount, weight)))


@pytest.mark.parametrize(("kind", "demos"), [(SAC, 0), (TD3, 0), (DDPG, 0), (DQN, 0), (SAC, 4), (TD3, 4), (DDPG, 4)])
def test_gradients_are_those_of_all_rows(kind: Any, demos: int) -> None:
    table, first = np.random.default_rng(3).standard_normal((12, 2)), 12 - demos
    rows = [[0, 1, 2], [3], [*range(4, 12)]] if not demos else [[0, 1, 2, 8], [3], [4, 5, 6, 7, 9, 10, 11]]

    def learned(ranks: Ranks) -> OffPolicyAgent:
        options = {"policy_delay": 1} if kind is TD3 else {}
        options |= {"demo_batch_size": demos, "demo_weight": 3.0, "q_filter": True} if demos else {}
        agent = kind(
            OBSERVATIONS, CHOICES if kind is DQN else BOX, hidden_sizes=(8,), buffer_size=10, seed=1, **options
        )
        own = rows[ranks.rank] if ranks.world_size > 1 else [*range(12)]
        agent.rng = Given(table[own])
        batch = Transitions(*[tensor[own] for tensor in batch_of(agent, 12)])
        agent.learn_from(batch, WeightedRanks(ranks, len(own) / 12, sum(row >= first for row in own)))
        return agent

    whole = learned(ALONE)
    for agent in on_ranks(3, learned):
        for name, learner in agent.learners.items():
            expected = whole.learners[name].optimizer.gradient
            assert (learner.optimizer.gradient - expected).norm() <= 1e-5 * expected.norm(), name


def test_shares_of_a_minibatch_follow_the_masses_and_add_up() -> None:
    assert shares([3.0], 16) == [16]
    assert shares([100, 300], 16) == [4, 12]
    assert shares([1, 10_000], 16) == [0, 16]
    assert sum(shares([0.3, 0.3, 0.4, 1e-9], 7)) == 7


def trainer_of(name: str, ranks: Any, steps: int = STEPS, **options: Any) -> AsyncTrainer:
    kind, env, settings = AGENTS[name]
    agent = kind.for_env(env, seed=7, **(SIZES | settings | options.pop("settings", {})))
    options = {"seed": 11, "progress": False, "backend": "inline"} | options
    return AsyncTrainer(env, agent, ENVS, steps, ranks=ranks, **options)


def learned(trainer: AsyncTrainer) -> bytes:
    """Return everything that must be the same on all ranks."""
    agent: Any = trainer.agent
    tensors = [learner.vector for learner in agent.learners.values()] + [*agent.policy.buffers()]
    numbers = torch.cat([tensor.double().flatten() for tensor in tensors]).numpy()
    return numbers.tobytes() + str([agent.steps, agent.updates, agent.rng.random()]).encode()


def told(trainer: AsyncTrainer) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in trainer.history]


@ALL
def test_ranks_stay_alike_count_all_steps_and_are_repeatable(name: str) -> None:
    def body(ranks: Ranks) -> tuple[bytes, str]:
        with trainer_of(name, ranks) as trainer:
            trainer.run()
            assert trainer.agent.steps == trainer.steps_done == STEPS
            assert trainer.agent.updates == 20  # utd 0.2 of 100 steps after `learning_starts`
            assert len(trainer.agent.replay) <= 2 * SIZES["buffer_size"] / ENVS, "those of its own environments"
            return learned(trainer), str(told(trainer))

    results = on_ranks(3, body)
    assert len({*results, *on_ranks(3, body)}) == 1


def test_updates_come_after_the_same_steps_on_any_number_of_ranks() -> None:
    class Rounds(Callback):
        def __init__(self) -> None:
            self.seen = {0: 0}

        def on_rollout(self, trainer: AsyncTrainer, steps: int, episodes: Any) -> None:
            self.seen.setdefault(trainer.agent.updates, trainer.steps_done)

    def body(ranks: Ranks) -> dict[int, int]:
        rounds, settings = Rounds(), {"learning_starts": 41, "train_freq": 12, "utd": 1.0}
        with trainer_of("dqn", ranks, settings=settings, callbacks=[rounds]) as trainer:
            trainer.run()
        return rounds.seen

    alone = body(ALONE)
    assert [*alone.values()][1] == 55, "the first multiple of the environments after 41 + 12 steps"
    assert on_ranks(2, body) == [alone, alone]


@PRIORITIZED
def test_a_run_of_one_rank_is_a_run_without_ranks(name: str) -> None:
    def body(ranks: Any) -> tuple[bytes, str]:
        with trainer_of(name, ranks) as trainer:
            trainer.run()
            return learned(trainer), str(told(trainer))

    assert on_ranks(1, body) == [body(ALONE)]
    assert [thread.result for thread in on_elastic_ranks(1, body).values()] == [body(ALONE)]


@pytest.mark.parametrize(("name", "sums"), [("dqn", 1), ("ddpg", 2), ("td3", 2), ("sac", 2)])
def test_sums_of_an_update(name: str, sums: int) -> None:
    def body(ranks: Any) -> int:
        all_reduce, count = ranks.all_reduce, 0

        def counted(vector: torch.Tensor) -> torch.Tensor:
            nonlocal count
            count += 1
            return all_reduce(vector)

        ranks.all_reduce = counted
        with trainer_of(name, ranks, 100) as trainer:
            trainer.run()
            assert count == sums * trainer.agent.updates > 0
        return count

    on_ranks(2, body)


@PRIORITIZED
def test_experience_until_the_first_update_does_not_depend_on_the_number_of_ranks(name: str) -> None:
    def body(ranks: Ranks) -> list[Trajectory]:
        observed: list[Trajectory] = []
        with trainer_of(name, ranks, 100, settings={"learning_starts": 40}) as trainer:
            observe = trainer.agent.observe

            def noted(trajectories: list[Trajectory], *others: Ranks) -> None:
                observed.extend(trajectories)
                observe(trajectories, *others)

            trainer.agent.observe = noted
            trainer.agent.update = lambda *arguments: {}
            trainer.run()
        return observed

    def rows(trajectories: list[Trajectory], env_id: int) -> np.ndarray:
        return np.concatenate([one.obs for one in trajectories if one.env_id == env_id])

    whole, parts = body(ALONE), on_ranks(2, body)
    for env_id in range(ENVS):
        rank = int(env_id >= ENVS // 2)
        expected = rows(whole, env_id)
        np.testing.assert_array_equal(rows(parts[rank], env_id - ENVS // 2 * rank), expected)
        assert len(expected) == 20


class SaveAt(Callback):
    """Saves a checkpoint after some steps."""

    def __init__(self, path: Path, steps: int) -> None:
        self.path, self.steps = path, steps

    def on_rollout(self, trainer: AsyncTrainer, steps: int, episodes: Any) -> None:
        if trainer.steps_done == self.steps:
            trainer.save_checkpoint(self.path)


def saving(name: str, ranks: Ranks, path: Path, steps: int, **options: Any) -> Any:
    """Train, and save a checkpoint after some steps; return the trainer."""
    with trainer_of(name, ranks, callbacks=[SaveAt(path, steps)], **options) as trainer:
        trainer.run()
    return trainer


@ALL
def test_resume_with_as_many_ranks_is_exact(name: str, tmp_path: Path) -> None:
    path = tmp_path / "half.state"

    def resumed(ranks: Ranks) -> bytes:
        with trainer_of(name, ranks) as trainer:
            trainer.load_checkpoint(path)
            trainer.run()
            return learned(trainer)

    assert {*on_ranks(2, lambda ranks: learned(saving(name, ranks, path, HALF)))} == {*on_ranks(2, resumed)}


@ALL
def test_a_checkpoint_of_ranks_has_the_transitions_of_all_and_resumes_on_any_number(name: str, tmp_path: Path) -> None:
    path = tmp_path / "whole.state"

    def resumed(ranks: Ranks) -> Any:
        with trainer_of(name, ranks, 50) as trainer:
            trainer.load_checkpoint(path)
            loaded = copy.deepcopy(trainer.agent.sampler.state())
            trainer.run()
            assert trainer.steps_done == STEPS + 50
            return loaded

    def of_environment(samplers: list[Any], index: int) -> list[np.ndarray]:
        """Return the rows of one environment, and the positions of their final observations in its ring."""
        for sampler in samplers:
            replay, envs = sampler["replay"], sampler["replay"]["num_envs"]
            if index < envs:
                count = min(int(replay["written"][index]) + 1, SIZES["buffer_size"] // ENVS)
                steps = [replay[field][index::envs][:count] for field in ("obs", "action", "reward", "is_transition")]
                final = replay["final_row"][index::envs][:count][steps[-1]]
                assert (final[final >= 0] % envs == index).all()
                priorities = sampler["priorities"]
                leaves = [] if priorities is None else [priorities["priorities"][index::envs][:count]]
                return [*steps, np.where(final < 0, final, final // envs), *leaves]
            index -= envs
        raise AssertionError

    saved = on_ranks(2, lambda ranks: saving(name, ranks, path, STEPS).agent.sampler.state())
    assert load_state(path)["agent"]["sampler"]["replay"]["num_envs"] == ENVS
    for samplers in (saved, [resumed(ALONE)], on_ranks(3, resumed)):
        for index in range(ENVS):
            np.testing.assert_equal(of_environment(samplers, index), of_environment(saved, index))


def test_a_checkpoint_sends_transitions_to_the_first_rank_only(tmp_path: Path) -> None:
    def body(ranks: Any) -> tuple[int, int]:
        with trainer_of("sac", ranks) as trainer:
            trainer.run()
            all_gather, received = ranks.all_gather, 0

            def counted(tree: Any) -> list[Any]:
                nonlocal received
                trees = all_gather(tree)
                received += len(state_to_bytes(trees))
                return trees

            ranks.all_gather = counted
            trainer.save_checkpoint(tmp_path / "whole.state")
            return received, len(state_to_bytes(trainer.agent.sampler.state()))

    for received, own in on_ranks(3, body):
        assert received < own / 4


@pytest.fixture
def demonstrated(tmp_path: Path) -> dict[str, Any]:
    """Settings to learn Pendulum from a file of one episode, whose actions are all 1.5."""
    path = tmp_path / "demos.npz"
    np.savez(path, obs=np.ones((1, 8, 3)), acs=np.full((1, 7, 1), 1.5), rew=np.zeros((1, 7)))
    return {"settings": {"demo_path": str(path), "demo_batch_size": 7}}


class KilledAt(Callback):
    """Kills its rank after some steps, unless it has joined later."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_rollout(self, trainer: AsyncTrainer, steps: int, episodes: Any) -> None:
        if trainer.steps_done >= self.steps and not trainer.ranks.joined:
            raise Killed


class Whole(Callback):
    """Stops the run some steps after all environments have come again."""

    def __init__(self) -> None:
        self.lost = False

    def on_rollout(self, trainer: AsyncTrainer, steps: int, episodes: Any) -> None:
        self.lost = self.lost or trainer.running_envs < ENVS
        if self.lost and trainer.running_envs == ENVS and trainer.steps_done > 200:
            trainer.stop("all have come")


@pytest.mark.parametrize("name", ["sac", "dqn"])
def test_a_lost_rank_is_replaced_and_all_learn_the_same(name: str, demonstrated: dict[str, Any]) -> None:
    settings = {"train_freq": 30} | (demonstrated["settings"] if name == "sac" else {})

    def body(ranks: Elastic) -> tuple[bytes, int]:
        callbacks = {0: [Whole()], 2: [KilledAt(100)]}.get(ranks.node, [])
        with trainer_of(name, ranks, 100_000, callbacks=callbacks, settings=settings) as trainer:
            trainer.run()
            assert len(trainer.agent.replay) > 0
            return learned(trainer), trainer.steps_done

    said: list[str] = []
    threads = on_elastic_ranks(3, body, said=said)
    for thread in threads.values():
        if thread.error is not None:
            raise thread.error
    assert said == ["lost      rank 2", "joins     rank 2"]
    results = [thread.result for thread in threads.values() if thread.result is not None]
    assert len(results) == 3
    assert len({*results}) == 1


@pytest.mark.covering
@pytest.mark.parametrize("name", ["sac", "dqn"])
@pytest.mark.parametrize("left", [61, pytest.param(86, marks=pytest.mark.slow), 100])
def test_ranks_that_repeat_an_update_learn_the_same(name: str, left: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parallel_rl.ranks.elastic.Generation", Fragile)

    def body(ranks: Elastic) -> tuple[bytes, int]:
        Fragile.lives.left = left if ranks.node == 2 and not ranks.joined else None
        with trainer_of(name, ranks, 200) as trainer:
            trainer.run()
            return learned(trainer), trainer.steps_done

    said: list[str] = []
    results = [thread.result for thread in on_elastic_ranks(3, body, said=said).values() if thread.result is not None]
    assert said[0] == "lost      rank 2"
    assert len({*results}) == 1


def test_the_agent_of_a_rank_can_be_copied_when_its_part_of_the_buffer_is_full() -> None:
    agent = DQN(spaces.Box(-1, 1, (2,)), spaces.Discrete(2), buffer_size=40, seed=0)
    agent.take_share(slice(0, 2), 4)
    rows, never = np.ones((15, 2), np.float32), np.zeros(15, bool)
    agent.observe([Trajectory(env, rows, never.astype(int), rows[:, 0], never, never, rows[:1]) for env in (0, 1)])
    assert len(copy.deepcopy(agent).replay) == len(agent.replay) < 20


def test_an_undone_update_leaves_no_trace_but_its_transitions() -> None:
    with trainer_of("ddpg", ALONE, 100, settings={"buffer_size": 1000}) as trainer:
        trainer.run()
        agent: Any = trainer.agent
        undo, transitions, random = agent.savepoint(), len(agent.replay), agent.rng.bit_generator.state
        vectors = {name: learner.vector.clone() for name, learner in agent.learners.items()}
        trainer.run()
        assert not torch.equal(agent.actor_learner.vector, vectors["actor"])
        undo()
    assert len(agent.replay) > transitions
    assert (agent.steps, agent.rng.bit_generator.state) == (100, random)
    for name, learner in agent.learners.items():
        assert torch.equal(learner.vector, vectors[name])


def test_demonstrations_in_a_minibatch_are_dealt_to_ranks_in_proportion_to_its_rows(
    demonstrated: dict[str, Any],
) -> None:
    def body(ranks: Ranks) -> tuple[list[tuple[int, int, float]], bytes, str]:
        taken = []
        with trainer_of("sac", ranks, **copy.deepcopy(demonstrated)) as trainer:
            agent: Any = trainer.agent
            learn_from = agent.learn_from

            def noted(batch: Transitions, weighted: WeightedRanks) -> Any:
                shown = batch.action[len(batch.action) - weighted.demos :]
                assert torch.equal(shown, torch.full_like(shown, 0.75)), "1.5 of at most 2"
                taken.append((len(batch.obs) - weighted.demos, weighted.demos, weighted.weight))
                return learn_from(batch, weighted)

            agent.learn_from = noted
            trainer.run()
            return taken, learned(trainer), str(told(trainer))

    results = on_ranks(3, body)
    assert results == on_ranks(3, body)
    assert len({(weights, rows) for _, weights, rows in results}) == 1
    for parts in zip(*[taken for taken, _, _ in results], strict=True):
        assert np.sum(parts, axis=0) == pytest.approx([SIZES["batch_size"], 7, 1])
        for own, shown, weight in parts:
            assert shown == pytest.approx(7 * own / SIZES["batch_size"], abs=1)
            assert weight == pytest.approx((own + shown) / (SIZES["batch_size"] + 7))


def test_resume_of_ranks_with_demonstrations_is_exact(demonstrated: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "half.state"

    def whole(ranks: Ranks) -> bytes:
        return learned(saving("sac", ranks, path, HALF, **copy.deepcopy(demonstrated)))

    def resumed(ranks: Ranks) -> bytes:
        with trainer_of("sac", ranks, **copy.deepcopy(demonstrated)) as trainer:
            trainer.load_checkpoint(path)
            trainer.run()
            return learned(trainer)

    assert {*on_ranks(2, whole)} == {*on_ranks(2, resumed)}


def test_missing_demonstrations_are_an_error_before_the_first_step(tmp_path: Path) -> None:
    path = tmp_path / "none.npz"

    def body(ranks: Ranks) -> None:
        trainer_of("sac", ranks, settings={"demo_path": str(path)})

    for error in errors_on_ranks(2, body):
        assert isinstance(error, FileNotFoundError)
        assert f"no demonstrations at {path}" in str(error)
