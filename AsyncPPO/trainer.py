"""AsyncPPO: the loop that collects and learns."""

import os
import time
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Literal, Self, get_args

import numpy as np

from AsyncPPO.backends import CLOSE_SECONDS, BackendName, EnvError, OnEnvError, Plan, StartMethod, with_success
from AsyncPPO.callbacks import Callback, ProgressBar
from AsyncPPO.checkpoint import PROGRESS, SETTINGS, progress_in, read_checkpoint, recent_in
from AsyncPPO.episodes import SUCCESS_RATE, Episode, Evaluation, is_of_info, means_of_infos, metric_of
from AsyncPPO.factory import EnvLike, number_of_copies
from AsyncPPO.memory import VecMemory
from AsyncPPO.rollout import AlternatingCollector, Collector, ReplicaCollector
from AsyncPPO.vectorizer import EnvVectorizer
from parallel_rl.utils import (
    DamagedError,
    History,
    Metrics,
    buffer_to_target_buffer_transfer,
    save_state,
)
from PPO import PPO

Mode = Literal["streaming", "mask"]
Acting = Literal["auto", "central", "alternating", "replicas"]
BAR_SECONDS = 0.2
"""How long the progress bar may stand still while there is something to tell."""
RECENT_EPISODES = 100
DEFAULT_NUM_ENVS = 32


