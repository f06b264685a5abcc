"""Replicas of a policy in the workers give the same experience as central inference at every step."""

import math
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from AsyncPPO import EnvError, EnvVectorizer, VecMemory
from AsyncPPO.backends import GradientWorkers, Plan, Replicas
from AsyncPPO.collector import Collector, ReplicaCollector
from parallel_rl.utils import Trajectory, spawn_seeds
from PPO import PPO
from tests.contracts.test_backends import BACKENDS, EACH
from tests.envs import Counter, Faulty, Grid, Pixels, Telltale

pytestmark = pytest.mark.covering

Make = Callable[..., EnvVectorizer]
SEEDS = spawn_seeds(3, 5)


@pytest.fixture(params=EACH)
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    made: list[EnvVectorizer] = []

    def make(env: Any, ppo: PPO, horizon: int, num_envs: int = 5) -> EnvVectorizer:
        options = BACKENDS[request.param]
        plan = Plan(ppo.replica(), horizon)  # type: ignore[arg-type]
        made.append(EnvVectorizer(env, num_envs, seed=3, autoreset=True, plan=plan, **options))
        return made[-1]

    yield make
    for env in made:
        env.close()


def agent(env: Any, **kwargs: Any) -> PPO:
    with gym.make(env) if isinstance(env, str) else env() as probe:
        space = probe.observation_space
        flat = space if space.shape is None else spaces.Box(-np.inf, np.inf, (math.prod(space.shape),))
        ppo = PPO.for_env(probe, observation_space=flat, seed=0, batch_size=64, **kwargs)
    if ppo.policy.obs_norm is not None:
        ppo.policy.obs_norm.update(ppo._tensor(np.random.default_rng(0).normal(1, 2, (50, ppo.observ_dim))))
    return ppo


def replicated(env: EnvVectorizer, ppo: PPO) -> ReplicaCollector:
    assert env.rollout is not None
    return ReplicaCollector(env, ppo, VecMemory(env.num_envs, env.rollout.rows))


def assert_same(ours: list[Trajectory], theirs: list[Trajectory]) -> None:
    assert [trajectory.env_id for trajectory in ours] == [trajectory.env_id for trajectory in theirs]
    for left, right in zip(ours, theirs, strict=True):
        assert left.extras.keys() == right.extras.keys()
        for name in ("action", "reward", "terminated", "truncated", "obs", "final_obs"):
            np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)
            assert getattr(left, name).dtype == getattr(right, name).dtype
        for name, values in left.extras.items():
            np.testing.assert_array_equal(values, right.extras[name], err_msg=name)


class Dials(gym.Env):
    """Two dials, of three numbers and of two, of which a mask allows some; others are errors."""

    observation_space = spaces.Dict(x=spaces.Box(-1, 1, (3,)), action_mask=spaces.MultiBinary(5))
    action_space = spaces.MultiDiscrete([[3], [2]], start=[[1], [5]])

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return self._next(), {}

    def _next(self) -> dict[str, np.ndarray]:
        self.mask = self.np_random.integers(0, 2, 5).astype(np.int8)
        self.mask[[1, 4]] |= [not self.mask[:3].any(), not self.mask[3:].any()]
        return {"x": self.np_random.uniform(-1, 1, 3).astype(np.float32), "action_mask": self.mask}

    def step(self, action: Any) -> Any:
        assert self.mask[action[0, 0] - 1]
        assert self.mask[action[1, 0] - 2]
        self.steps += 1
        return self._next(), float(action[0, 0] == 2), self.steps == 7, False, {}


@pytest.mark.parametrize(
    ("env", "normalize_obs"),
    [
        ("CartPole-v1", False),
        ("CartPole-v1", True),
        ("Pendulum-v1", True),
        (partial(Counter, 4), False),
        (partial(Counter, 3, True), True),
        (Grid, False),
        (Dials, True),
        (Pixels, True),
    ],
    ids=str,
)
def test_replicas_give_the_experience_of_central_inference(make: Make, env: Any, normalize_obs: bool) -> None:
    """In trajectories of several lengths, over many ends of episodes."""
    central, ppo = agent(env, normalize_obs=normalize_obs), agent(env, normalize_obs=normalize_obs)
    with EnvVectorizer(env, 5, backend="inline", seed=3, autoreset=True) as oracle:
        collector = Collector(oracle, central, VecMemory(5))
        vectorizer = make(env, ppo, horizon=40)
        player = replicated(vectorizer, ppo)
        for pieces in ([40], [1, 25, 14], [30]):
            episodes = [episode for _ in range(sum(pieces)) for episode in collector.collect(1)[1]]
            results = [player.collect(steps) for steps in pieces]
            assert [stepped for stepped, _ in results] == [5 * steps for steps in pieces]
            ended = [episode for _, some in results for episode in some]
            assert [episode.length for episode in ended] == [episode.length for episode in episodes]
            returns = [[episode.return_ for episode in some] for some in (ended, episodes)]
            np.testing.assert_allclose(*returns, atol=1e-3)
            assert_same(player.buffer.take(), collector.buffer.take())


