"""AsyncTrainer: the loop that collects and updates."""

import os
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any, Generic, TypeVar, Unpack

import numpy as np

from AsyncPPO.acting import choose_acting
from AsyncPPO.agent import Agent, optional
from AsyncPPO.agreement import Others, agree_on_state, agree_to_stop
from AsyncPPO.backends import Plan, with_success
from AsyncPPO.callbacks.base import Callback, ProgressBar, call, started
from AsyncPPO.checkpoint import contents, join, read_checkpoint, restore, state_for_new_rank
from AsyncPPO.collector import make_collector
from AsyncPPO.episodes import SUCCESS_RATE, Episode, Evaluation, means_of_infos, metric_of
from AsyncPPO.factory import EnvLike, number_of_copies
from AsyncPPO.rows import RowMeans, report, report_without_update, warn_of_missing_metrics
from AsyncPPO.settings import ActingMode, EnvSettings, Mode, callbacks_in, check_arguments, warn_if_too_short
from AsyncPPO.share import Share, check_ranks
from AsyncPPO.turns import LaggedTurns, Turns
from AsyncPPO.vectorizer import EnvVectorizer
from parallel_rl.utils import ALONE, Closeable, Cluster, History, Metrics, counted, is_vectorized, save_state

RECENT_EPISODES = 100
DEFAULT_NUM_ENVS = 32
A = TypeVar("A", bound=Agent)