class AsyncPPO:
    """Trains a `PPO` on many copies of an environment at once."""

    def __init__(
        self,
        env: EnvLike | Sequence[EnvLike],
        ppo: PPO,
        num_envs: int | None = None,
        steps: int = 100000,
        *,
        mode: Mode = "streaming",
        acting: Acting = "auto",
        backend: BackendName = "auto",
        num_workers: int | None = None,
        on_env_error: OnEnvError = "raise",
        step_timeout: float | None = None,
        start_method: StartMethod | None = "auto",
        close_timeout: float = CLOSE_SECONDS,
        seed: int | Sequence[int] | None = None,
        reset_options: dict[str, Any] | None = None,
        info_keys: Sequence[str] = (),
        progress: bool = True,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        """Make the environments and their buffers.

        Args:
            env: what an `EnvVectorizer` takes.
            ppo: the agent.
            num_envs: N, how many copies of the environment; by default 32, or as many as `env` lists.
            steps: environment steps to take, over all copies together; the last vector step may go beyond by less
                than N.
            mode: `streaming`: environments start anew by themselves, and the agent learns as soon as its `batch_size`
                transitions are there. `mask`: every environment plays its episode to the end, then the agent learns.
            acting: `central`: the agent answers all environments in every step. `alternating`: it answers one half
                while the other half steps in worker processes; for `streaming`, with an agent on a GPU whose answer
                takes no longer than half of the environments take for a step. `replicas`: a copy of the policy plays
                beside each block of environments, for a whole batch (with a progress bar, for a fifth of a second) at a
                time; for `streaming`, with networks that are small and on the CPU. `auto`: replicas where that is
                possible, otherwise central.
            backend: of the `EnvVectorizer`.
            num_workers: of the `EnvVectorizer`.
            on_env_error: of the `EnvVectorizer`; the metrics count the `restarts`.
            step_timeout: of the `EnvVectorizer`.
            start_method: of the `EnvVectorizer`.
            close_timeout: of the `EnvVectorizer`.
            seed: of the environments; a number, or a list of one for each.
            reset_options: of the `EnvVectorizer`; a callback may assign `trainer.env.reset_options`.
            info_keys: numbers in the last info of an episode whose mean over the last 100 episodes is a metric,
                `info_KEY`. `is_success` (or `success`) need not be asked for: where an environment says it,
                `success_rate` is a metric.
            progress: whether to show a progress bar.
            callbacks: told of what happens, in this order; see `AsyncPPO.callbacks`.

        Raises:
            ValueError: a bad size or mode, or an agent that was made for other spaces.
            TypeError: an environment that cannot be vectorized.
        """
        if steps < 1:
            raise ValueError(f"steps must be at least 1, not {steps}")
        if mode not in ("streaming", "mask"):
            raise ValueError(f"mode must be 'streaming' or 'mask', not {mode!r}")
        num_envs = number_of_copies(env, num_envs, DEFAULT_NUM_ENVS)
        asked, info_keys = tuple(info_keys), with_success(info_keys)
        if steps < ppo.batch_size:
            what = f"steps ({steps}) is less than the batch_size of the PPO ({ppo.batch_size}): nothing will be learnt"
            warnings.warn(what, RuntimeWarning, stacklevel=2)
        self.acting, self.acting_reason = _choose_acting(acting, ppo, num_envs, mode, backend, on_env_error)
        replica = ppo.replica() if self.acting == "replicas" else None
        plan = None if replica is None else Plan(replica, -(-ppo.batch_size // num_envs), info_keys)
        self.ppo = ppo
        self.num_envs = num_envs
        self.steps = steps
        self.mode = mode
        self.progress = progress
        self.callbacks = [*([ProgressBar()] if progress else []), *callbacks]
        self.env = EnvVectorizer(
            env,
            num_envs,
            backend=backend,
            num_workers=num_workers,
            seed=seed,
            reset_options=reset_options,
            autoreset=mode == "streaming",
            plan=plan,
            asynchronous=self.acting == "alternating",
            on_env_error=on_env_error,
            step_timeout=step_timeout,
            start_method=start_method,
            close_timeout=close_timeout,
        )
        self._counts_restarts = on_env_error == "restart"
        self._info_metrics = [metric_of(key) for key in asked]
        try:
            ppo.check_fits(self.env)
        except (TypeError, ValueError):
            self.env.close()
            raise
        self.collector: Collector | ReplicaCollector
        if self.env.rollout is None:
            self.buffer = VecMemory(num_envs)
            kind = AlternatingCollector if self.acting == "alternating" else Collector
            self.collector = kind(self.env, ppo, self.buffer, info_keys)
        else:
            self.buffer = VecMemory(num_envs, self.env.rollout.rows)
            self.collector = ReplicaCollector(self.env, ppo, self.buffer)
        self.steps_done = 0
        self.seconds = 0.0
        self.episodes_done = 0
        self.recent: deque[Episode] = deque(maxlen=RECENT_EPISODES)
        self.history = History()
        self.evaluations: list[Evaluation] = []
        self.stopped: str | None = None
        self.in_a_hurry = False
        self.collecting_since: float | None = None
        """When the environments began what they do now, by `time.monotonic`; None while they do nothing."""
        self.error: BaseException | None = None
        self.goal = 0, 0

    @property
    def mean_return(self) -> float:
        """Mean return of the last 100 episodes; NaN before the first has ended."""
        return float(np.mean([episode.return_ for episode in self.recent])) if self.recent else float("nan")

    @property
    def success_rate(self) -> float:
        """Share of successes in the last 100 episodes; NaN where the environment does not say `is_success`."""
        return means_of_infos(self.recent).get(SUCCESS_RATE, float("nan"))

    def run(self) -> History:
        """Collect and learn until `steps` environment steps are taken, or a callback stops it.

        Called again, it takes as many steps more; after `load_checkpoint` of a run that had not come to its end, those
        that were missing. After an interrupt or an error `history` and the agent are as they were then; one in a step
        closes the environments.

        Returns:
            `history`: what `updates` yields.
        """
        for _ in self.updates():
            pass
        return self.history

    def updates(self) -> Iterator[Metrics]:
        """Do what `run` does, update by update, for a loop that looks at each and may stop.

        Yields:
            For every update a dict of `steps`, `seconds`, `episodes`, `mean_return` and `mean_length` of the last 100
            episodes, their `success_rate` and `info_KEY` where there are such, `policy_lag` (by how many updates the
            policy that acted was older than the one that learnt), and what `PPO.learn` returns; `history` keeps them.
        """
        if self.steps_done >= self.goal[1]:
            self.goal = self.steps_done, self.steps_done + self.steps
        begin, target = self.goal
        start = time.perf_counter() - self.seconds
        self.stopped, self.in_a_hurry, self.error = None, False, None
        with ExitStack() as ends:
            try:
                for callback in self.callbacks:
                    callback.on_start(self)
                    ends.callback(callback.on_end, self)
                while self.steps_done < target and self.stopped is None:
                    yield from self._update(start, begin, target)
            except (Exception, KeyboardInterrupt, SystemExit) as error:
                self.error = error
                raise

    def stop(self, why: str, *, in_a_hurry: bool = False) -> None:
        """End the run after the present update; `stopped` is then `why`.

        Args:
            why: to be read by people.
            in_a_hurry: whether callbacks are to leave out what takes long.
        """
        self.in_a_hurry = in_a_hurry
        if self.steps_done < self.goal[1]:  # one that has come to its end was not stopped
            self.stopped = why

    def tell_evaluation(self, evaluation: Evaluation) -> None:
        """Keep an evaluation in `evaluations` and tell the callbacks of it."""
        self.evaluations.append(evaluation)
        for callback in self.callbacks:
            callback.on_evaluation(self, evaluation)

    def save_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Save everything that the run depends on; after an update, or before or after the run.

        Raises:
            OSError: the file cannot be written; one that was there before is untouched.
        """
        save_state(
            path,
            {
                "made_for": self._made_for(),
                SETTINGS: self.ppo.settings(),
                "progress": {name: getattr(self, name) for name in PROGRESS},
                "recent": [[*episode, dict(episode.infos)] for episode in self.recent],
                "ppo": self.ppo.state(),
                "buffer": self.buffer.state(),
                "collector": self.collector.state(),
            },
        )

    def load_checkpoint(self, path: str | os.PathLike[str], *, any_num_envs: bool = False) -> None:
        """Go on from what `save_checkpoint` saved, by a run with the same arguments.

        What comes is then what would have come, to the last bit, if the environments can be kept (docs/resuming.md);
        otherwise they begin new episodes.

        Args:
            path: of the file.
            any_num_envs: whether it may be of a run with another `num_envs`. Then all environments begin new episodes,
                seeded as those of a new run, and what waited to be learnt from, less than a batch, is dropped.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, or the checkpoint of another environment, architecture or way to learn; the
                message says what differs. Nothing is changed then.
            EnvError: a worker failed, or died.
        """
        state = read_checkpoint(path)
        own, made_for = self._made_for(), state["made_for"]
        fresh = any_num_envs and made_for.get("num_envs") != own["num_envs"]
        different = [
            f"{name} is {saved!r} there and {own.get(name)!r} here"
            for name, saved in made_for.items()
            if saved != own.get(name) and not (fresh and name == "num_envs")
        ]
        if different:
            raise ValueError(f"the checkpoint {path} does not fit: {'; '.join(different)}")
        if SETTINGS in state:
            self.ppo.check_settings(state[SETTINGS], f"the agent's settings in {path}", learning=True)
        before = self.ppo.state(), self.buffer.state()
        try:
            progress, recent = progress_in(state["progress"]), recent_in(state["recent"])
            self.ppo.load_state(state["ppo"])
            if fresh:
                self.ppo.forget_environments()
                self.env.begin_after(state["collector"]["env"])
                self.buffer.clear()
            else:
                self.collector.load_state(state["collector"], state["buffer"])
        except EnvError:
            raise
        except Exception as error:  # whatever what is missing in a forged one, or is something else, leads to
            self.ppo.load_state(before[0])
            self.buffer.load_state(before[1])
            raise DamagedError(f"{path} is not the checkpoint of such a run: {error!r}") from error
        vars(self).update(progress)
        self.recent.clear()
        self.recent.extend(recent)

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

    def _update(self, start: float, begin: int, target: int) -> Iterator[Metrics]:
        """Collect until an update is made, or the run is over; yield its row."""
        acted = self.ppo.updates
        metrics: Metrics = {}
        while not metrics and self.steps_done < target:
            self.collecting_since = time.monotonic()
            try:
                steps, episodes = self.collector.collect(self._vector_steps(target))
            finally:
                self.collecting_since = None
            self.steps_done += steps
            self.episodes_done += len(episodes)
            self.recent.extend(episodes)
            lag = self.ppo.updates - acted
            if self._may_learn() or (self.mode == "mask" and self.steps_done >= target):
                metrics = self._learn(progress=(self.steps_done - begin) / (target - begin))
            self.seconds = time.perf_counter() - start
            for callback in self.callbacks:
                callback.on_rollout(self, steps, episodes)
        if metrics:
            row = self._progress() | {"policy_lag": lag} | metrics
            if self._counts_restarts:
                row["restarts"] = self.env.restarts
            self.history.append(row)
            for callback in self.callbacks:
                callback.on_update(self, row)
            yield row

    def _made_for(self) -> dict[str, Any]:
        """Return what a checkpoint has to agree with."""
        network = {name: value for name, value in self.ppo.network.items() if not callable(value)}
        return {
            "the environment": self.env.spec.id if self.env.spec else None,
            "its observation space": str(self.env.single_observation_space),
            "its action space": str(self.env.single_action_space),
            "num_envs": self.num_envs,
            "mode": self.mode,
            "use_RND": self.ppo.use_RND,
            **{name: list(value) if isinstance(value, tuple) else value for name, value in network.items()},
        }

    def _vector_steps(self, target: int) -> int:
        """Return how many steps every environment may take before there is something to learn from, or to show."""
        missing = min(self.ppo.batch_size - len(self.buffer) - len(self.ppo.memory), target - self.steps_done)
        steps = -(-missing // self.num_envs)
        if self.progress:
            speed = self.steps_done / self.seconds if self.seconds else 0.0
            steps = min(steps, int(speed * BAR_SECONDS / self.num_envs))
        return max(1, steps)

    def _may_learn(self) -> bool:
        if self.mode == "mask":
            return bool(self.env.finished.all())
        return len(self.buffer) + len(self.ppo.memory) >= self.ppo.batch_size

    def _learn(self, progress: float) -> dict[str, float]:
        buffer_to_target_buffer_transfer(self.buffer, self.ppo.memory)
        return self.ppo.learn(progress) if self.env.rollout is None else self.ppo.learn(progress, self.env)

    def _progress(self) -> Metrics:
        return {
            "steps": self.steps_done,
            "seconds": self.seconds,
            "episodes": self.episodes_done,
            "mean_return": self.mean_return,
            "mean_length": float(np.mean([episode.length for episode in self.recent])) if self.recent else float("nan"),
            **self._infos(),
        }

    def _infos(self) -> Metrics:
        """Return the metrics of infos: those that were asked for, and those that were known at some time."""
        known = [name for name in self.history.columns if is_of_info(name)]
        return dict.fromkeys([*self._info_metrics, *known], float("nan")) | means_of_infos(self.recent)


def _choose_acting(
    asked: Acting, ppo: PPO, num_envs: int, mode: Mode, backend: BackendName, on_env_error: OnEnvError
) -> tuple[Acting, str]:
    """Return how to act, and why.

    Raises:
        ValueError: what was asked for is not possible.
    """
    if asked not in (known := get_args(Acting)):
        raise ValueError(f"acting must be one of {', '.join(known)}, not {asked!r}")
    if asked == "alternating":
        if mode == "mask" or num_envs == 1 or backend not in ("auto", "process") or on_env_error == "restart":
            raise ValueError(
                "acting='alternating' needs mode='streaming', two environments or more, worker processes, and "
                "on_env_error='raise'"
            )
        return asked, "one half of the environments steps while the agent answers the other"
    if asked != "central" and mode == "streaming" and ppo.replica() is not None:
        return "replicas", "copies of the policy play beside the environments"
    if asked == "replicas":
        raise ValueError("acting='replicas' needs mode='streaming' and a PPO of two small MLPs in float32 on the CPU")
    why = "as asked" if asked == "central" else "its networks are others than two small MLPs, in bfloat16, or on a GPU"
    return "central", f"the agent is asked at every step: {'mask mode' if mode == 'mask' else why}"
