"""Evaluation during training, in another process."""

import math
import os
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from AsyncPPO.agent import optional
from AsyncPPO.backends import choose_start_method, with_success
from AsyncPPO.callbacks.base import Callback
from AsyncPPO.episodes import Episode, Evaluation
from AsyncPPO.evaluation import evaluate_episodes
from AsyncPPO.evaluator import Evaluator
from AsyncPPO.factory import number_of_copies
from AsyncPPO.progress import Bar, warn_if_long
from AsyncPPO.settings import EnvSettings
from parallel_rl.utils import Metrics, check_env_id, counted, read_json, to_json, write_atomically
from parallel_rl.utils.names import names_checked

if TYPE_CHECKING:
    from AsyncPPO.trainer import AsyncTrainer

BEST_FILE = "evaluation.json"
"""The file with the evaluation of the best weights, in their directory."""
PATIENCE_SECONDS = 0.2
"""While a run waits for an evaluation, it checks at this interval, in seconds, whether to stop waiting."""
SILENT_SECONDS = 2.0
"""Seconds that the end of a run waits for an evaluation before it prints a message."""


class BackgroundEvaluation(Callback):
    """Evaluates a copy of the policy at intervals in another process, and keeps the best weights.

    Training does not wait, and no evaluation starts while another one runs. The end of the run waits for the last one.

    Args:
        env: anything that `EnvVectorizer` takes; the evaluation has its own environments.
        every: environment steps from one evaluation to the next.
        episodes: number of deterministic episodes in each; with a `seed` they are the same every time.
        num_envs: the largest number of parallel environments; by default `episodes`.
        info_keys: as for `evaluate_episodes`.
        keep_best: a directory for the weights of the best evaluation so far. A resumed run replaces them only by better
            ones.
        settings: of the `EnvVectorizer`; by default the environments are stepped in the process of the evaluation.

    Raises:
        TypeError: an argument is unknown, or `info_keys` is not a list.
        ValueError: `every`, `episodes` or `num_envs` is below 1, the id of the environment is unknown, or the record of
            the best evaluation in `keep_best` is damaged.
    """

    @names_checked
    def __init__(
        self,
        env: Any,
        every: int,
        *,
        episodes: int = 10,
        num_envs: int | None = None,
        info_keys: Sequence[str] = (),
        keep_best: str | os.PathLike[str] | None = None,
        **settings: Unpack[EnvSettings],
    ) -> None:
        """Store the settings; the process starts with the run."""
        self.every, episodes = counted("every", every), counted("episodes", episodes)
        if isinstance(env, str):
            check_env_id(env)
        self.keep_best = None if keep_best is None else Path(keep_best)
        self._best = self._best_before()
        self._wanted_method = settings.get("start_method", "auto")
        step_timeout = settings.get("step_timeout")
        defaults: EnvSettings = {"backend": "inline" if step_timeout is None else "process", "num_workers": 1}
        self._evaluate: Callable[..., list[Episode]] = partial(
            evaluate_episodes,
            env=env,
            episodes=episodes,
            num_envs=number_of_copies(env, num_envs, episodes),
            info_keys=with_success(info_keys),
            **(defaults | settings),
        )

    def on_start(self, trainer: "AsyncTrainer") -> None:
        """Start the process."""
        self._due = _next(trainer.steps_done, self.every)
        self._running: tuple[int, Any] | None = None
        if not trainer.steps_done:
            self._best = -math.inf
        on_gpu = str(optional(trainer.agent, "device")) != "cpu"
        self._start_method = "spawn" if on_gpu else choose_start_method(self._wanted_method)[0]
        self._evaluator = self._start_evaluator()

    def on_update(self, trainer: "AsyncTrainer", metrics: Metrics) -> None:
        """Report an evaluation that is done; start one that is due."""
        if self._evaluator is not None and self._running is not None and self._evaluator.is_done():
            self._finish(trainer)
        if self._running is None and trainer.steps_done >= self._due:
            self._begin(trainer)

    def on_end(self, trainer: "AsyncTrainer") -> None:
        """Evaluate the final policy, unless an error or a signal ended the run; end the process."""
        try:
            if trainer.error is None and self._running is not None:
                self._finish(trainer)
            evaluated = trainer.evaluations and trainer.evaluations[-1].steps == trainer.steps_done
            if trainer.error is None and not trainer.skip_slow_work and not evaluated:
                self._begin(trainer)
                self._finish(trainer)
        finally:
            if self._evaluator is not None:
                self._evaluator.close()

    def _start_evaluator(self) -> Evaluator | None:
        """Return a new process; None, with a warning, if it cannot start: training continues without evaluations."""
        try:
            return Evaluator(self._evaluate, self._start_method)
        except (OSError, RuntimeError) as error:
            warnings.warn(f"there is no background evaluation: {error}", RuntimeWarning, stacklevel=2)
            return None

    def _begin(self, trainer: "AsyncTrainer") -> None:
        """Send a copy of the policy to the process."""
        if self._evaluator is None:
            return
        actor = trainer.agent.actor()
        self._running = trainer.steps_done, actor
        self._due = _next(trainer.steps_done, self.every)
        self._evaluator.send(actor)

    def _finish(self, trainer: "AsyncTrainer") -> None:
        """Wait for the running evaluation; report it, and keep the weights if they are the best so far."""
        if self._evaluator is None or self._running is None:
            return
        (steps, actor), self._running = self._running, None
        what = f"the evaluation after {steps:,} steps"
        if not _waited_for(self._evaluator, what, trainer):
            return
        episodes, fault = self._evaluator.result()
        if self._evaluator.is_gone:
            self._evaluator = self._start_evaluator()
        if episodes is None:
            warnings.warn(f"{what} failed: {fault}", RuntimeWarning, stacklevel=2)
            return
        evaluation = Evaluation.of(steps, episodes)
        if self.keep_best is not None and evaluation.mean > self._best:
            self._best = evaluation.mean
            actor.save_weights(self.keep_best)
            content = to_json(evaluation.figures()).encode()
            write_atomically(self.keep_best / BEST_FILE, lambda file: file.write(content))
        trainer.add_evaluation(evaluation)

    def _best_before(self) -> float:
        """Return the mean return of the evaluation whose weights are kept."""
        file = None if self.keep_best is None else self.keep_best / BEST_FILE
        if file is None or not file.is_file():
            return -math.inf
        try:
            mean = float(read_json(file)["mean"])
            if not math.isfinite(mean):
                raise ValueError(f"{mean} is not a mean return")
            return mean
        except (ValueError, LookupError, TypeError, OverflowError) as error:
            raise ValueError(f"{file} has no valid mean return of the best weights; delete it to start over") from error


def _waited_for(evaluator: Evaluator, what: str, trainer: "AsyncTrainer") -> bool:
    """Wait until an evaluation is done; return False if the run is to skip it meanwhile.

    After some seconds without a result, a note says what the run waits for.
    """
    began, note_is_due = time.monotonic(), trainer.progress
    with warn_if_long(lambda: what):
        while not evaluator.is_done(PATIENCE_SECONDS):
            if trainer.skip_slow_work:
                return False
            if note_is_due and time.monotonic() > began + SILENT_SECONDS:
                Bar.note(f"waiting for {what} (Ctrl-C ends the run without it)")
                note_is_due = False
    return True


def _next(steps: int, every: int) -> int:
    """Return the next multiple of `every`."""
    return steps // every * every + every
