"""Members of a population: they step environments and, in parallel learning, train their agents."""

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from AsyncPPO import AsyncTrainer
from AsyncPPO.agent import optional
from AsyncPPO.backends import EnvFactory
from AsyncPPO.callbacks import Callback
from AsyncPPO.checkpoint import contents, restore
from AsyncPPO.episodes import Episode
from AsyncPPO.workers import Pulse
from parallel_rl.utils import History, Metrics, State
from Population.experience import Experience
from Population.schedule import Count, Schedule, due
from Population.transport import Update, apply_settings, generators_of, packed, reseeded, saved, unpacked

ALL_STEPS = 2**62
"""The number of steps of a run that ends by episodes or seconds: it is never reached."""


@dataclass(frozen=True)
class Report:
    """What a member sends when its schedule says so, or when it finishes."""

    count: Count
    """Its steps, episodes and seconds so far."""
    version: int
    """The version of its agent."""
    finished: bool
    """Whether its run is over."""
    returns: list[float]
    """The returns of the episodes that ended since the last report."""
    content: Any
    """Its agent, packed; None if it only collects."""
    experience: Experience = field(default_factory=Experience)
    """Its steps since the last report, if it only collects or if they are kept."""


class Member(Protocol):
    """The tasks of a member."""

    def take(self, update: Update) -> None:
        """Replace the agent."""

    def advance(self) -> Report:
        """Continue until it is time to send or to finish."""

    def restore(self, count: Count) -> None:
        """Continue with the counts of a member that died."""

    def finish(self) -> tuple[Any, list[Metrics]]:
        """End; return the agent, packed, and the rows of metrics."""

    def close(self) -> None:
        """Close the environments."""


class AgentMember:
    """A `Population.Agent` in one environment."""

    def __init__(
        self,
        number: int,
        agent: Any,
        make_env: Callable[[], Any],
        schedule: Schedule,
        *,
        learning: bool,
        keep_experience: bool,
        seed: int,
        pulse: Pulse,
    ) -> None:
        """Make the environment.

        `learning` means that it trains its agent; otherwise it sends its experience, which `keep_experience` asks for
        in any case. The seed is that of the environment and of the agent's random generators. The pulse gets a beat in
        every step.
        """
        self.number, self.schedule, self.learning, self.pulse = number, schedule, learning, pulse
        self.env, self.agent, self.seed = make_env(), reseeded(agent, seed), seed
        self.trains, self.sends = learning and not schedule.train_agent.is_never, keep_experience or not learning
        self.fresh, self.unsent = Experience(), Experience()
        """The steps since the agent was trained, and since the last report."""
        self.version, self.count = 0, Count()
        self.trained_at, self.sent_at = Count(), Count()
        """The counts when it trained and sent last."""
        self.returns: list[float] = []
        self.observed: Any = None
        """The current observation and info; None before the first step."""

    def take(self, update: Update) -> None:
        """Replace the agent; the member keeps its own random generators."""
        own = generators_of(self.agent)
        self.agent, self.version = unpacked(self.agent, update.content), update.version
        if own:
            vars(self.agent).update(own)

    def advance(self) -> Report:
        """Step until it is time to send or to finish."""
        if self.observed is None:
            self._begin()
        schedule = self.schedule
        while True:
            self._step()
            count = self.count
            if self.trains and due(schedule.train_agent, self.trained_at, count):
                self._train()
            finished = due(schedule.finish, Count(), count)
            if finished or due(schedule.worker_send_data, self.sent_at, count):
                return self._report(finished)

    def restore(self, count: Count) -> None:
        """Continue with the counts of the member that died."""
        self.count = self.trained_at = self.sent_at = count

    def finish(self) -> tuple[Any, list[Metrics]]:
        """Call `after` of the environment and of the agent."""
        for part in (self.env, self.agent):
            if hasattr(part, "after"):
                part.after()
        return packed(self.agent), []

    def close(self) -> None:
        """Close the environment, if it has a `close`."""
        if hasattr(self.env, "close"):
            self.env.close()

    def _begin(self) -> None:
        for part in (self.env, self.agent):
            if hasattr(part, "before"):
                part.before()
        obs, info = self.env.reset(seed=self.seed) if isinstance(self.env, gym.Env) else self.env.reset()
        self.observed = copy.deepcopy(obs), info  # an environment may write the next one into the same arrays
        self.episode_return = 0.0
        self.began = time.monotonic() - self.count.seconds

    def _step(self) -> None:
        self.pulse.beat(self.number)
        action = self.agent.action(self.observed)
        next_obs, reward, terminated, truncated, info = self.env.step(action)
        next_obs = copy.deepcopy(next_obs)
        steps, episodes = int(self.count.steps) + 1, int(self.count.episodes)
        step = (
            self.observed[0], action, reward, next_obs, terminated, truncated, info, self.version, self.number,
            episodes + 1,
        )  # fmt: skip
        if self.trains:
            self.fresh.add_step(*step)
        if self.sends:
            self.unsent.add_step(*step)
        self.observed = next_obs, info
        self.episode_return += float(reward)
        if terminated or truncated:
            obs, info = self.env.reset()
            self.observed = copy.deepcopy(obs), info
            self.returns.append(self.episode_return)
            self.episode_return, episodes = 0.0, episodes + 1
        self.count = Count(steps, episodes, time.monotonic() - self.began)
        self.pulse.step = steps

    def _train(self) -> None:
        batch, self.fresh = self.fresh, Experience()
        self.agent.train(batch)
        self.version += 1
        self.trained_at = self.count

    def _report(self, finished: bool) -> Report:
        if finished and len(self.fresh):
            self._train()  # on the remaining steps
        self.sent_at = self.count
        returns, self.returns = self.returns, []
        steps, self.unsent = self.unsent, Experience()
        content = packed(self.agent) if self.learning else None
        return Report(self.count, self.version, finished, returns, content, steps)


