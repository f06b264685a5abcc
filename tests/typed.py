"""What mypy must accept and refuse: an ignored error that is none is one (`warn_unused_ignores`). It is not run."""

from typing import assert_type

from AsyncPPO import AsyncTrainer
from AsyncPPO.callbacks import Callback
from OffPolicy import DQN, SAC
from OffPolicy.base import OffPolicyAgent
from PPO import PPO
from PPO.rnd import RND


def for_env() -> None:
    """Make agents, rightly and wrongly."""
    assert_type(PPO.for_env("CartPole-v1", lr=lambda remaining: 1e-3 * remaining, companions=[RND()], seed=0), PPO)
    assert_type(PPO.for_env(env="CartPole-v1", hidden_sizes=(8, 8), action_scaling=2.0), PPO)
    assert_type(SAC.for_env("Pendulum-v1", lr=1e-3, seed=0), SAC)
    PPO.for_env("CartPole-v1", lerning_rate=3)  # type: ignore[call-arg]
    PPO.for_env("CartPole-v1", lr="high")  # type: ignore[arg-type]
    SAC.for_env("Pendulum-v1", lerning_rate=3)  # type: ignore[call-arg]
    kinds: list[type[OffPolicyAgent]] = [DQN, SAC]
    for kind in kinds:
        assert_type(kind.for_env("Pendulum-v1", gamma=0.9), OffPolicyAgent)
        kind.for_env("Pendulum-v1", lerning_rate=3)  # type: ignore[call-arg]
    DQN.for_env("CartPole-v1", noise_clip=0.5)  # type: ignore[call-arg]  # TD3's


class Typed(Callback):
    """Knows the agent of its trainer."""

    def on_update(self, trainer: AsyncTrainer[PPO], metrics: dict[str, float]) -> None:
        """Read a setting."""
        metrics["discount"] = assert_type(trainer.agent, PPO).gamma


def attributes(ppo: PPO) -> None:
    """Read a setting, rightly and wrongly."""
    assert_type(ppo.gamma, float)
    print(ppo.gama)  # type: ignore[attr-defined]
