"""What a notebook shows of arrays: their shapes."""

from typing import Any

import numpy as np
import torch

from AsyncPPO import AsyncPPO
from parallel_rl.utils.shapes import in_shapes
from PPO import PPO, RND
from Rollouts import rollout
from tests.envs import Counter
from tests.Rollouts.actors import Chance


def test_arrays_and_tensors_are_shapes_wherever_they_are() -> None:
    value: Any = {"a": np.zeros((2, 3), np.float32), "b": (torch.ones(4, dtype=torch.bool), [1, None]), "c": ("x",)}
    assert in_shapes(value) == "{'a': float32 (2, 3), 'b': (bool (4,), [1, None]), 'c': ('x',)}"
    assert in_shapes(()) == "()"


def test_a_minibatch_shows_its_shapes() -> None:
    ppo = PPO.for_env("CartPole-v1", batch_size=64, mini_batch_size=16, companions=[RND()], seed=0)
    seen: list[str] = []

    def loss(minibatch: Any, progress: float = 0.0) -> Any:
        seen.append(repr(minibatch))
        return PPO.loss(ppo, minibatch, progress)

    ppo.loss = loss  # type: ignore[method-assign]
    with AsyncPPO("CartPole-v1", ppo, 4, 64, backend="inline", seed=0, progress=False) as trainer:
        trainer.run()
    assert seen[0].startswith(
        "Minibatch(rows=Rows(obs=float32 (16, 4), raw_action=int64 (16,), log_prob=float32 (16,),"
    )
    assert "state=None, starts=None), targets=[(float32 (16, " in seen[0]


def test_a_fragment_and_its_states_show_their_shapes() -> None:
    fragment = next(rollout(Counter, Chance(), 3, 2))
    assert repr(fragment).startswith("Fragment(state=State(stepno=int64 (4, 2), obs=float32 (4, 2")
    assert repr(fragment.before).startswith("State(stepno=int64 (3, 2), obs=float32 (3, 2")
    assert "env={'terminated': bool (3, 2), " in repr(fragment)
