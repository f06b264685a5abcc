"""Numbers of things: what is refused, and by which name."""

from collections.abc import Callable
from typing import Any

import pytest

from AsyncPPO import AsyncPPO, EnvVectorizer, VecMemory, evaluate
from AsyncPPO.callbacks import BackgroundEvaluation, Checkpoints
from PPO import PPO


def ppo() -> PPO:
    return PPO.for_env("CartPole-v1", batch_size=64)


CALLS: dict[str, Callable[[Any], object]] = {
    "num_envs": lambda number: EnvVectorizer("CartPole-v1", number),
    "num_workers": lambda number: EnvVectorizer("CartPole-v1", 2, num_workers=number),
    "steps": lambda number: AsyncPPO("CartPole-v1", ppo(), 2, steps=number),
    "episodes": lambda number: evaluate(ppo(), "CartPole-v1", episodes=number),
    "every": lambda number: BackgroundEvaluation("CartPole-v1", every=number),
    "keep": lambda number: Checkpoints("here", keep=number),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_number_that_is_not_whole_or_below_one_is_an_error_with_its_name(name: str) -> None:
    for wrong, message in (
        (2.5, "a whole number, not 2.5"),
        ("3", "a whole number, not '3'"),
        (0, "at least 1, not 0"),
    ):
        with pytest.raises(ValueError, match=f"{name} must be {message}"):
            CALLS[name](wrong)


def test_a_whole_number_written_as_a_float_is_that_number() -> None:
    with AsyncPPO("CartPole-v1", ppo(), 2.0, steps=1e2, progress=False, backend="inline") as trainer:  # type: ignore[arg-type]
        trainer.run()
    assert trainer.steps_done == 100
    with EnvVectorizer("CartPole-v1", 2, backend="process", num_workers=2.0) as env:  # type: ignore[arg-type]
        assert env.num_workers == 2
    assert VecMemory(3.0).num_envs == 3  # type: ignore[arg-type]
