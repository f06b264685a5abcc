"""lag=1: an update runs in a thread while the next batch is collected."""

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

from AsyncPPO.agent import LaggableAgent
from AsyncPPO.episodes import Episode
from parallel_rl.utils import Metrics

if TYPE_CHECKING:
    from AsyncPPO.trainer import AsyncTrainer


class LaggedTurns:
    """The turns of a trainer with `lag=1`, which has one rank and acts in its own process."""

    def __init__(self, trainer: "AsyncTrainer[Any]") -> None:
        self._trainer = trainer
        self._lag = int(len(trainer.buffer) > 0)  # of the rows that wait: an earlier run collected them in an update

    def turn(self) -> tuple[int, list[Episode], Metrics]:
        """Collect, and update if there is a batch; return the steps, the episodes that ended, and the metrics."""
        trainer = self._trainer
        if trainer._batch_is_full():
            return self._update_and_collect()
        steps, episodes = trainer._count(trainer._collect(), trainer.ranks)
        is_over = trainer.steps_done >= trainer.goal[1]  # then there is nothing to collect during the update
        return steps, episodes, self._update() if is_over and trainer._batch_is_full() else {}

    def _update(self) -> Metrics:
        """Update, and collect nothing meanwhile."""
        trainer, lag = self._trainer, self._take_lag()
        ready = trainer._observe(trainer.ranks)
        return (trainer._update(trainer.ranks, trainer.fraction_done) if ready else {}) | lag

    def _update_and_collect(self) -> tuple[int, list[Episode], Metrics]:
        """Update in a thread; meanwhile collect the next batch with a copy of the policy from before the update."""
        trainer, steps, episodes, lag = self._trainer, 0, list[Episode](), self._take_lag()
        wanted = trainer.agent.steps_wanted()
        trainer.collector.agent = cast("LaggableAgent", trainer.agent).behavior()
        try:
            ready, progress = trainer._observe(trainer.ranks), trainer.fraction_done
            with ThreadPoolExecutor(1) as learner:
                update = learner.submit(trainer._update, trainer.ranks, progress) if ready else None
                while trainer.steps_done < trainer.goal[1] and len(trainer.buffer) < wanted:
                    count, ended = trainer._count(trainer._collect(), trainer.ranks)
                    steps, episodes, self._lag = steps + count, episodes + ended, 1
        finally:
            trainer.collector.agent = trainer.agent
        return steps, episodes, ({} if update is None else update.result()) | lag

    def _take_lag(self) -> Metrics:
        """Return the metric `policy_lag` of the batch whose update begins; the next batch has no lag yet."""
        lag, self._lag = self._lag, 0
        return {"policy_lag": lag}