class Watch(Callback):
    """Counts the episodes of a trainer, and beats its member's pulse."""

    def __init__(self, number: int, pulse: Pulse) -> None:
        self.number, self.pulse = number, pulse
        self.returns: list[float] = []

    def on_rollout(self, trainer: AsyncTrainer, steps: int, episodes: Sequence[Episode]) -> None:
        """Count the episodes, and beat."""
        self.pulse.beat(self.number)
        self.pulse.step = trainer.steps_done
        self.returns += [episode.return_ for episode in episodes]


class MemberTrainer(AsyncTrainer):
    """A trainer whose run ends by steps, episodes or seconds, whichever comes first."""

    warns_of_short_runs = False

    def __init__(self, envs: list[EnvFactory], agent: Any, finish: Count, **options: Any) -> None:
        """Make the trainer; `finish` is infinite in the units that do not count."""
        steps = math.ceil(finish.steps) if finish.steps < math.inf else ALL_STEPS
        super().__init__(envs, agent, steps=steps, **options)
        self.finish = finish

    @property
    def fraction_done(self) -> float:
        """The fraction of the run that is over, in the unit that is nearest to its end."""
        others = max(self.episodes_done / self.finish.episodes, self.seconds / self.finish.seconds)
        return max(super().fraction_done, min(others, 1.0))


class TrainerMember:
    """An agent of `AsyncTrainer` in parallel environments."""

    def __init__(
        self,
        number: int,
        agent: Any,
        envs: list[EnvFactory],
        schedule: Schedule,
        *,
        seed: int,
        pulse: Pulse,
        options: dict[str, Any],
    ) -> None:
        """Make the trainer; `options` are further arguments of `AsyncTrainer`.

        The schedule is checked after each update. The seed is that of the agent's random streams and the environments.
        The pulse gets a beat after each rollout.
        """
        self.schedule, self.watch, self.version = schedule, Watch(number, pulse), 0
        callbacks = [self.watch, *options.get("callbacks", ())]
        options = options | {"callbacks": callbacks, "progress": False, "seed": seed}
        self.trainer = MemberTrainer(envs, reseeded(agent, seed), schedule.finish, **options)
        self.rows: Any = self.trainer.updates()
        self.sent_at = Count()

    @property
    def count(self) -> Count:
        """Its steps, episodes and seconds so far."""
        return Count(self.trainer.steps_done, self.trainer.episodes_done, self.trainer.seconds)

    def take(self, update: Update) -> None:
        """Load the weights and settings of the agent."""
        unpacked(self.trainer.agent, update.content)
        self.version = update.version

    def advance(self) -> Report:
        """Train until it is time to send or to finish."""
        for _ in self.rows:
            self.version += 1
            finished = due(self.schedule.finish, Count(), self.count)
            if finished or due(self.schedule.worker_send_data, self.sent_at, self.count):
                break
        else:
            finished = True
        self.sent_at = self.count
        returns, self.watch.returns = self.watch.returns, []
        return Report(self.count, self.version, finished, returns, packed(self.trainer.agent))

    def restore(self, count: Count) -> None:
        """Continue with the counts of the member that died."""
        trainer = self.trainer
        trainer.steps_done, trainer.episodes_done, trainer.seconds = (
            int(count.steps),
            int(count.episodes),
            count.seconds,
        )
        trainer.goal = 0, trainer.steps
        self.sent_at = count
        optional(trainer.agent, "continue_after")(trainer.steps_done)

    def state(self) -> State:
        """Return the checkpoint of its trainer, its agent as sent to other processes, and the agent's version."""
        history = self.trainer.history
        return {
            "trainer": contents(self.trainer),
            **saved(self.trainer.agent),
            "version": self.version,
            "history": {name: np.array([row[name] for row in history]) for name in history.columns},
        }

    def load_state(self, state: State, path: str) -> None:
        """Continue from a checkpoint."""
        apply_settings(self.trainer.agent, state["settings"])
        restore(self.trainer, state["trainer"], path)
        self.version, self.sent_at = state["version"], self.count
        columns = {name: column.tolist() for name, column in state["history"].items()}
        self.trainer.history = History(
            dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
        )

    def finish(self) -> tuple[Any, list[Metrics]]:
        """End the run."""
        self.rows.close()
        return packed(self.trainer.agent), [*self.trainer.history]

    def close(self) -> None:
        """Close the environments."""
        self.trainer.close()
