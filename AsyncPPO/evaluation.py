"""Whole episodes of an actor: played once, or beside the training by a further process."""

import copy
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np

from AsyncPPO.backends import (
    CLOSE_SECONDS,
    RESTART_LIMIT,
    BackendName,
    EnvError,
    OnEnvError,
    StartMethod,
    choose_start_method,
    with_success,
)
from AsyncPPO.callbacks import Callback
from AsyncPPO.episodes import Episode, Episodes, Evaluation, last_numbers
from AsyncPPO.evaluator import Evaluator
from AsyncPPO.factory import number_of_copies
from AsyncPPO.progress import Bar, tell_if_long
from AsyncPPO.rollout import Actor, Memories
from AsyncPPO.vectorizer import EnvVectorizer
from parallel_rl.utils import (
    Metrics,
    episode_ends,
    inactive_states_dropout,
    indexes_of_active_environments,
    read_json,
    update_active_environments_list,
    write_atomically,
)

if TYPE_CHECKING:
    from AsyncPPO.trainer import AsyncPPO

DEFAULT_NUM_ENVS = 100
LONGEST_EPISODE = 10_000
"""Steps after which `evaluate` cuts an episode of an environment that has no limit."""
BEST_FILE = "evaluation.json"
"""Beside the best weights: the evaluation that they are of."""
PATIENCE_SECONDS = 0.2
"""How often one that waits for an evaluation looks whether the run is in a hurry."""
SILENT_SECONDS = 2.0
"""After how many the end of a run that shows its progress says that it waits for an evaluation."""


class Settings(TypedDict, total=False):
    """Arguments of `evaluate_episodes`."""

    deterministic: bool
    num_envs: int | None
    seed: int | Sequence[int] | None
    reset_options: dict[str, Any] | None
    info_keys: Sequence[str]
    backend: BackendName
    num_workers: int | None
    on_env_error: OnEnvError
    step_timeout: float | None
    start_method: StartMethod | None
    close_timeout: float
    max_steps: int | None
    progress: bool


def evaluate(actor: Actor, env: Any, episodes: int = 100, **settings: Unpack[Settings]) -> np.ndarray:
    """Play whole episodes and return their undiscounted returns `(episodes,)`.

    Every environment plays its episode to the end, so that short episodes count no more often than long ones. Episodes
    that had to be cut since the environment knows no limit are a warning.

    Args:
        actor: anything with `get_action`.
        env: what an `EnvVectorizer` takes.
        episodes: how many.
        settings: further arguments of `evaluate_episodes`, which says more of each episode.

    Raises:
        ValueError, EnvError: as `evaluate_episodes`.
    """
    return np.array([episode.return_ for episode in evaluate_episodes(actor, env, episodes, **settings)])


def evaluate_episodes(
    actor: Actor,
    env: Any,
    episodes: int = 100,
    *,
    deterministic: bool = True,
    num_envs: int | None = None,
    seed: int | Sequence[int] | None = None,
    reset_options: dict[str, Any] | None = None,
    info_keys: Sequence[str] = (),
    backend: BackendName = "auto",
    num_workers: int | None = None,
    on_env_error: OnEnvError = "raise",
    step_timeout: float | None = None,
    start_method: StartMethod | None = "auto",
    close_timeout: float = CLOSE_SECONDS,
    max_steps: int | None = None,
    progress: bool = False,
) -> list[Episode]:
    """Play whole episodes and return them, with their returns, lengths, and whether they were a success.

    Every environment plays its episode to the end, so that short episodes count no more often than long ones.

    Args:
        actor: anything with `get_action`.
        env: what an `EnvVectorizer` takes.
        episodes: how many.
        deterministic: whether the actor plays its most probable actions.
        num_envs: how many play at once, at most, and how many are made; by default 100, or as many as `env` lists.
        seed: of the environments; a number, or a list of one for each.
        reset_options: of the `EnvVectorizer`.
        info_keys: further numbers of last infos to be kept in `Episode.infos`, beside `is_success`.
        backend: of the `EnvVectorizer`.
        num_workers: of the `EnvVectorizer`.
        on_env_error: of the `EnvVectorizer`; with `restart` an episode that was cut short is played again.
        step_timeout: of the `EnvVectorizer`.
        start_method: of the `EnvVectorizer`.
        close_timeout: of the `EnvVectorizer`.
        max_steps: after how many an episode is cut; None for 10,000 where the environment has no limit of its own.
        progress: whether to show a bar.

    Raises:
        ValueError: no episodes.
        EnvError: an environment failed, or hung; with `restart`, again and again.
    """
    if episodes < 1:
        raise ValueError(f"episodes must be at least 1, not {episodes}")
    copies = number_of_copies(env, num_envs, DEFAULT_NUM_ENVS)
    num_envs = min(copies, episodes)
    if isinstance(env, list | tuple):
        env = env[:num_envs]
    if not isinstance(seed, int | np.integer | None) and len(seed) == copies:
        seed = seed[:num_envs]
    keys = with_success(info_keys)
    fault_policy: dict[str, Any] = {
        "on_env_error": on_env_error,
        "step_timeout": step_timeout,
        "reset_options": reset_options,
    }
    processes: dict[str, Any] = {
        "backend": backend, "num_workers": num_workers, "start_method": start_method, "close_timeout": close_timeout
    }  # fmt: skip
    played: list[Episode] = []
    missing, fruitless, cut, endless = episodes, 0, 0, False
    with (
        EnvVectorizer(env, num_envs, seed=seed, **fault_policy, **processes) as envs,
        Bar(total=episodes, unit="episode", desc="evaluating", disable=not progress) as bar,
    ):
        if max_steps is None and not (envs.spec and envs.spec.max_episode_steps):
            max_steps, endless = LONGEST_EPISODE, True
        while missing > 0:
            news, unended = _play_round(envs, actor, missing, deterministic, max_steps, keys, bar)
            fruitless = 0 if news else fruitless + 1
            if fruitless > RESTART_LIMIT:
                raise EnvError(f"no episode came to its end in {RESTART_LIMIT} rounds: every environment failed")
            played += news
            missing, cut = missing - len(news), cut + unended
    if endless and cut:
        warnings.warn(
            f"{cut} of {episodes} episodes were cut after {max_steps:,} steps: the environment has no time limit; "
            "max_episode_steps=200 as an argument of gymnasium.make (--env-kwargs max_episode_steps=200) gives it one",
            RuntimeWarning,
            stacklevel=2,
        )
    return played


