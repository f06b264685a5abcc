"""AsyncPPO: the loop that collects and learns."""

import time
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Literal, Self

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from tqdm import tqdm

from AsyncPPO.backends import BackendName, EnvFactory, Plan
from AsyncPPO.memory import VecMemory
from AsyncPPO.rollout import Collector, Episode, ReplicaCollector
from AsyncPPO.vectorizer import EnvVectorizer
from PPO import PPO
from utils import buffer_to_target_buffer_transfer

Mode = Literal["streaming", "mask"]
Acting = Literal["auto", "central", "replicas"]
BAR_SECONDS = 0.2
"""How long the progress bar may stand still while there is something to tell."""
RECENT_EPISODES = 100


class AsyncPPO:
    """Trains a `PPO` on many copies of an environment at once."""

    def __init__(
        self,
        env: gym.Env | str | EnvSpec | EnvFactory,
        ppo: PPO,
        num_envs: int = 32,
        steps: int = 100000,
        *,
        mode: Mode = "streaming",
        acting: Acting = "auto",
        backend: BackendName = "auto",
        num_workers: int | None = None,
        seed: int | None = None,
        progress: bool = True,
    ) -> None:
        """Make the environments and their buffers.

        Args:
            env: what an `EnvVectorizer` takes.
            ppo: the agent.
            num_envs: N, how many copies of the environment.
            steps: environment steps to take, over all copies together; the last vector step may go beyond by less
                than N.
            mode: `streaming`: environments start anew by themselves, and the agent learns as soon as its `batch_size`
                transitions are there. `mask`: every environment plays its episode to the end, then the agent learns.
            acting: `central`: the agent answers all environments in every step. `replicas`: a copy of the policy plays
                beside each block of environments, for a whole batch (with a progress bar, for a fifth of a second) at a
                time; for `streaming`, with networks that are small and on the CPU. `auto`: replicas where that is
                possible.
            backend: of the `EnvVectorizer`.
            num_workers: of the `EnvVectorizer`.
            seed: of the environments.
            progress: whether to show a progress bar.

        Raises:
            ValueError: a bad size or mode, or an agent that was made for other spaces.
            TypeError: an environment that cannot be vectorized.
        """
        if steps < 1:
            raise ValueError(f"steps must be at least 1, not {steps}")
        if mode not in ("streaming", "mask"):
            raise ValueError(f"mode must be 'streaming' or 'mask', not {mode!r}")
        if acting not in ("auto", "central", "replicas"):
            raise ValueError(f"acting must be 'auto', 'central' or 'replicas', not {acting!r}")
        replica = ppo.replica() if acting != "central" and mode == "streaming" else None
        if acting == "replicas" and replica is None:
            raise ValueError("acting='replicas' needs mode='streaming' and a PPO of two small MLPs on the CPU")
        self.acting: Acting = "central" if replica is None else "replicas"
        self.acting_reason = "copies of the policy play beside the environments"
        if replica is None:
            why = {"central": "as asked", "auto": "its networks are others than two small MLPs, or on a GPU"}[acting]
            self.acting_reason = f"the agent is asked at every step: {'mask mode' if mode == 'mask' else why}"
        plan = None if replica is None else Plan(replica, -(-ppo.batch_size // max(num_envs, 1)))
        self.ppo = ppo
        self.num_envs = num_envs
        self.steps = steps
        self.mode = mode
        self.progress = progress
        self.env = EnvVectorizer(
            env,
            num_envs,
            backend=backend,
            num_workers=num_workers,
            seed=seed,
            autoreset=mode == "streaming",
            plan=plan,
        )
        try:
            ppo.check_fits(self.env)
        except (TypeError, ValueError):
            self.env.close()
            raise
        self.collector: Collector | ReplicaCollector
        if self.env.rollout is None:
            self.buffer = VecMemory(num_envs)
            self.collector = Collector(self.env, ppo, self.buffer)
        else:
            self.buffer = VecMemory(num_envs, self.env.rollout.rows)
            self.collector = ReplicaCollector(self.env, ppo, self.buffer)
        self.steps_done = 0
        self.seconds = 0.0
        self.episodes_done = 0
        self.recent: deque[Episode] = deque(maxlen=RECENT_EPISODES)
        self.history: list[dict[str, float]] = []

    @property
    def mean_return(self) -> float:
        """Mean return of the last 100 episodes; NaN before the first has ended."""
        return float(np.mean([episode.return_ for episode in self.recent])) if self.recent else float("nan")

    def run(self) -> list[dict[str, float]]:
        """Collect and learn until `steps` environment steps are taken.

        Called again, it takes as many steps more. An interrupt or an error closes the environments; `history` and the
        agent are left as they are then.

        Returns:
            `history`: what `updates` yields.
        """
        for _ in self.updates():
            pass
        return self.history

    def updates(self) -> Iterator[dict[str, float]]:
        """Do what `run` does, update by update, for a loop that looks at each and may stop.

        Yields:
            For every update a dict of `steps`, `seconds`, `episodes`, `mean_return` and `mean_length` of the last 100
            episodes, and what `PPO.learn` returns; `history` keeps them.
        """
        start, target, begin = time.perf_counter() - self.seconds, self.steps_done + self.steps, self.steps_done
        with tqdm(total=self.steps, unit="step", disable=not self.progress) as bar:
            while self.steps_done < target:
                stepped, episodes = self.collector.collect(self._vector_steps(target))
                self.steps_done += stepped
                self.episodes_done += len(episodes)
                self.recent.extend(episodes)
                metrics: dict[str, float] = {}
                if self._may_learn() or (self.mode == "mask" and self.steps_done >= target):
                    metrics = self._learn(progress=(self.steps_done - begin) / self.steps)
                self.seconds = time.perf_counter() - start
                bar.update(min(stepped, target - self.steps_done + stepped))
                if episodes:
                    bar.set_description(f"mean return {self.mean_return:.1f}", refresh=False)
                if metrics:
                    self.history.append(self._progress() | metrics)
                    yield self.history[-1]

    def close(self) -> None:
        """Close the environments; may be called twice."""
        self.env.close()

    def __enter__(self) -> Self:
        """Return the trainer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _vector_steps(self, target: int) -> int:
        """Return how many steps every environment may take before there is something to learn from, or to show."""
        missing = min(self.ppo.batch_size - len(self.buffer) - len(self.ppo.memory), target - self.steps_done)
        steps = -(-missing // self.num_envs)
        if self.progress and self.seconds:
            steps = min(steps, int(self.steps_done / self.seconds * BAR_SECONDS / self.num_envs))
        return max(1, steps)

    def _may_learn(self) -> bool:
        if self.mode == "mask":
            return bool(self.env.finished.all())
        return len(self.buffer) + len(self.ppo.memory) >= self.ppo.batch_size

    def _learn(self, progress: float) -> dict[str, float]:
        buffer_to_target_buffer_transfer(self.buffer, self.ppo.memory)
        return self.ppo.learn(progress) if self.env.rollout is None else self.ppo.learn(progress, self.env)

    def _progress(self) -> dict[str, float]:
        return {
            "steps": self.steps_done,
            "seconds": self.seconds,
            "episodes": self.episodes_done,
            "mean_return": self.mean_return,
            "mean_length": float(np.mean([episode.length for episode in self.recent])) if self.recent else float("nan"),
        }
