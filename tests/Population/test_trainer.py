"""Populations of seed-style agents: what each mode computes, and that nothing hangs."""

import copy
import math
import multiprocessing
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from Population import (
    Agent,
    AgentCombiner,
    EvaluatedAgentCombiner,
    ExploitExplore,
    FixedAgentCombiner,
    FixedStatAgentCombiner,
    MeanAgentCombiner,
    Mode,
    RandomAgentCombiner,
    SyncMode,
    Trainer,
)
from Population.schedule import make_schedule
from Population.statistics import stats_of
from PPO import PPO
from tests.Population.toys import Adder, Dice, Line, OwnConstant, OwnDice

QUIET: dict[str, Any] = {"progress": False, "seed": 0}
LEARNING: dict[str, Any] = QUIET | {"mode": "parallel_learning", "sync_mode": "sync"}


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    yield
    assert not multiprocessing.active_children(), "a member was left behind"


def adders(*constants: float, kind: type[Adder] = Adder) -> list[Agent]:
    return [kind(constant) for constant in constants]


def test_one_member_trains_in_this_process_and_returns_its_agent() -> None:
    given = Adder()
    trainer = Trainer(given, Line(), schedule=[("finish", 100, "steps"), ("train_agent", 20, "steps")], **QUIET)
    agent, result = trainer.run()
    assert (agent.number, agent.seen, agent.calls) == (5.0, 100, 100)
    assert (given.number, given.calls) == (0.0, 0), "it is copied"
    (worker,) = result["workers"]
    assert (worker["id"], worker["total_steps"], worker["total_episodes"], worker["agent_version"]) == (0, 100, 10, 5)
    assert worker["rewards"] == [10.0] * 10
    experience = worker["experience"]
    assert experience.observations[:12] == [[step % 10] for step in range(12)]
    assert experience.next_observations[9] == [10], "not the first observation of the next episode"
    assert experience.agent_versions == [step // 20 for step in range(100)]
    assert experience.episodes == [step // 10 + 1 for step in range(100)]
    assert result["trainer"] is trainer
    assert trainer.mode == Mode.PARALLEL_LEARNING == "parallel_learning"


class Overwriting(Line):
    """Writes every observation into the same array, which it returns alone or in a dict or tuple."""

    def __init__(self, kind: Callable[[np.ndarray], Any]) -> None:
        super().__init__(3)
        self.obs, self.kind = np.zeros(1), kind

    def reset(self) -> Any:
        self.obs[:], info = super().reset()
        return self.kind(self.obs), info

    def step(self, action: Any) -> Any:
        self.obs[:], *outcome = super().step(action)
        return self.kind(self.obs), *outcome


@pytest.mark.parametrize(
    ("kind", "array"),
    [
        (lambda obs: obs, lambda obs: obs),
        (lambda obs: {"at": obs}, lambda obs: obs["at"]),
        (lambda obs: (0, obs), lambda obs: obs[1]),
    ],
    ids=["array", "dict", "tuple"],
)
def test_experience_keeps_observations_that_the_environment_overwrites(kind: Any, array: Any) -> None:
    _, result = Trainer(Adder(), Overwriting(kind), schedule=[("finish", 5, "steps")], **QUIET).run()
    (worker,) = result["workers"]
    assert [array(obs).tolist() for obs in worker["experience"].observations] == [[0], [1], [2], [0], [1]]
    assert [array(obs).tolist() for obs in worker["experience"].next_observations] == [[1], [2], [3], [1], [2]]


def test_collecting_trains_the_main_agent_on_the_steps_of_all() -> None:
    schedule = [("finish", 100, "steps"), ("train_agent", 10, "steps")]
    trainer = Trainer(Adder(), Line(), 2, schedule=schedule, sync_mode="sync", **QUIET)
    agent, result = trainer.run()
    assert (agent.number, agent.seen, agent.calls) == (20.0, 200, 0)
    assert [worker["agent_version"] for worker in result["workers"]] == [20, 20]
    assert [worker["agent"].number for worker in result["workers"]] == [20.0, 20.0]
    assert [len(worker["experience"]) for worker in result["workers"]] == [100, 100]
    assert trainer.agent_version == 20
    assert trainer.sync_mode == SyncMode.SYNCHRONOUS


def test_collecting_without_training_returns_the_experience() -> None:
    agent, result = Trainer(Adder(), Line(), 2, schedule=[("finish", 5, "episodes")], **QUIET).run()
    assert (agent.number, [len(worker["experience"]) for worker in result["workers"]]) == (0.0, [50, 50])
    assert [{*worker["experience"].worker_ids} for worker in result["workers"]] == [{0}, {1}]


def test_remaining_experience_is_trained_on_at_the_end() -> None:
    schedule = [("finish", 25, "steps"), ("train_agent", 20, "steps")]
    agent, _ = Trainer(Adder(), Line(), schedule=schedule, **QUIET).run()
    assert (agent.number, agent.seen) == (2.0, 25)
    agent, _ = Trainer(Adder(), Line(), 3, schedule=schedule, **QUIET).run()
    assert agent.seen == 75, "collecting"


class Last(AgentCombiner):
    """Takes the last agent, and counts."""

    calls = 0

    def combine(self, workers_agents: Any, main_agent: Any, workers_stats: Any = None, stats: Any = None) -> Any:
        self.calls += 1
        return workers_agents[-1]


def test_combinations_are_counted_over_all_members_and_received_by_all() -> None:
    combiner = Last()
    schedule = [("finish", 200, "steps"), ("train_agent", 10, "steps"), ("combine_agents", 40, "steps")]
    agent, result = Trainer(adders(1, 100), Line(), 2, combiner=combiner, schedule=schedule, **LEARNING).run()
    assert combiner.calls == 10, "and not once more at the end"
    assert [worker["agent_version"] for worker in result["workers"]] == [30, 30]
    assert [worker["agent"].number for worker in result["workers"]] == [2000.0, 2000.0]
    assert agent.number == 2000.0


def test_members_without_combinations_keep_their_own_agents() -> None:
    schedule = [("finish", 200, "steps"), ("train_agent", 10, "steps")]
    agent, result = Trainer(adders(1, 2), Line(), 2, schedule=schedule, **LEARNING).run()
    assert [worker["agent"].number for worker in result["workers"]] == [20.0, 40.0]
    assert agent.number in {20.0, 40.0}, "trained, of a random member"


@pytest.mark.parametrize(
    ("combiner", "numbers"),
    [
        # worker i adds 10^i between two combinations; only the number travels
        (MeanAgentCombiner(), [37.0, 74.0, 111.0]),
        (FixedStatAgentCombiner("mean_reward"), [100.0, 200.0, 300.0]),
        (FixedAgentCombiner(1), [10.0, 20.0, 30.0]),
        (RandomAgentCombiner(0), [10.0, 20.0, 21.0]),  # random.Random(0) takes 1, 1, 0
    ],
    ids=lambda value: type(value).__name__,
)
def test_combined_agents_equal_known_answers(combiner: AgentCombiner, numbers: list[float]) -> None:
    schedule = [("finish", 30, "steps"), ("train_agent", 10, "steps"), ("combine_agents", 30, "steps")]
    combine, combined = combiner.combine, []

    def noted(*arguments: Any) -> Any:
        agent = combine(*arguments)
        combined.append(agent.number)
        return agent

    combiner.combine = noted  # type: ignore[method-assign]
    agents = adders(1, 10, 100, kind=OwnConstant)
    agent, result = Trainer(agents, Line(), 3, combiner=combiner, schedule=schedule, **LEARNING).run()
    assert combined == numbers
    assert agent.number == numbers[-1]
    assert [worker["agent"].number for worker in result["workers"]] == numbers[-1:] * 3


def test_best_combiner_before_any_episode_takes_the_first_agent() -> None:
    schedule = [("finish", 15, "steps"), ("train_agent", 5, "steps"), ("combine_agents", 10, "steps")]
    agent, _ = Trainer(
        adders(1, 5), Line(12), 2, combiner=FixedStatAgentCombiner(), schedule=schedule, **LEARNING
    ).run()  # fmt: skip
    assert agent.constant == 1.0, "the first, before there is an episode; then nobody has the other one"


def test_members_of_different_lengths_do_not_wait_for_those_that_have_finished() -> None:
    class Uneven(Line):
        def reset(self) -> Any:
            self.length = 3 if random.random() < 0.5 else 40
            return super().reset()

    schedule = [("finish", 4, "episodes"), ("train_agent", 5, "steps"), ("combine_agents", 6, "steps")]
    agent, result = Trainer(Adder(), Uneven(), 3, combiner=MeanAgentCombiner(), schedule=schedule, **LEARNING).run()
    assert [worker["total_episodes"] for worker in result["workers"]] == [4, 4, 4]
    assert len({worker["total_steps"] for worker in result["workers"]}) > 1
    assert agent.number > 0


@pytest.mark.covering
@pytest.mark.parametrize("n_workers", [1, 2])
@pytest.mark.parametrize("mode", ["parallel_collecting", "parallel_learning"])
def test_seed_and_members_determine_a_synchronous_run(mode: str, n_workers: int) -> None:
    def total(seed: int) -> tuple[float, list[float]]:
        schedule = [("finish", 60, "steps"), ("train_agent", 7, "steps"), ("combine_agents", 20, "steps")]
        options = LEARNING | {"mode": mode, "seed": seed}
        agent, result = Trainer(Dice(), Line(), n_workers, schedule=schedule, **options).run()
        return agent.total, [reward for worker in result["workers"] for reward in worker["rewards"]]

    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert total(0) == total(0)
    assert total(0) != total(1)
    assert before == (random.getstate(), np.random.get_state()[1].tolist()), "the streams of the caller"  # noqa: NPY002


@pytest.mark.parametrize("mode", ["parallel_collecting", "parallel_learning"])
def test_members_have_random_streams_of_their_own_also_after_a_combination(mode: str) -> None:
    schedule = [("finish", 40, "steps"), ("train_agent", 10, "steps"), ("combine_agents", 20, "steps")]
    _, result = Trainer(OwnDice(), Line(), 2, schedule=schedule, **LEARNING | {"mode": mode}).run()
    one, other = (worker["experience"].actions for worker in result["workers"])
    assert len({*one, *other}) == 80


@pytest.mark.parametrize("count", [8, pytest.param(200, marks=pytest.mark.slow)])
def test_generated_schedules_all_end(count: int) -> None:
    rng = random.Random(count)
    for _ in range(count):
        units = ["steps", "episodes"]
        schedule = [("finish", rng.choice([1, 7, 30]), "steps"), ("finish", rng.choice([1, 3]), "episodes")]
        for action in ("train_agent", "combine_agents", "worker_send_data"):
            if rng.random() < 0.6:
                schedule.append((action, rng.choice([0.5, 1, 3, 10, 100]), rng.choice(units)))
        mode = rng.choice([*Mode])
        trainer = Trainer(
            Adder(), Line(rng.choice([1, 4, 9])), rng.choice([1, 1, 2, 3]), mode, schedule=schedule,
            sync_mode=rng.choice([*SyncMode]), keep_experience=rng.random() < 0.5, **QUIET,
        )  # fmt: skip
        agent, result = trainer.run()
        assert all(worker["total_steps"] > 0 for worker in result["workers"])
        if any(rule[0] == "train_agent" for rule in schedule):
            assert agent.number > 0, schedule


@pytest.mark.parametrize("sync_mode", ["sync", "async"])
def test_seconds_end_a_run(sync_mode: str) -> None:
    schedule = [("finish", 0.2, "seconds"), ("train_agent", 0.05, "seconds")]
    agent, result = Trainer(Adder(), Line(), 2, schedule=schedule, sync_mode=sync_mode, **QUIET).run()
    assert agent.number >= 1
    assert all(worker["total_steps"] > 0 for worker in result["workers"])


def test_async_members_take_the_newest_agent() -> None:
    schedule = [("finish", 500, "steps"), ("train_agent", 20, "steps")]
    agent, result = Trainer(Adder(), Line(), 2, schedule=schedule, **QUIET).run()
    assert agent.seen == 1000
    assert all(max(worker["experience"].agent_versions) > 0 for worker in result["workers"])


class Known(Agent):
    """Knows on how many steps of each member it was trained."""

    def __init__(self, member: int) -> None:
        self.member, self.steps = member, np.zeros(2)

    def action(self, state: Any) -> int:
        return 0

    def train(self, experience: Any) -> None:
        self.steps[self.member] += len(experience)

    def get(self) -> np.ndarray:
        return self.steps.copy()

    def set(self, data: np.ndarray) -> None:
        self.steps = data


class Union(AgentCombiner):
    """Makes an agent that knows what any member knows."""

    def combine(self, workers_agents: Any, main_agent: Any, workers_stats: Any = None, stats: Any = None) -> Any:
        agent = copy.deepcopy(workers_agents[0])
        agent.steps = np.max([each.steps for each in workers_agents], axis=0)
        return agent


def test_async_members_continue_with_what_they_have_learned_themselves() -> None:
    schedule = [("finish", 2000, "steps"), ("train_agent", 5, "steps"), ("combine_agents", 20, "steps")]
    options = LEARNING | {"sync_mode": "async", "keep_experience": False}
    agent, result = Trainer([Known(0), Known(1)], Line(), 2, combiner=Union(), schedule=schedule, **options).run()
    assert agent.steps.tolist() == [2000, 2000], "a combination without its newest agent would lose steps"
    assert [worker["agent"].steps[worker["id"]] for worker in result["workers"]] == [2000, 2000]


def test_keep_experience_false_drops_used_steps() -> None:
    schedule = [("finish", 100, "steps"), ("train_agent", 20, "steps")]
    for n_workers in (1, 2):
        agent, result = Trainer(Adder(), Line(), n_workers, schedule=schedule, keep_experience=False, **QUIET).run()
        assert agent.seen == 100 * n_workers
        assert not len(result["workers"][0]["experience"])


class Hooks(Adder):
    def before(self) -> None:
        self.number = 100.0

    def after(self) -> None:
        self.number = -self.number


def test_before_and_after_are_called_in_the_member() -> None:
    _, result = Trainer(Hooks(), Line(), 2, schedule=[("finish", 10, "steps")], **LEARNING).run()
    assert [worker["agent"].number for worker in result["workers"]] == [-100.0, -100.0]


class Left(Agent):
    def action(self, state: Any) -> int:
        return 0

    def train(self, experience: Any) -> None:
        assert experience.observations[0].shape == (4,)


@pytest.mark.parametrize("env", ["CartPole-v1", gym.make("CartPole-v1"), lambda: gym.make("CartPole-v1")])
def test_gymnasium_environments_are_seeded(env: Any) -> None:
    schedule = [("finish", 3, "episodes"), ("train_agent", 1, "episodes")]
    runs = [Trainer(Left(), env, 2, schedule=schedule, **QUIET).run()[1]["workers"] for _ in range(2)]
    first, second = ([worker["experience"].observations[0].tolist() for worker in run] for run in runs)
    assert first == second
    assert first[0] != first[1], "each member has a stream of its own"


class Numbers:
    """An agent with a setting."""

    def __init__(self, lr: float) -> None:
        self.lr = lr


def test_exploit_explore_replaces_the_worst_by_a_perturbed_copy_of_the_best() -> None:
    agents = [Numbers(lr) for lr in (1.0, 2.0, 3.0, 4.0)]
    stats: list[Any] = [{"mean_reward": value} for value in (5.0, 1.0, 9.0, None)]
    combiner = ExploitExplore("mean_reward", of=["lr"], factors=[10.0])
    first, second, third, fourth = combiner.combine(agents, agents[0], stats)
    assert (first, third, fourth) == (agents[0], agents[2], agents[3]), "the last has no episode yet"
    assert second.lr == 30.0
    assert agents[2].lr == 3.0
    assert combiner.choose(agents, agents[0], stats) is agents[2]
    assert combiner.combine(agents[:1], agents[0], stats[:1]) == agents[:1], "there is nobody to learn from"


def test_exploit_explore_replaces_a_fraction_of_the_members() -> None:
    agents = [Numbers(10.0**k) for k in range(8)]
    stats: list[Any] = [{"mean_reward": float(value)} for value in (4, 8, 1, 6, 2, 7, 3, 5)]
    combiner = ExploitExplore("mean_reward", fraction=0.25, of=["lr"], factors=[3.0])
    rates = set()
    for _ in range(5):
        combined = combiner.combine(agents, agents[0], stats)
        assert [k for k in range(8) if combined[k] is not agents[k]] == [2, 4], "the worst two"
        rates |= {combined[2].lr, combined[4].lr}
    assert rates == {3e1, 3e5}, "from the best two"
    few = ExploitExplore("mean_reward", fraction=0.5, of=["lr"]).combine(agents[:3], agents[0], stats[:3])
    assert [k for k in range(3) if few[k] is not agents[k]] == [2], "at most half"
    for fraction in (0, 0.51):
        with pytest.raises(ValueError, match=r"fraction must be in \(0, 0.5\]"):
            ExploitExplore(fraction=fraction)


@pytest.mark.parametrize(
    ("setting", "value", "factor", "expected"),
    [
        ("k_epochs", 7, 0.8, 6),
        ("k_epochs", 1, 0.2, 1),
        ("gamma", 0.99, 1.2, 1.0),
        ("GAE_lambda", 0.5, 1.2, 0.6),
        ("entropy_coef", 1, 0.8, 0.8),
    ],
)
def test_exploit_explore_rounds_whole_numbers_and_stays_in_the_range_of_a_setting(
    setting: str, value: Any, factor: float, expected: Any
) -> None:
    agents = [PPO.for_env("CartPole-v1", hidden_sizes=(4,), **{setting: value}) for _ in range(2)]
    stats: list[Any] = [{"mean_reward": value} for value in (1.0, 2.0)]
    combiner = ExploitExplore("mean_reward", of=[setting], factors=[factor])
    explored = getattr(combiner.combine(agents, None, stats)[0], setting)
    assert explored == expected
    assert type(explored) is type(expected)


@pytest.mark.parametrize(
    ("agent", "name", "message"),
    [
        (PPO, "learning_rate", "'learning_rate': there is no such setting: did you mean 'lr'"),
        (PPO, "hidden_sizes", "'hidden_sizes': it cannot be changed"),
        (PPO, "target_kl", "'target_kl': it is None, not a number"),
        (PPO, "anneal_lr", "'anneal_lr': it is False, not a number"),
        (PPO, "entropy_coef", "'entropy_coef': it is 0 in all agents, which no factor changes"),
        (Adder, "number", "'number': it is 0 in all agents, which no factor changes"),
        (Adder, "lr_2", "'lr_2': there is no such setting"),
    ],
)
def test_exploit_explore_of_what_is_no_setting_is_an_error_before_the_run(agent: Any, name: str, message: str) -> None:
    made = PPO.for_env("CartPole-v1") if agent is PPO else agent()
    with pytest.raises(ValueError, match=f"^ExploitExplore cannot change {message}"):
        Trainer(made, "CartPole-v1", 2, combiner=ExploitExplore(of=[name]), **LEARNING)


def test_exploit_explore_takes_agents_of_which_some_have_0() -> None:
    agents = [PPO.for_env("CartPole-v1", entropy_coef=coef, seed=0) for coef in (0.0, 0.01)]
    ExploitExplore(of=["entropy_coef"]).check(agents)
    ExploitExplore().check(agents)


@pytest.mark.parametrize("idx", [2, -3, 0.5, "1"])
def test_a_fixed_combiner_of_a_member_that_does_not_exist_is_an_error_before_the_run(idx: Any) -> None:
    with pytest.raises(ValueError, match=f"FixedAgentCombiner takes the number of one of the 2 members, not {idx!r}"):
        Trainer(Adder(), Line(), 2, combiner=FixedAgentCombiner(idx), **LEARNING)
    Trainer(Adder(), Line(), 2, combiner=FixedAgentCombiner(-1), **LEARNING)


def test_exploit_explore_keeps_settings_that_would_exclude_each_other() -> None:
    agents = [PPO.for_env("CartPole-v1", batch_size=64, mini_batch_size=64, hidden_sizes=(4,)) for _ in range(2)]
    combiner = ExploitExplore("mean_reward", of=["lr", "mini_batch_size"], factors=[2.0])
    explored = combiner.combine(agents, None, [{"mean_reward": 1.0}, {"mean_reward": 2.0}])[0]
    assert (explored.lr, explored.mini_batch_size) == (0.002, 64)


@pytest.mark.parametrize("factors", [(), (0.0, 1.2), (-1.0,), (float("inf"),)])
def test_factors_of_exploit_explore_are_positive(factors: Any) -> None:
    with pytest.raises(ValueError, match="factors must be positive numbers"):
        ExploitExplore(factors=factors)


def test_a_statistic_that_is_not_a_number_does_not_count() -> None:
    stats: list[Any] = [{"mean_reward": value} for value in (float("nan"), 1.0, 2.0)]
    assert FixedStatAgentCombiner("mean_reward").combine("abc", "a", stats) == "c"


class Pusher:
    """Pushes the cart of CartPole to one side, or in turn to both."""

    def __init__(self, *sides: int) -> None:
        self.sides = sides

    def get_action(self, obs: np.ndarray, deterministic: bool = False) -> np.ndarray:
        angle_is_positive = (obs[:, 2] > 0).astype(int)
        return np.array(self.sides)[angle_is_positive % len(self.sides)]


def test_the_best_agent_of_an_evaluation_is_taken_whatever_the_statistics_say() -> None:
    lucky, balancing = Pusher(0), Pusher(0, 1)
    stats: list[Any] = [{"mean_reward": 2.0}, {"mean_reward": 1.0}]
    assert FixedStatAgentCombiner("mean_reward").combine([lucky, balancing], None, stats) is lucky
    assert EvaluatedAgentCombiner("CartPole-v1", 5).combine([lucky, balancing], None, stats) is balancing


def test_agents_that_cannot_be_evaluated_are_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="evaluates agents by get_action, not Adder"):
        Trainer(adders(1, 5), Line(12), 2, combiner=EvaluatedAgentCombiner(Line(12)), **LEARNING)


def test_statistics_are_of_all_episodes_and_of_the_last_hundred() -> None:
    stats = stats_of([1000.0, -1000.0, *map(float, range(100))])
    assert [stats[f"{name}_reward"] for name in ("max", "mean", "median", "min")] == [1000, 4950 / 102, 49.5, -1000]
    assert [stats[f"{name}_x_episodes_reward"] for name in ("max", "mean", "median", "min")] == [99, 49.5, 49.5, 0]


def test_members_send_as_often_as_their_share_of_what_all_do_together() -> None:
    rules = [("combine_agents", 60, "steps"), ("combine_agents", 40, "steps"), ("train_agent", 9, "episodes"),
             ("finish", 100, "steps"), ("finish", 2, "episodes")]  # fmt: skip
    learning = make_schedule(rules, 4, learning=True)
    assert learning.worker_send_data == (10, 2, math.inf)
    assert learning.combine_agents == (40, math.inf, math.inf)
    assert make_schedule(rules, 9, learning=False).worker_send_data == (100, 1, math.inf)
    own = [*rules, ("worker_send_data", 7, "steps")]
    assert make_schedule(own, 4, learning=True).worker_send_data == (7, 2, math.inf)


def test_a_list_of_agents_goes_to_the_members() -> None:
    class Swap(Last):
        def combine(self, workers_agents: Any, main_agent: Any, workers_stats: Any = None, stats: Any = None) -> Any:
            return workers_agents[::-1]

        def choose(self, workers_agents: Any, main_agent: Any, workers_stats: Any) -> Any:
            return workers_agents[0]

    schedule = [("finish", 30, "steps"), ("train_agent", 10, "steps"), ("combine_agents", 20, "steps")]
    agent, result = Trainer(adders(1, 10), Line(), 2, combiner=Swap(), schedule=schedule, **LEARNING).run()
    assert [worker["agent"].constant for worker in result["workers"]] == [10.0, 1.0], "swapped three times"
    assert [worker["agent"].number for worker in result["workers"]] == [30.0, 3.0]
    assert isinstance(agent, Adder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_workers": 0}, "n_workers must be a positive whole number, not 0"),
        ({"mode": "parallel_dreaming"}, "mode must be one of parallel_collecting, parallel_learning"),
        ({"sync_mode": "maybe"}, "sync_mode must be one of sync, async"),
        ({"agent": [Adder()], "n_workers": 2, "mode": "parallel_learning"}, "there are 1 agents for 2 workers"),
        ({"agent": adders(1, 2), "n_workers": 2}, "a list of agents needs mode='parallel_learning'"),
        ({"schedule": [("train_agent", "often", "steps")]}, "must be a positive number, not 'often'"),
        ({"schedule": [("train_agent", 0, "steps")]}, "must be a positive number, not 0"),
        ({"schedule": [("train", 1, "steps")]}, "must be one of train_agent, worker_send_data, finish"),
        ({"schedule": [("finish", 1, "years")]}, "the unit in the rule .* must be one of steps, episodes, seconds"),
        ({"schedule": ["finish"]}, r"a rule of the schedule is a tuple \(action, interval, unit\)"),
        ({"on_worker_error": "ignore"}, "on_worker_error must be one of raise, restart"),
        ({"step_timeout": 0}, "step_timeout must be positive"),
        ({"num_envs": 0}, "num_envs must be at least 1, not 0"),
        ({"step_timeout": 1}, "^step_timeout needs n_workers >= 2: a single member runs in this process"),
        ({"on_worker_error": "restart"}, "^on_worker_error='restart' needs n_workers >= 2: a single member"),
        ({"trainer_options": {"mode": "mask"}}, r"trainer_options are for agents that AsyncTrainer trains \(PPO"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Trainer(**{"agent": Adder(), "env": Line()} | arguments)


def test_a_run_without_an_end_or_an_agent_is_an_error() -> None:
    with pytest.raises(ValueError, match="the schedule has no rule when to finish"):
        Trainer(Adder(), Line(), schedule=[("train_agent", 10, "steps")]).run()
    with pytest.raises(TypeError, match="is not an agent: it has no action"):
        Trainer(object(), Line())
    with pytest.raises(TypeError, match=r"Trainer\(\) got an unexpected .* 'worker': did you mean 'n_workers'"):
        Trainer(Adder(), Line(), worker=2)  # type: ignore[call-arg]
    for combiner in ("mean", MeanAgentCombiner):
        with pytest.raises(TypeError, match=r"combiner must be an AgentCombiner such as MeanAgentCombiner\(\), not"):
            Trainer(Adder(), Line(), combiner=combiner)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mood", "has no 'mood': did you mean 'mode'?"),
        ("zzz", "has no 'zzz'"),
        ("num_envs", "cannot have 'num_envs': Trainer sets it for its members"),
        ("seed", "cannot have 'seed': Trainer sets it for its members"),
    ],
)
def test_a_wrong_name_in_trainer_options_is_an_error_before_the_run(name: str, message: str) -> None:
    with pytest.raises(TypeError, match=f"^{re.escape(f'trainer_options {message}')}$"):
        Trainer(PPO.for_env("CartPole-v1"), "CartPole-v1", 2, trainer_options={name: 1}, **LEARNING)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step_timeout": 1.0}, "step_timeout needs worker processes: the inline backend cannot interrupt a step"),
        ({"backend": "threads"}, "backend must be 'auto', 'inline', 'process' or 'vector', not 'threads'"),
        ({"close_timeout": -1.0}, "close_timeout must be finite and not negative, not -1.0"),
        ({"mode": "maybe"}, "mode must be 'streaming' or 'mask', not 'maybe'"),
        ({"lag": 2}, "lag must be 0 or 1, not 2"),
    ],
)
def test_a_wrong_value_in_trainer_options_is_an_error_before_the_run(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Trainer(PPO.for_env("CartPole-v1"), "CartPole-v1", 2, trainer_options=options, **LEARNING)