def _play_round(
    envs: EnvVectorizer,
    actor: Actor,
    episodes: int,
    deterministic: bool,
    max_steps: int | None,
    keys: Sequence[str],
    bar: Bar,
) -> tuple[list[Episode], int]:
    """Play an episode in each environment, `episodes` at most.

    Returns:
        Those that did not fail, and how many episodes were cut at `max_steps`.
    """
    sums, ended = Episodes(envs.num_envs, keys), dict[int, Episode]()
    memories = Memories(actor, envs.num_envs)
    obs = envs.reset()[0][:episodes]
    envs.finished[episodes:] = True
    for step in count(1):
        env_ids = indexes_of_active_environments(envs.finished)
        action = memories.ask(actor.get_action, obs, env_ids, deterministic=deterministic)
        obs, reward, terminated, truncated, infos = envs.step(action)
        unended, failed = ~episode_ends(terminated, truncated), envs.failed[env_ids]
        over = ~unended | (step == max_steps)
        numbers = last_numbers(env_ids, infos, over, keys, autoreset=False)
        news = sums.count(env_ids, reward[None], over[None], None if numbers is None else numbers[None])
        ended |= {
            i: episode for i, bad, episode in zip(env_ids[over].tolist(), failed[over], news, strict=True) if not bad
        }
        bar.update(int(np.count_nonzero(over & ~failed)))
        obs = inactive_states_dropout(obs, over)
        update_active_environments_list(envs.finished, over)
        if envs.finished.all():
            break
    return [ended[index] for index in sorted(ended)], int(np.count_nonzero(unended))


