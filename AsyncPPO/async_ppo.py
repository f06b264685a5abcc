"""AsyncPPO: the trainer with the argument names of PPO."""

from collections.abc import Sequence
from typing import Unpack

from AsyncPPO.factory import EnvLike
from AsyncPPO.settings import TrainerOptions
from AsyncPPO.trainer import A, AsyncTrainer


class AsyncPPO(AsyncTrainer[A]):
    """`AsyncTrainer` with the argument and attribute name `ppo` for the agent."""

    def __init__(
        self,
        env: EnvLike | Sequence[EnvLike],
        ppo: A,
        num_envs: int | None = None,
        steps: int = 100000,
        **options: Unpack[TrainerOptions],
    ) -> None:
        """Make the environments and the collector; `AsyncTrainer` documents the arguments."""
        super().__init__(env, ppo, num_envs, steps, **options)

    @property
    def ppo(self) -> A:
        """The agent."""
        return self.agent
