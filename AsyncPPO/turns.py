"""The turns of a run: collect, and update if there is a batch. With `lag=1`, do both at the same time."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from AsyncPPO.agent import LaggableAgent, optional
from AsyncPPO.agreement import collect_share
from AsyncPPO.backends import GradientWorkers
from AsyncPPO.checkpoint import savepoint
from AsyncPPO.episodes import Episode
from parallel_rl.utils import Metrics, Ranks

if TYPE_CHECKING:
    from AsyncPPO.trainer import AsyncTrainer

BAR_SECONDS = 0.2
"""The longest time between updates of the progress bar while replicas act."""


class Turns:
    """The turns of a trainer, which collects and updates by turns."""

    def __init__(self, trainer: "AsyncTrainer[Any]") -> None:
        self._trainer = trainer

    @property
    def are_over(self) -> bool:
        """Whether the run has taken its steps, and no update is left."""
        return self._has_taken_its_steps

    def turn(self) -> tuple[int, list[Episode], Metrics]:
        """Collect, and update if there is a batch; return the steps, episodes and metrics of all ranks."""
        own = self._collect()
        return self._trainer.ranks.attempt(partial(self._learn, own), partial(savepoint, self._trainer))

    @property
    def _has_taken_its_steps(self) -> bool:
        return self._trainer.steps_done >= self._trainer.goal[1]

    def _learn(self, own: tuple[int, list[Episode]], ranks: Ranks) -> tuple[int, list[Episode], Metrics]:
        """Count what all ranks have collected, and update if it is a batch; return what `turn` returns."""
        steps, episodes = self._count(own, ranks)
        ready = self._batch_is_full() and self._observe(ranks)
        return steps, episodes, self._update(ranks, self._trainer.fraction_done) if ready else {}

    def _collect(self) -> tuple[int, list[Episode]]:
        """Step the environments; return the number of steps, and the episodes that ended."""
        trainer = self._trainer
        trainer.collecting_since = time.monotonic()
        try:
            return collect_share(trainer, self._vector_steps())
        finally:
            trainer.collecting_since = None

    def _vector_steps(self) -> int:
        """Return the number of steps for each environment until the next update, or until the bar must move."""
        trainer = self._trainer
        if trainer.acting == "central" and trainer.ranks.nodes == 1:
            return 1  # so that callbacks see every step
        missing = min(trainer.agent.steps_wanted() - trainer.waiting, trainer.goal[1] - trainer.steps_done)
        steps = -(-missing // trainer.running_envs)
        if trainer.progress and trainer.ranks.nodes == 1:
            speed = trainer.steps_done / trainer.seconds if trainer.seconds else 0.0
            steps = min(steps, int(speed * BAR_SECONDS / trainer.num_envs))
        return max(1, steps)

    def _count(self, own: tuple[int, list[Episode]], ranks: Ranks) -> tuple[int, list[Episode]]:
        """Count what this rank and the others have collected; return the steps and episodes of all."""
        trainer = self._trainer
        counts = trainer.others.count(ranks, *own, len(trainer.buffer), trainer.env)
        trainer.steps_done += counts.steps
        trainer.episodes_done += len(counts.episodes)
        trainer.restarts += counts.restarts
        trainer.running_envs = counts.running_envs
        trainer.recent.extend(counts.episodes)
        return counts.steps, counts.episodes

    def _batch_is_full(self) -> bool:
        trainer = self._trainer
        if trainer.mode == "mask":
            return bool(trainer.env.finished.all()) or self._has_taken_its_steps
        return trainer.waiting >= trainer.agent.steps_wanted()

    def _observe(self, ranks: Ranks) -> bool:
        """Pass the collected transitions to the agent; return whether it can update now.

        An on-policy agent counts only its own transitions, so those of the other ranks are added here. An off-policy
        agent counts those of all ranks itself.
        """
        trainer = self._trainer
        trainer.agent.observe(trainer.buffer.take(), *self._if_several(ranks))
        elsewhere, trainer.others.waiting = trainer.others.waiting, 0
        return trainer.agent.steps_wanted() <= (elsewhere if optional(trainer.agent, "on_policy") else 0)

    def _update(self, ranks: Ranks, progress: float) -> Metrics:
        """Update the agent; `progress` is the fraction of the run that was over when the update began."""
        env = self._trainer.env
        workers = None if env.rollout is None else GradientWorkers(env)
        return self._trainer.agent.update(progress, workers, *self._if_several(ranks))

    def _if_several(self, ranks: Ranks) -> list[Ranks]:
        """Return the further argument of an agent that learns on several ranks."""
        return [ranks] if self._trainer.ranks.nodes > 1 else []


class LaggedTurns(Turns):
    """The turns with `lag=1`: an update runs in a thread while the next batch is collected.

    The trainer has one rank, and its agent acts in this process.
    """

    def __init__(self, trainer: "AsyncTrainer[Any]") -> None:
        super().__init__(trainer)
        # 1 if rows wait: an earlier run has usually collected them during an update
        self._lag = int(len(trainer.buffer) > 0)

    @property
    def are_over(self) -> bool:
        """Whether the run has taken its steps, and no batch waits for an update."""
        return self._has_taken_its_steps and not self._batch_is_full()

    def turn(self) -> tuple[int, list[Episode], Metrics]:
        """Collect, and update if there is a batch; return the steps, the episodes that ended, and the metrics."""
        if self._batch_is_full():
            return self._update_and_collect()
        steps, episodes = self._count(self._collect(), self._trainer.ranks)
        nothing_to_collect = self._has_taken_its_steps
        return steps, episodes, self._update_alone() if nothing_to_collect and self._batch_is_full() else {}

    def _update_alone(self) -> Metrics:
        """Update, and collect nothing meanwhile."""
        trainer, lag = self._trainer, self._take_lag()
        ready = self._observe(trainer.ranks)
        return (self._update(trainer.ranks, trainer.fraction_done) if ready else {}) | lag

    def _update_and_collect(self) -> tuple[int, list[Episode], Metrics]:
        """Update in a thread; meanwhile collect the next batch with a copy of the policy from before the update."""
        trainer, steps, episodes, lag = self._trainer, 0, list[Episode](), self._take_lag()
        wanted = trainer.agent.steps_wanted()
        trainer.collector.agent = cast("LaggableAgent", trainer.agent).behavior()
        try:
            ready, progress = self._observe(trainer.ranks), trainer.fraction_done
            with ThreadPoolExecutor(1) as learner:
                update = learner.submit(self._update, trainer.ranks, progress) if ready else None
                while not self._has_taken_its_steps and len(trainer.buffer) < wanted:
                    count, ended = self._count(self._collect(), trainer.ranks)
                    steps, episodes, self._lag = steps + count, episodes + ended, 1
        finally:
            trainer.collector.agent = trainer.agent
        return steps, episodes, ({} if update is None else update.result()) | lag

    def _take_lag(self) -> Metrics:
        """Return the metric `policy_lag` of the batch whose update begins; the next batch has no lag yet."""
        lag, self._lag = self._lag, 0
        return {"policy_lag": lag}