def test_replicas_act_with_new_weights(make: Make) -> None:
    ppo = agent("CartPole-v1")
    player = replicated(make("CartPole-v1", ppo, horizon=50), ppo)
    player.collect(50)
    head: Any = ppo.policy.policy_head
    head.logits.bias.data += ppo._tensor([0.0, 100.0])
    player.buffer.clear()
    player.collect(50)
    assert all((trajectory.action == 1).all() for trajectory in player.buffer.take())


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raise", r"environment \d failed in step: .*\n.*Traceback"),
        ("nan_reward", r"environment \d returned a NaN or an infinity as its reward"),
        ("nan_obs", r"environment \d returned a NaN or an infinity as its observation"),
    ],
)
def test_a_fault_names_the_environment_and_closes(make: Make, fault: str, message: str) -> None:
    assert fault in Faulty.FAULTS
    ppo = agent(Faulty)
    head: Any = ppo.policy.policy_head
    head.logits.bias.data[Faulty.FAULTS.index(fault)] += 100.0
    vectorizer = make(Faulty, ppo, horizon=10)
    with pytest.raises(EnvError, match=f"(?s){message}"):
        replicated(vectorizer, ppo).collect(10)
    with pytest.raises(RuntimeError, match="closed"):
        vectorizer.reset()


def test_replicas_before_a_reset_are_refused(make: Make) -> None:
    ppo = agent("CartPole-v1")
    with pytest.raises(RuntimeError, match="call reset"):
        Replicas(make("CartPole-v1", ppo, horizon=5)).roll_out(0, 5)


def test_spawned_workers_act_and_learn_without_torch() -> None:
    ppo = PPO(False, 2, 2, batch_size=20, mini_batch_size=20, seed=0)
    plan = Plan(ppo.replica(), 10)  # type: ignore[arg-type]
    options: dict[str, Any] = {"backend": "process", "num_workers": 2, "start_method": "spawn", "autoreset": True}
    with EnvVectorizer(Telltale, 4, plan=plan, seed=0, **options) as env:
        player = replicated(env, ppo)
        player.collect(5)
        for trajectory in player.buffer.take():
            ppo.memory.append(trajectory)
        workers = GradientWorkers(env)
        ppo.learn(0.0, workers)
        workers.compute(0, 20, 1)
        obs, _ = env.reset()
        assert obs[:2, 0].tolist() == [os.getpid() % 2**20] * 2
        assert obs[2:, 0].tolist() != obs[:2, 0].tolist()
        assert obs[2:, 1].tolist() == [0.0, 0.0], "a worker has imported torch"


class OneFails(Counter):
    """The last of five environments fails, or dies, at its fourth step."""

    def __init__(self, how: str) -> None:
        super().__init__(length=100)
        self.how = how

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        self.last = seed == SEEDS[4]
        return super().reset(seed=seed)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        if self.last and self.count == 3:
            if self.how == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("broken")
        return super().step(action)


@pytest.mark.parametrize("backend", EACH[1:])
@pytest.mark.parametrize(
    ("how", "message"),
    [("raise", "environment 4 failed in step: ValueError: broken"), ("die", "was killed by SIGKILL")],
)
def test_a_worker_that_fails_while_its_replica_acts_is_an_error(backend: str, how: str, message: str) -> None:
    ppo = agent(partial(OneFails, how))
    plan = Plan(ppo.replica(), 10)  # type: ignore[arg-type]
    with (
        EnvVectorizer(partial(OneFails, how), 5, plan=plan, autoreset=True, seed=3, **BACKENDS[backend]) as env,
        pytest.raises(EnvError, match=message),
    ):
        replicated(env, ppo).collect(10)


def test_a_plan_needs_autoreset_and_room() -> None:
    ppo = agent("CartPole-v1")
    plan = Plan(ppo.replica(), 10)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs autoreset=True"):
        EnvVectorizer("CartPole-v1", 2, plan=plan)
    with (
        EnvVectorizer("CartPole-v1", 2, plan=plan, autoreset=True, backend="inline") as env,
        pytest.raises(ValueError, match="room for 10 steps of each environment, not for 11"),
    ):
        replicated(env, ppo).collect(11)


@pytest.mark.parametrize("backend", EACH[1:])
def test_a_worker_killed_while_it_computes_is_an_error(backend: str) -> None:
    ppo = PPO(False, 4, 2, batch_size=600, mini_batch_size=600)
    plan = Plan(ppo.replica(), 200)  # type: ignore[arg-type]
    with EnvVectorizer("CartPole-v1", 3, plan=plan, autoreset=True, seed=0, **BACKENDS[backend]) as env:
        env.reset()
        process = env.pool.workers[0].process  # type: ignore[union-attr]
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        with pytest.raises(EnvError, match="was killed by SIGKILL"):
            GradientWorkers(env).compute(0, 600, 3)