class BackgroundEvaluation(Callback):
    """Plays deterministic episodes at intervals, with the weights and statistics of that moment, and keeps the best.

    The training does not wait for it: while one evaluation runs none begins. At its end the run waits for the last.
    """

    def __init__(
        self,
        env: Any,
        every: int,
        *,
        episodes: int = 10,
        num_envs: int | None = None,
        seed: int | Sequence[int] | None = None,
        reset_options: dict[str, Any] | None = None,
        info_keys: Sequence[str] = (),
        keep_best: str | os.PathLike[str] | None = None,
        on_env_error: OnEnvError = "raise",
        step_timeout: float | None = None,
        start_method: StartMethod | None = "auto",
        close_timeout: float = CLOSE_SECONDS,
    ) -> None:
        """Keep the parts; the process starts with the run.

        Args:
            env: what an `EnvVectorizer` takes; the evaluation has environments of its own.
            every: environment steps from one evaluation to the next.
            episodes: in each; they are the same ones every time.
            num_envs: how many play at once, at most; by default all.
            seed: of `evaluate`.
            reset_options: of `evaluate`.
            info_keys: of `evaluate_episodes`.
            keep_best: a directory for the weights of the best evaluation so far; a run that goes on keeps those that
                are there until there are better ones.
            on_env_error: of `evaluate`.
            step_timeout: of `evaluate`.
            start_method: of the process, and of `evaluate`.
            close_timeout: of `evaluate`.

        Raises:
            ValueError: `every` or `episodes` is below 1, or it is not said how good what is kept was.
        """
        for name, value in (("every", every), ("episodes", episodes)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        self.every, self.keep_best = every, None if keep_best is None else Path(keep_best)
        self._best = self._best_before()
        self._play: Callable[..., list[Episode]] = partial(
            evaluate_episodes,
            env=env,
            episodes=episodes,
            seed=seed,
            reset_options=reset_options,
            info_keys=info_keys,
            num_envs=num_envs or (None if isinstance(env, list | tuple) else episodes),
            backend="inline" if step_timeout is None else "process",
            num_workers=1,
            on_env_error=on_env_error,
            step_timeout=step_timeout,
            start_method=start_method,
            close_timeout=close_timeout,
        )
        self._asked_method = start_method

    def on_start(self, trainer: "AsyncPPO") -> None:
        """Start the process."""
        self._due = _next(trainer.steps_done, self.every)
        self._playing: tuple[int, Any] | None = None
        if not trainer.steps_done:
            self._best = -math.inf
        on_gpu = str(getattr(trainer.ppo, "device", "cpu")) != "cpu"
        self._start_method = "spawn" if on_gpu else choose_start_method(self._asked_method)[0]
        self._evaluator = self._start_evaluator()

    def on_update(self, trainer: "AsyncPPO", metrics: Metrics) -> None:
        """Take over what is finished; begin what is due."""
        if self._evaluator is not None and self._playing is not None and self._evaluator.has_answered():
            self._finish(trainer)
        if self._playing is None and trainer.steps_done >= self._due:
            self._begin(trainer)

    def on_end(self, trainer: "AsyncPPO") -> None:
        """Evaluate once more where the run came to its end; end the process."""
        try:
            if trainer.error is None and self._playing is not None:
                self._finish(trainer)
            evaluated = trainer.evaluations and trainer.evaluations[-1].steps == trainer.steps_done
            if trainer.error is None and not trainer.in_a_hurry and not evaluated:
                self._begin(trainer)
                self._finish(trainer)
        finally:
            if self._evaluator is not None:
                self._evaluator.close()

    def _start_evaluator(self) -> Evaluator | None:
        """Return a process; None, with a warning, where there can be none: the training goes on without."""
        try:
            return Evaluator(self._play, self._start_method)
        except (OSError, RuntimeError) as error:
            warnings.warn(f"there is no evaluation beside the training: {error}", RuntimeWarning, stacklevel=2)
            return None

    def _begin(self, trainer: "AsyncPPO") -> None:
        if self._evaluator is None:
            return
        actor = copy.deepcopy(trainer.ppo)
        self._playing = trainer.steps_done, actor
        self._due = _next(trainer.steps_done, self.every)
        self._evaluator.send(actor)

    def _finish(self, trainer: "AsyncPPO") -> None:
        if self._evaluator is None or self._playing is None:
            return
        (steps, actor), self._playing = self._playing, None
        what, began, silent = f"the evaluation after {steps:,} steps", time.monotonic(), trainer.progress
        with tell_if_long(lambda: what):
            while not self._evaluator.has_answered(PATIENCE_SECONDS):
                if trainer.in_a_hurry:
                    return
                if silent and time.monotonic() > began + SILENT_SECONDS:
                    Bar.note(f"waiting for {what} (Ctrl-C leaves it out)")
                    silent = False
        episodes, fault = self._evaluator.answer()
        if self._evaluator.is_gone:
            self._evaluator = self._start_evaluator()
        if episodes is None:
            warnings.warn(f"the evaluation after {steps:,} steps failed: {fault}", RuntimeWarning, stacklevel=2)
            return
        evaluation = Evaluation.of(steps, episodes)
        if self.keep_best is not None and evaluation.mean > self._best:
            self._best = evaluation.mean
            actor.save_weights(self.keep_best)
            content = json.dumps(evaluation.figures()).encode()
            write_atomically(self.keep_best / BEST_FILE, lambda file: file.write(content))
        trainer.tell_evaluation(evaluation)

    def _best_before(self) -> float:
        """Return the mean of the evaluation whose weights are kept."""
        file = None if self.keep_best is None else self.keep_best / BEST_FILE
        if file is None or not file.is_file():
            return -math.inf
        try:
            mean = float(read_json(file)["mean"])
            if not math.isfinite(mean):
                raise ValueError(f"{mean} is no mean of returns")
            return mean
        except (ValueError, LookupError, TypeError, OverflowError) as error:
            raise ValueError(f"{file} does not say how good the best was; delete it to begin anew") from error


def _next(steps: int, every: int) -> int:
    """Return the next multiple of `every`."""
    return steps // every * every + every
