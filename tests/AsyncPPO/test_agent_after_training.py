"""An agent keeps nothing of a trainer: after it, the agent learns, is copied and trains as a fresh agent does."""

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from AsyncPPO import AsyncPPO, EnvVectorizer, VecMemory
from AsyncPPO.backends import GradientWorkers
from parallel_rl import utils
from PPO import PPO

REPLICAS: dict[str, Any] = {"acting": "replicas", "backend": "process", "num_workers": 2}


def agent(**settings: Any) -> PPO:
    return PPO.for_env("CartPole-v1", k_epochs=2, batch_size=64, mini_batch_size=32, normalize_obs=True, **settings)


def train(ppo: PPO, **options: Any) -> None:
    with AsyncPPO("CartPole-v1", ppo, 4, 128, seed=1, progress=False, **options) as trainer:
        assert len(trainer.run()) == 2


def train_by_hand(ppo: PPO, steps: int = 16, workers: Any = None) -> None:
    with EnvVectorizer("CartPole-v1", 4, backend="inline", seed=2, autoreset=True) as env:
        buffer = VecMemory(4)
        states, _ = env.reset()
        for _ in range(steps):
            actions, extras = ppo.act(states)
            next_states, rewards, terminated, truncated, _ = env.step(actions)
            utils.buffer_append(
                buffer, states, actions, rewards, terminated, is_env_terminal=env.envs_active, num_envs=4,
                truncates=truncated, next_states=next_states, **extras,
            )  # fmt: skip
            states = next_states
        utils.buffer_to_target_buffer_transfer(buffer, ppo.memory)
    assert ppo.learn(workers=workers)


def assert_same(ours: PPO, theirs: PPO) -> None:
    assert ours.updates == theirs.updates
    for name, tensor in ours.policy.state_dict().items():
        assert torch.equal(tensor, theirs.policy.state_dict()[name]), name


def loaded(ppo: PPO) -> PPO:
    fresh = agent(seed=9)
    fresh.load_state(ppo.state())
    return fresh


@pytest.mark.parametrize("duplicate", [loaded, copy.deepcopy, lambda ppo: pickle.loads(pickle.dumps(ppo))])
def test_an_agent_of_a_closed_trainer_trains_on_like_a_fresh_agent_with_its_state(
    duplicate: Callable[[PPO], PPO],
) -> None:
    """The mistake: the next update asks the gradient workers of the last one, whose processes are gone."""
    ppo = agent(seed=0)
    train(ppo, **REPLICAS)
    fresh = duplicate(ppo)
    for each in (ppo, fresh):
        train_by_hand(each)
        train(each, acting="central", backend="inline")
        train(each, **REPLICAS)
    assert ppo.updates == 7
    assert_same(ppo, fresh)


def test_an_agent_of_a_closed_trainer_holds_no_reference_to_it() -> None:
    ppo = agent(seed=0)
    train(ppo, acting="central", backend="inline")  # so that there are moments of Adam
    size = len(pickle.dumps(ppo))
    with AsyncPPO("CartPole-v1", ppo, 4, 128, seed=1, progress=False, **REPLICAS) as trainer:
        trainer.run()
    references = [weakref.ref(part) for part in (trainer, trainer.env, trainer.env.rollout)]
    shared = trainer.env.rollout.workspace["obs"] if trainer.env.rollout else np.empty(0)
    references.append(weakref.ref(shared))
    del trainer, shared
    gc.collect()
    assert [reference() for reference in references] == [None] * len(references)
    assert len(pickle.dumps(ppo)) < size + 1000


def test_gradient_workers_without_room_are_not_used() -> None:
    """The minibatch or the batch has become larger since the workers were started."""
    ppo, local = agent(seed=0), agent(seed=0)
    with AsyncPPO("CartPole-v1", ppo, 4, 128, seed=1, progress=False, **REPLICAS) as trainer:
        for mini_batch_size, steps in [(32, 16), (32, 80), (320, 80)]:
            for each, workers in ((ppo, GradientWorkers(trainer.env)), (local, None)):
                each.batch_size, each.mini_batch_size = 4 * steps, mini_batch_size
                train_by_hand(each, steps, workers)
    assert_same(ppo, local)
