"""Callback: the hooks into a run; ProgressBar."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np

from AsyncPPO.episodes import Episode, Evaluation
from AsyncPPO.progress import Bar
from parallel_rl.utils import Metrics

if TYPE_CHECKING:
    from AsyncPPO.trainer import AsyncTrainer


SB3_HOOKS = {
    "init_callback": "on_start",
    "on_training_start": "on_start",
    "on_rollout_start": "on_update",
    "on_step": "on_rollout",
    "on_rollout_end": "on_update",
    "on_training_end": "on_end",
}
"""Methods of callbacks of Stable-Baselines3 (there some have a leading underscore), and those that replace them."""


class Callback:
    """Methods that `AsyncTrainer.run` calls; override what you need. An exception in one ends the run.

    They return nothing: anything else is a `TypeError` of the run, since `False` ends a run of Stable-Baselines3, but
    here `trainer.stop(why)` does.

    Raises:
        TypeError: a subclass misspells one, or has one of Stable-Baselines3, which would never be called.
    """

    stores = False
    """Whether it writes metrics or checkpoints: its `on_update` comes after those that may add metrics."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in [name for name, value in vars(cls).items() if callable(value) and name not in HOOKS]:
            near = get_close_matches(name, HOOKS, 1, 0.85) if name.startswith("on_") else []
            if ours := SB3_HOOKS.get(name.removeprefix("_")) or next(iter(near), None):
                raise TypeError(f"{cls.__name__}.{name} is never called: did you mean {ours!r}?")

    def on_start(self, trainer: "AsyncTrainer") -> None:
        """A run starts or resumes."""

    def on_rollout(self, trainer: "AsyncTrainer", steps: int, episodes: Sequence[Episode]) -> None:
        """The environments took `steps` steps together; `episodes` ended in them."""

    def on_update(self, trainer: "AsyncTrainer", metrics: Metrics) -> None:
        """The agent updated; `metrics` is the new row of `trainer.history`, to which you may add numbers.

        `trainer.stop(why)` ends the run.
        """

    def on_evaluation(self, trainer: "AsyncTrainer", evaluation: Evaluation) -> None:
        """An evaluation is done."""

    def on_end(self, trainer: "AsyncTrainer") -> None:
        """The run is over: `trainer.stopped` is the reason of a stop, `trainer.error` the exception, or None."""


HOOKS = tuple(name for name in vars(Callback) if name.startswith("on_"))
"""The names of the methods that a run calls."""


def call(callbacks: Iterable[Callback], method: str, *arguments: Any) -> None:
    """Call a method of each callback.

    Raises:
        TypeError: it returned something.
    """
    for callback in callbacks:
        if (result := getattr(callback, method)(*arguments)) is not None:
            raise TypeError(
                f"{type(callback).__name__}.{method} returned {result!r}, which has no effect: "
                "trainer.stop(why) ends the run"
            )


@contextmanager
def started(callbacks: Iterable[Callback], run: Any) -> Iterator[None]:
    """Call `on_start` of callbacks, and after the block `on_end` of those that started, in the reverse order.

    An error is `run.error` before that; an interrupt is an error, too.
    """
    with ExitStack() as ends:
        try:
            for callback in callbacks:
                call([callback], "on_start", run)
                ends.callback(call, [callback], "on_end", run)
            yield
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            run.error = error
            raise


class ProgressBar(Callback):
    """Shows the steps, the steps per second, and the mean return and success rate of the last 100 episodes."""

    def on_start(self, trainer: "AsyncTrainer") -> None:
        """Show the bar."""
        begin, target = trainer.goal
        self._bar = Bar(total=target - begin, initial=trainer.steps_done - begin, unit="step")

    def on_rollout(self, trainer: "AsyncTrainer", steps: int, episodes: Sequence[Episode]) -> None:
        """Advance the bar."""
        bar = self._bar
        bar.update(min(steps, trainer.goal[1] - trainer.goal[0] - bar.n))
        if episodes:
            rate = trainer.success_rate
            success = "" if np.isnan(rate) else f", success {rate:.0%}"
            bar.set_description(f"mean return {trainer.mean_return:.1f}{success}", refresh=False)

    def on_end(self, trainer: "AsyncTrainer") -> None:
        """Close the bar, and leave it on the screen."""
        self._bar.close()