class AsyncTrainer(Closeable, Generic[A]):
    """Trains an `Agent` in parallel environments.

    Args:
        env: one environment for all or a list of N; anything that `EnvVectorizer` takes.
        agent: the agent to train.
        num_envs: N, the number of parallel environments; by default 32, or the length of the list.
        steps: environment steps to take, over all environments; the last vector step may exceed it by less than N.
        mode: `streaming`: environments reset automatically, and the agent updates as soon as it has enough transitions.
            `mask`: every environment finishes its episode, then the agent updates.
        acting: `central`: the agent acts for all environments in every step. `replicas`: each process that steps
            environments has a replica of the policy, which acts for a whole batch at a time (with a progress bar, for
            at most 0.2 s); only with `streaming`, and with small networks on the CPU. `auto`: replicas where possible,
            otherwise central.
        lag: 1 collects the next batch during an update, with the weights from before it. Only with `streaming` and an
            on-policy agent that acts in this process. The metric `policy_lag` is 1 if the batch of the update has
            rows that were collected so, or that waited from an earlier `run`; otherwise 0. On two cores lag gains
            little or nothing (docs/performance.md).
        info_keys: names of numbers in the last info of an episode; the metric `info_KEY` is the mean over the last 100
            episodes. If infos have `is_success` or `success`, `success_rate` is always a metric.
        progress: whether to show a progress bar.
        callbacks: called in this order; see `AsyncPPO.callbacks`.
        ranks: the processes of a run on several cores or machines (docs/scale-out.md). Sizes and steps are totals over
            all ranks.
        settings: the other keyword arguments of `EnvVectorizer`. With `on_env_error="restart"` the number of `restarts`
            is a metric. A callback may assign `trainer.env.reset_options`.

    Raises:
        ValueError: a size or mode is wrong, or the agent was made for other spaces.
        TypeError: the environment cannot be vectorized, an argument is unknown, `agent` is not an agent, or one of
            `callbacks` is not a `Callback`.
    """

    warns_of_short_runs = True
    """Whether it warns of a run without an update or an episode. A population does so once for all its members."""

    def __init__(
        self,
        env: EnvLike | Sequence[EnvLike],
        agent: A,
        num_envs: int | None = None,
        steps: int = 100000,
        *,
        mode: Mode = "streaming",
        acting: ActingMode = "auto",
        lag: int = 0,
        info_keys: Sequence[str] = (),
        progress: bool = True,
        callbacks: Sequence[Callback] = (),
        ranks: Cluster = ALONE,
        **settings: Unpack[EnvSettings],
    ) -> None:
        steps = counted("steps", steps)
        check_arguments(agent, settings, by=type(self).__name__)
        check_ranks(ranks, agent, mode, lag, settings.get("seed"))
        self.agent, self.steps, self.mode, self.lag, self.progress = agent, steps, mode, lag, progress
        self.num_envs = number_of_copies(env, num_envs, DEFAULT_NUM_ENVS)
        self.ranks, self.share = ranks, Share.of(ranks, self.num_envs)
        self.callbacks = [*([ProgressBar()] if progress and ranks.node == 0 else []), *callbacks_in(callbacks)]
        keys = with_success(info_keys)
        self.info_metrics = {metric_of(key): key for key in info_keys}
        self.counts_restarts = settings.get("on_env_error") == "restart"
        self.acting, self.acting_reason = choose_acting(acting, agent, mode, lag, is_vectorized(env))
        self.env = self._make_env(env, keys, settings)
        self._prepare_agent()
        self.collector = make_collector(self.env, agent, keys, self.share)
        self.buffer = self.collector.buffer
        self.steps_done, self.seconds, self.episodes_done = 0, 0.0, 0
        self.recent: deque[Episode] = deque(maxlen=RECENT_EPISODES)
        self.history, self.evaluations = History(), list[Evaluation]()
        self.stopped: str | None = None
        self.goal, self.skip_slow_work, self._begun = (0, 0), False, False
        self.error: BaseException | None = None
        self.collecting_since: float | None = None  # by `time.monotonic`; None between collections
        self.rows, self.restarts = RowMeans(agent), 0  # restarts of environments of all ranks that failed
        self.others, self.running_envs = Others(), self.num_envs  # fewer run while a rank is missing

    def _make_env(self, env: Any, info_keys: Sequence[str], settings: EnvSettings) -> EnvVectorizer:
        replica = self.agent.replica() if self.acting == "replicas" else None
        fewest = self.share.num_envs if self.ranks.elastic else self.num_envs
        env, options = self.share.of_run(env, settings)
        return EnvVectorizer(
            env,
            self.share.num_envs,
            autoreset=self.mode == "streaming",
            plan=None if replica is None else Plan(replica, -(-replica.batch_size // fewest), tuple(info_keys)),
            **options,
        )

    def _prepare_agent(self) -> None:
        """Check that the agent fits these environments, and tell it which of the run's environments this rank has."""
        try:
            optional(self.agent, "check_fits")(self.env)
            optional(self.agent, "take_share")(self.share.own, self.share.total)
        except Exception:
            self.close()
            raise

    @property
    def mean_return(self) -> float:
        """Mean return of the last 100 episodes; NaN before the first has ended."""
        return float(np.mean([episode.return_ for episode in self.recent])) if self.recent else float("nan")

    @property
    def success_rate(self) -> float:
        """The fraction of successes in the last 100 episodes; NaN if environments report no `is_success`."""
        return means_of_infos(self.recent).get(SUCCESS_RATE, float("nan"))

    @property
    def fraction_done(self) -> float:
        """The fraction of the run that is over, over which settings are annealed; 0 before the first run."""
        begin, target = self.goal
        return min((self.steps_done - begin) / (target - begin), 1.0) if target else 0.0

    @property
    def row_is_due(self) -> bool:
        """Whether the updates since the last row of `history` make a row now."""
        return self.rows.is_due(self.steps_done, last=self.steps_done >= self.goal[1])

    def has_reported(self, steps: float) -> bool:
        """Return whether a row of metrics at step `steps` is one that this run has made already."""
        return steps < self.steps_done or (steps == self.steps_done and not self.row_is_due)

    def run(self) -> History:
        """Collect and update for `steps` environment steps, or until a callback stops the run.

        Another call takes `steps` more. After `load_checkpoint` of an unfinished run, a call takes the remaining steps.
        An interrupt or an error leaves `history` and the agent as they are, and closes the environments if they are in
        a step.

        Returns:
            `history`: the rows that `updates` yields.
        """
        for _ in self.updates():
            pass
        return self.history

    def updates(self) -> Iterator[Metrics]:
        """Train as `run` does, as a generator of rows of metrics.

        Yields:
            Rows, which `history` keeps: `steps`, `seconds` and `episodes` so far; `mean_return`, `mean_length`, and if
            present `success_rate` and `info_KEY`, of the last 100 episodes; and the metrics of `agent.update`. An
            on-policy agent has a row for each update. Otherwise a row covers at least `ROW_STEPS` steps, and has the
            mean metrics of their updates. A run without an update has one row, without those metrics.
        """
        join(self)
        if self.steps_done >= self.goal[1]:
            self.goal = self.steps_done, self.steps_done + self.steps
        if self.warns_of_short_runs and self.steps_done == self.goal[0]:  # not the rest of a run that was stopped
            steps = self.goal[1] - self.goal[0]
            warn_if_too_short(self.agent.steps_wanted() - self.waiting, steps, self.num_envs)
        if self._begun:  # a stop before the first run, such as an early signal, is kept: it ends that run
            self.stopped, self.skip_slow_work = None, False
        self._begun, self.error = True, None
        start = time.perf_counter() - self.seconds
        with started(self.callbacks, self):
            yield from self._loop(start)

    def _loop(self, start: float) -> Iterator[Metrics]:
        """Collect and update until the run is over; yield the rows."""
        turns = LaggedTurns(self) if self.lag else Turns(self)
        may_stop = True  # an on-policy run stops only after an update, so no transition is lost
        on_policy = optional(self.agent, "on_policy")
        while True:
            if self.row_is_due:  # or was, when a callback saved the run in `on_rollout`
                yield report(self)
            if turns.are_over or (may_stop and agree_to_stop(self, partial(state_for_new_rank, self))):
                break
            steps, episodes, metrics = turns.turn()
            self.seconds = agree_on_state(self, time.perf_counter() - start)
            self.rows.add(metrics)
            call(self.callbacks, "on_rollout", self, steps, episodes)
            may_stop = bool(metrics) or not on_policy
        if turns.are_over and self.recent and self.rows.is_missing(self.goal[0]):
            yield report_without_update(self)
        if not self.ranks.node:
            warn_of_missing_metrics(self)

    @property
    def waiting(self) -> int:
        """The number of transitions in the buffers of all ranks."""
        return len(self.buffer) + self.others.waiting

    def stop(self, why: str, *, skip_slow_work: bool = False) -> None:
        """End the run after the current update. Before the first `run`, this ends that run at once.

        Args:
            why: the reason, which `stopped` holds; of several calls, that of the first.
            skip_slow_work: whether callbacks skip slow work, such as a last evaluation; they do if any call says so.
        """
        self.skip_slow_work |= skip_slow_work
        if not self._begun or self.steps_done < self.goal[1]:  # otherwise it ends anyway
            self.stopped = self.stopped or why

    def add_evaluation(self, evaluation: Evaluation) -> None:
        """Append an evaluation to `evaluations` and call `on_evaluation` of the callbacks."""
        self.evaluations.append(evaluation)
        call(self.callbacks, "on_evaluation", self, evaluation)

    def save_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Save everything for an exact resume. Call it between updates, or before or after the run.

        All ranks call it; the first one writes the file.

        Raises:
            OSError: the file cannot be written; an older one of that name is untouched.
        """
        content = contents(self)
        if content is not None and self.ranks.node == 0:
            save_state(path, content)

    def load_checkpoint(
        self, path: str | os.PathLike[str], *, any_num_envs: bool = False, changed: Collection[str] = ()
    ) -> None:
        """Load a checkpoint of a trainer that was made with the same arguments.

        The run then continues bit for bit as if it had not stopped, if the environments can be saved
        (docs/resuming.md). Otherwise they start new episodes. Later rows in `history` and `evaluations` are dropped.

        Args:
            path: the file.
            any_num_envs: accept another `num_envs`. Then all environments start new episodes, with new seeds, and
                transitions that waited for an update are dropped.
            changed: names of the agent's settings that may differ.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, or its environment, agent or settings differ; the message lists the differences.
                Then nothing is changed.
            EnvError: a worker failed, or died.
        """
        restore(self, read_checkpoint(path), path, any_num_envs=any_num_envs, changed=changed)

    def close(self) -> None:
        """Close the environments; may be called twice."""
        self.env.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.agent!r}, {self.env!r}, mode={self.mode!r}, steps_done={self.steps_done})"
