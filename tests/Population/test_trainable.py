"""Populations of agents of AsyncTrainer: PPO, DQN, and an agent without methods for populations."""

import copy
import multiprocessing
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from AsyncPPO import AsyncPPO, AsyncTrainer
from OffPolicy import DDPG, DQN, SAC, TD3
from parallel_rl.networks.normalizer import RunningNorm, merged_statistics
from Population import (
    ExploitExplore,
    FixedAgentCombiner,
    FixedStatAgentCombiner,
    MeanAgentCombiner,
    MemberError,
    Trainer,
)
from Population.schedule import Count
from Population.transport import reseeded, shared
from PPO import ICM, PPO, RND
from tests.covering import rest_slow
from tests.envs import Counter
from tests.toy_agent import ToyAgent

BATCH = 128
SCHEDULE = [("finish", 4 * BATCH, "steps"), ("combine_agents", 2 * BATCH, "steps")]
OPTIONS: dict[str, Any] = {
    "mode": "parallel_learning", "sync_mode": "sync", "schedule": SCHEDULE, "seed": 3, "progress": False,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    yield
    assert not multiprocessing.active_children(), "a member was left behind"


def ppo(**settings: Any) -> PPO:
    return PPO.for_env("CartPole-v1", batch_size=BATCH, mini_batch_size=64, k_epochs=2, seed=0, **settings)


def weights(agent: Any) -> np.ndarray:
    return torch.nn.utils.parameters_to_vector(agent.policy.parameters()).detach().numpy()


def betas(agent: Any) -> list[float]:
    return [companion.beta for companion in agent.companions]


def test_the_returns_in_a_checkpoint_are_known_before_the_run_continues(tmp_path: Path) -> None:
    def made(*callbacks: Callable[[Trainer], None]) -> Trainer:
        return Trainer(ppo(), "CartPole-v1", 2, combiner=MeanAgentCombiner(), callbacks=callbacks, **OPTIONS)

    first = made(lambda trainer: trainer.save_checkpoint(tmp_path / "state"))
    first.run()
    again = made()
    assert (again.returns, again.last) == ([], Count())
    again.load_checkpoint(tmp_path / "state")
    assert again.returns == first.returns
    assert all(first.returns)


def test_both_ppos_continue_with_their_mean() -> None:
    agent, result = Trainer(ppo(), "CartPole-v1", 2, combiner=MeanAgentCombiner(), **OPTIONS).run()
    assert [worker["total_steps"] for worker in result["workers"]] == [512, 512]
    assert all(len(worker["history"]) == 4 and worker["rewards"] for worker in result["workers"])
    assert agent.updates == 4
    for worker in result["workers"]:
        np.testing.assert_array_equal(weights(worker["agent"]), weights(agent))
    again, _ = Trainer(ppo(), "CartPole-v1", 2, combiner=MeanAgentCombiner(), **OPTIONS).run()
    np.testing.assert_array_equal(weights(again), weights(agent))


def test_members_start_with_equal_weights_and_different_random_streams() -> None:
    _, result = Trainer(ppo(), "CartPole-v1", 2, **OPTIONS | {"schedule": SCHEDULE[:1]}).run()
    one, other = (worker["agent"] for worker in result["workers"])
    assert not np.array_equal(weights(one), weights(other))
    assert result["workers"][0]["rewards"] != result["workers"][1]["rewards"]


def test_a_single_member_is_a_run_of_async_ppo() -> None:
    agent, result = Trainer(ppo(), "CartPole-v1", 1, **OPTIONS | {"schedule": SCHEDULE[:1]}).run()
    from parallel_rl.utils import spawn_seeds

    seed = spawn_seeds(3, 1)[0]
    with AsyncPPO(
        "CartPole-v1", reseeded(ppo(), seed), num_envs=8, steps=512, seed=seed, backend="inline", progress=False
    ) as trainer:
        trainer.run()
    np.testing.assert_array_equal(weights(agent), weights(trainer.ppo))
    assert result["workers"][0]["history"][-1]["policy_loss"] == trainer.history[-1]["policy_loss"]


def test_a_member_keeps_the_replay_buffer_of_its_trained_agent() -> None:
    settings = {"learning_starts": 10, "batch_size": 8, "buffer_size": 500, "hidden_sizes": (8,), "seed": 0}
    agent = DQN.for_env("CartPole-v1", replay_in_checkpoint=False, **settings)
    with AsyncTrainer("CartPole-v1", agent, 1, 100, backend="inline", progress=False, seed=0) as trainer:
        trainer.run()
    draws = agent.rng.bit_generator.state
    stored = len(agent.replay)
    assert len(reseeded(agent, 1).replay) == stored > 90
    assert agent.rng.bit_generator.state != draws


@pytest.mark.parametrize("n_workers", [1, 2])
def test_members_that_neither_learn_nor_end_an_episode_are_one_warning_each(
    n_workers: int, recwarn: pytest.WarningsRecorder
) -> None:
    agent = PPO.for_env(Counter(), batch_size=128, mini_batch_size=64)
    options = OPTIONS | {"schedule": [("finish", 100, "steps")], "num_envs": 4}
    Trainer(agent, partial(Counter, 10**9), n_workers, **options).run()
    assert [str(warning.message)[:34] for warning in recwarn] == [
        "steps (100) is less than the 128 t",
        "no episode ended within 100 steps,",
    ]
    assert {Path(warning.filename).name for warning in recwarn} == {Path(__file__).name}


@pytest.mark.filterwarnings("error")
def test_members_whose_last_vector_step_completes_the_batch_learn_without_a_warning() -> None:
    options = OPTIONS | {"schedule": [("finish", BATCH - 3, "steps")], "num_envs": 4}
    _, result = Trainer(ppo(), "CartPole-v1", 2, **options).run()
    assert ["policy_loss" in row for row in result["workers"][1]["history"]] == [True]


def rates(*rules: tuple[str, float, str], **options: Any) -> list[float]:
    """Return the learning rates of a single member that anneals it."""
    arguments = OPTIONS | {"schedule": rules} | options
    _, result = Trainer(ppo(anneal_lr=True, lr=1.0), "CartPole-v1", 1, **arguments).run()
    return [row["lr"] for row in result["workers"][0]["history"]]


def test_settings_are_annealed_over_what_ends_a_member() -> None:
    by_steps = rates(("finish", 8 * BATCH, "steps"))
    assert by_steps == [1 - update / 8 for update in range(1, 9)]
    by_episodes = rates(("finish", 40, "episodes"))
    assert by_episodes == sorted(by_episodes, reverse=True)
    assert len(by_episodes) > 3
    assert by_episodes[0] > 0.5
    assert by_episodes[-1] == 0
    assert rates(("finish", 8 * BATCH, "steps"), ("finish", 10_000, "episodes")) == by_steps

    def stop(trainer: Trainer) -> None:
        trainer.stop("for the test")

    hour = [("finish", 3600, "seconds"), ("worker_send_data", 3 * BATCH, "steps")]
    by_seconds = rates(*hour, callbacks=[stop])
    assert len(by_seconds) == 3
    assert 1 >= by_seconds[0] > by_seconds[1] > by_seconds[2] > 0


def test_value_heads_are_averaged_in_units_of_reward() -> None:
    agents = [ppo(), ppo()]
    rng = np.random.default_rng(0)
    for agent, scale in zip(agents, (1.0, 100.0), strict=True):
        head = agent.policy.value_head
        head.stats.update(torch.from_numpy(scale * (1 + rng.standard_normal((50, 1)))))
        with torch.no_grad():
            head.normal.weight.copy_(torch.from_numpy(rng.standard_normal(head.normal.weight.shape)))
            head.normal.bias.fill_(scale / 50)

    def predictions(head: Any) -> torch.Tensor:
        return head.stats.inverse(head(features).double())

    features = torch.from_numpy(rng.standard_normal((7, agents[0].policy.value_head.normal.in_features))).float()
    expected = (predictions(agents[0].policy.value_head) + predictions(agents[1].policy.value_head)) / 2
    mean = MeanAgentCombiner().combine(agents, agents[0])
    torch.testing.assert_close(predictions(mean.policy.value_head), expected, rtol=1e-4, atol=1e-4)
    policies = [agent.policy.state_dict()["value_head.normal.weight"] for agent in agents]
    assert not torch.allclose(mean.policy.value_head.normal.weight, sum(policies) / 2), "numbers in different units"


def test_statistics_are_those_of_all_rows_together() -> None:
    rows = [torch.randn(count, 3, dtype=torch.float64) * scale + scale for count, scale in ((10, 1.0), (30, 5.0))]
    norms = [RunningNorm(3), RunningNorm(3), RunningNorm(3)]
    for norm, own in zip(norms, [*rows, torch.cat(rows)], strict=True):
        norm.update(own)
    merged = merged_statistics([norm.state_dict() for norm in norms[:2]])
    torch.testing.assert_close(merged["mean"], norms[2].mean)
    torch.testing.assert_close(merged["var"], norms[2].var)
    assert merged["count"] == 20, "the mean"
    nothing = merged_statistics([RunningNorm(3).state_dict()] * 2)
    assert (nothing["mean"].tolist(), nothing["var"].tolist(), float(nothing["count"])) == ([0.0] * 3, [1.0] * 3, 0.0)


def test_the_mean_keeps_moments_and_counts_of_updates() -> None:
    agents = [ppo(), ppo()]
    for number, agent in enumerate(agents):
        agent.updates = 3 + number
        agent.optimizers[0].state["mean"].fill_(1.0 + number)
    state = shared(MeanAgentCombiner().combine(agents, agents[0]))
    assert state["updates"] == 4
    assert {*state["optimiser"][0]["mean"].tolist()} == {1.5}


def test_agents_of_other_shapes_have_no_mean() -> None:
    with pytest.raises(ValueError, match=r"different shapes have no mean: networks\.Policy_weights"):
        MeanAgentCombiner().combine([ppo(), ppo(hidden_sizes=(8, 8))], None)


@pytest.mark.parametrize("kind", [DQN, *(pytest.param(kind, marks=pytest.mark.slow) for kind in (DDPG, TD3, SAC))])
def test_off_policy_agents_share_networks_and_keep_their_replay(kind: Any) -> None:
    env = "CartPole-v1" if kind is DQN else "Pendulum-v1"
    agent = kind.for_env(env, learning_starts=1000, batch_size=8, buffer_size=3000, seed=0)
    schedule = [("finish", 1100, "steps"), ("combine_agents", 2100, "steps")]
    options = OPTIONS | {"schedule": schedule, "num_envs": 4}
    mean, result = Trainer(agent, env, 2, combiner=MeanAgentCombiner(), **options).run()
    assert mean.steps == 1100, "it explores on where its members were"
    for worker in result["workers"]:
        assert worker["total_steps"] == worker["agent"].steps == 1100
        for one, other in zip(
            mean.policy.state_dict().values(), worker["agent"].policy.state_dict().values(), strict=True
        ):
            torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert not np.array_equal(weights(mean), weights(agent))


def test_toy_agent_without_shared_state_can_be_a_member() -> None:
    agent = ToyAgent(states=16, actions=4, learning_starts=50)
    schedule = [("finish", 300, "steps"), ("combine_agents", 600, "steps")]
    options = OPTIONS | {"schedule": schedule, "num_envs": 2, "combiner": FixedAgentCombiner(1)}
    best, result = Trainer(agent, "FrozenLake-v1", 2, **options).run()
    np.testing.assert_array_equal(best.q, result["workers"][1]["agent"].q)


def test_explored_settings_reach_the_member() -> None:
    agents = [ppo(lr=lr) for lr in (1e-2, 1e-3, 1e-4)]
    combiner = ExploitExplore("mean_reward", of=["lr"], factors=[1.5])
    _, result = Trainer(agents, "CartPole-v1", 3, combiner=combiner, **OPTIONS).run()
    rates = [worker["agent"].lr for worker in result["workers"]]
    explored = [lr * 1.5**times for lr in (1e-2, 1e-3, 1e-4) for times in (1, 2)]
    assert any(rate == pytest.approx(other) for rate in rates for other in explored)


def test_companions_keep_their_betas_in_a_population() -> None:
    agent = ppo(companions=[RND(beta=1.0), ICM(beta=0.5)])
    final, result = Trainer(agent, "CartPole-v1", 2, combiner=FixedAgentCombiner(0), **OPTIONS).run()
    assert [betas(final), *(betas(worker["agent"]) for worker in result["workers"])] == [[1.0, 0.5]] * 3


def test_exploring_beta_perturbs_that_of_the_companion() -> None:
    agents = [ppo(companions=[RND(beta=1.0)]) for _ in range(2)]
    combiner = ExploitExplore("mean_reward", factors=[0.5], of=["beta"])
    best, explored = combiner.combine(agents, None, [{"mean_reward": 2.0}, {"mean_reward": 1.0}])
    assert (betas(best), betas(explored)) == ([1.0], [0.5])


@pytest.mark.parametrize(
    "combiner", rest_slow(lambda: ExploitExplore(of=["lr"]), MeanAgentCombiner, FixedStatAgentCombiner)
)
def test_a_population_resumes_to_the_bit(combiner: Any, tmp_path: Path) -> None:
    def run(*, stop_at: int | None = None, resume: bool = False) -> tuple[Any, Any]:
        def save(trainer: Trainer) -> None:
            if trainer.count.steps == stop_at:
                trainer.save_checkpoint(tmp_path / "state")
                trainer.stop("for the test")

        trainer = Trainer(ppo(), "CartPole-v1", 2, combiner=combiner(), callbacks=[save], **OPTIONS)
        if resume:
            trainer.load_checkpoint(tmp_path / "state")
        return trainer.run()

    agent, result = run()
    stopped, half = run(stop_at=4 * BATCH)
    assert [worker["total_steps"] for worker in half["workers"]] == [2 * BATCH] * 2
    assert half["trainer"].stopped == "for the test"
    assert not np.array_equal(weights(stopped), weights(agent))
    resumed, rest = run(resume=True)
    np.testing.assert_array_equal(weights(resumed), weights(agent))
    for one, other in zip(result["workers"], rest["workers"], strict=True):
        np.testing.assert_array_equal(weights(one["agent"]), weights(other["agent"]))
        assert one["rewards"] == other["rewards"]
        assert one["agent_version"] == other["agent_version"]
        assert [row["policy_loss"] for row in one["history"]] == [row["policy_loss"] for row in other["history"]]


def test_a_population_of_which_a_member_has_finished_resumes_to_the_bit(tmp_path: Path) -> None:
    """The second member finishes when all combine, and is sent an agent that later combinations do not have."""

    def trainer(*callbacks: Any) -> Trainer:
        settings: dict[str, Any] = {"mini_batch_size": 32, "k_epochs": 1, "hidden_sizes": (4,), "seed": 0}
        agents = [PPO.for_env("CartPole-v1", batch_size=size, **settings) for size in (32, 64)]
        schedule = [("finish", 80, "steps"), ("worker_send_data", 1, "steps"), ("combine_agents", 32, "steps")]
        options = OPTIONS | {"schedule": schedule, "callbacks": callbacks, "num_envs": 4}
        return Trainer(agents, "CartPole-v1", 2, combiner=MeanAgentCombiner(), **options)

    def save(trainer: Trainer) -> None:
        if [record.finished for record in trainer.records] == [False, True]:
            trainer.save_checkpoint(tmp_path / "state")
            trainer.callbacks.clear()

    agent, _ = trainer(save).run()
    resumed = trainer()
    resumed.load_checkpoint(tmp_path / "state")
    again, result = resumed.run()
    np.testing.assert_array_equal(weights(again), weights(agent))
    fresh, second = resumed.run()
    np.testing.assert_array_equal(weights(fresh), weights(agent))
    assert len(second["workers"][0]["rewards"]) == len(result["workers"][0]["rewards"])


def test_a_checkpoint_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    def save(trainer: Trainer) -> None:
        trainer.save_checkpoint(tmp_path / "state")

    Trainer(ppo(), "CartPole-v1", 2, combiner=MeanAgentCombiner(), callbacks=[save], **OPTIONS).run()
    three = Trainer(ppo(), "CartPole-v1", 3, combiner=MeanAgentCombiner(), **OPTIONS)
    three.load_checkpoint(tmp_path / "state")
    with pytest.raises(ValueError, match="n_workers is 2 there and 3 here"):
        three.run()
    other = Trainer(ppo(hidden_sizes=(8,)), "CartPole-v1", 2, combiner=MeanAgentCombiner(), **OPTIONS)
    other.load_checkpoint(tmp_path / "state")
    with pytest.raises(MemberError, match="hidden_sizes is"):
        other.run()
    with pytest.raises(FileNotFoundError):
        other.load_checkpoint(tmp_path / "none")
    with pytest.raises(ValueError, match="can be saved"):
        Trainer(ppo(), "CartPole-v1", 2, callbacks=[save], **OPTIONS | {"sync_mode": "async"}).run()
    with pytest.raises(ValueError, match="only populations of agents of AsyncTrainer can be loaded"):
        Trainer(DeafAgent(), "CartPole-v1", 2, schedule=[("finish", 10, "steps")]).load_checkpoint(tmp_path / "state")


def test_trainer_agents_in_parallel_collecting_or_mixed_are_refused() -> None:
    with pytest.raises(ValueError, match="need mode='parallel_learning'"):
        Trainer(ppo(), "CartPole-v1", 2)
    with pytest.raises(TypeError, match="are either all for AsyncTrainer, or none is"):
        Trainer([ppo(), copy.copy(DeafAgent())], "CartPole-v1", 2, "parallel_learning")


class DeafAgent:
    def action(self, state: Any) -> int:
        return 0

    def train(self, experience: Any) -> None:
        """Learn nothing."""


def test_a_stop_before_the_first_run_ends_it_and_not_the_next() -> None:
    trainer = Trainer(ppo(), "CartPole-v1", 2, **OPTIONS)
    trainer.stop("at once")
    trainer.stop("at a mean return")
    assert trainer.stopped == "at once"
    steps = [sum(worker["total_steps"] for worker in trainer.run()[1]["workers"]) for _ in range(2)]
    assert 0 < steps[0] < steps[1]
    assert trainer.stopped is None
