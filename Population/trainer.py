"""Trainer: members, a schedule and a combiner."""

import copy
import os
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import gymnasium as gym

from AsyncPPO.factory import env_factories, env_factory
from AsyncPPO.rows import NO_EPISODE
from AsyncPPO.settings import warn_if_too_short
from parallel_rl.utils import OwnStreams, State, counted, save_state, spawn_seeds
from parallel_rl.utils.names import names_checked
from Population.checkpoint import contents, read_checkpoint, restore
from Population.combiners import AgentCombiner, combiner_of
from Population.display import Display
from Population.experience import Experience
from Population.members import AgentMember, Report, TrainerMember
from Population.modes import Mode, OnWorkerError, SyncMode, check_arguments, checked_trainer_options
from Population.processes import InThisProcess, MakeMember, Processes
from Population.records import Record
from Population.schedule import Count, due, make_schedule
from Population.statistics import Stats, stats_of
from Population.transport import Update, is_trainable, packed, reseeded


class Trainer:
    """Trains a population: members in parallel processes, each with an agent and environments of its own.

    Args:
        agent: a `Population.Agent`, or an agent of `AsyncTrainer` (PPO, DQN, ...): each member gets a copy. In parallel
            learning also a list with one agent for each member.
        env: an environment, or a callable that makes one: each member gets its own. For an agent of `AsyncTrainer`
            anything that `EnvVectorizer` takes.
        n_workers: the number of members. A single member runs in this process, and always trains its own agent.
        mode: `Mode`.
        combiner: for parallel learning; by default `RandomAgentCombiner(0)`, for a single member
            `FixedAgentCombiner(0)`.
        schedule: rules `(action, interval, unit)`. Actions: `train_agent`, `worker_send_data`, `combine_agents`,
            `finish`; units: `steps`, `episodes`, `seconds`. `finish` and `worker_send_data` count in each member,
            `combine_agents` over all together; `train_agent` over all together in parallel collecting, in each member
            in parallel learning. Agents of `AsyncTrainer` need no `train_agent`.
        sync_mode: `SyncMode`.
        seed: of all random streams of the members, and of the environments; None takes fresh entropy.
        on_worker_error: what happens if a member fails, dies or hangs: `raise`, or `restart` it from its last report,
            with the agent of that report, or one that was sent to it since. `restart` needs several members.
        num_envs: for an agent of `AsyncTrainer`: the number of parallel environments of each member.
        keep_experience: whether the result contains all steps of the members.
        progress: whether to show a progress bar.
        callbacks: called with this trainer whenever members have reported.
        step_timeout: a member hangs if more seconds pass between two steps (for an agent of `AsyncTrainer`: rollouts);
            needs several members.
        trainer_options: further arguments of each `AsyncTrainer`.

    Raises:
        ValueError: a number, mode or schedule is wrong, or the agents do not fit to the mode or the combiner.
        TypeError: an object is not an agent or a combiner, or `trainer_options` has a wrong name.
    """

    @names_checked
    def __init__(
        self,
        agent: Any,
        env: Any,
        n_workers: int = 1,
        mode: str = "parallel_collecting",
        combiner: AgentCombiner | None = None,
        schedule: Sequence[tuple[str, float, str]] | None = None,
        sync_mode: str = "async",
        *,
        seed: int | None = None,
        on_worker_error: OnWorkerError = "raise",
        num_envs: int = 8,
        keep_experience: bool = True,
        progress: bool = True,
        callbacks: Sequence[Callable[["Trainer"], None]] = (),
        step_timeout: float | None = None,
        trainer_options: dict[str, Any] | None = None,
    ) -> None:
        """Check the arguments; `run` starts the members."""
        check_arguments(n_workers, mode, sync_mode, on_worker_error, step_timeout)
        self.n_workers, self.mode, self.sync_mode = n_workers, Mode(mode), SyncMode(sync_mode)
        self._initial = _one_for_each(agent, n_workers, self.mode)
        self.agent, self.agent_version = self._initial[0], 0
        self.trainable = is_trainable(self.agent)
        if n_workers == 1:
            self.mode = Mode.PARALLEL_LEARNING
        self.learning = self.mode == Mode.PARALLEL_LEARNING
        if self.trainable and not self.learning:
            raise ValueError("agents that AsyncTrainer trains need mode='parallel_learning'")
        self.combiner = combiner_of(combiner, self._initial, self.learning)
        self.env, self.schedule = env, make_schedule(schedule or (), n_workers, self.learning)
        self.seed, self.on_worker_error, self.num_envs = seed, on_worker_error, counted("num_envs", num_envs)
        self.keep_experience, self.progress, self.callbacks = keep_experience, progress, [*callbacks]
        self.trainer_options = checked_trainer_options(trainer_options or {}, self._initial if self.trainable else ())
        self.step_timeout, self.experience, self.records = step_timeout, Experience(), list[Record]()
        self.stopped: str | None = None
        self._loaded: tuple[State, str] | None = None
        if self.trainable:
            warn_if_too_short(max(a.steps_wanted() for a in self._initial), self.schedule.finish.steps, self.num_envs)

    def run(self) -> tuple[Any, dict[str, Any]]:
        """Train until all members have finished.

        At the end the agent is trained on the remaining experience, or the members' agents are combined once more if
        there were steps since the last combination. Another call begins again with the initial agents: to go on, make
        a trainer for the agent that was returned.

        Returns:
            The agent; and `{"workers": [...], "trainer": self}`, with a dict for each member (docs/population.md).

        Raises:
            ValueError: the schedule has no `finish`.
            MemberError: a member failed, died or hung. A single member runs in this process: its errors are its own.
        """
        if self.schedule.finish.is_never:
            raise ValueError("the schedule has no rule when to finish, such as ('finish', 100_000, 'steps')")
        *seeds, own = spawn_seeds(self.seed, self.n_workers + 1)
        if self.records:  # a stop before the first run, such as an early signal, is kept: it ends that run
            self.stopped = None
        self.records = [Record(copy.deepcopy(agent), Update(0, packed(agent))) for agent in self._initial]
        self.agent, self.agent_version = copy.deepcopy(self._initial[0]), 0
        if not self.learning:
            self.agent = reseeded(self.agent, own)
        self.experience.clear()
        self._streams, self.started = OwnStreams(own), time.monotonic()
        with (
            closing(self._make_members(seeds)) as self._members,
            closing(Display(self.schedule.finish, self.n_workers, self.progress)) as self._display,
        ):
            if self._loaded is not None:
                loaded, self._loaded = self._loaded, None
                restore(self, *loaded)
            self._advance_all()
            self._finish_learning()
            finals = self.run_in_members("finish")
        results = [record.result(number, *finals[number]) for number, record in enumerate(self.records)]
        if self.trainable and not (self.count.episodes or self.stopped):
            steps = max(int(record.count.steps) for record in self.records)
            warnings.warn(NO_EPISODE.format(steps), RuntimeWarning, stacklevel=2)
        return self.agent, {"workers": results, "trainer": self}

    def stop(self, why: str) -> None:
        """End the run when the members next report, as if they had finished; `stopped` is the first reason, `why`."""
        self.stopped = self.stopped or why

    def save_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Save everything that the run depends on; call this in a callback.

        Raises:
            ValueError: the mode is not synchronous, or the agents are not of `AsyncTrainer`.
            OSError: the file cannot be written; an older file there is untouched.
        """
        if not self.trainable or self.sync_mode != SyncMode.SYNCHRONOUS:
            raise ValueError("only populations of agents of AsyncTrainer with sync_mode='sync' can be saved")
        save_state(path, contents(self))

    def load_checkpoint(self, path: str | os.PathLike[str]) -> Count:
        """Let `run` continue from what `save_checkpoint` saved in a trainer with the same arguments.

        If the environments can be saved (docs/resuming.md), the run gives the same bits as if it had not stopped. `run`
        raises a `ValueError` or `MemberError` if the checkpoint does not fit.

        Returns:
            The steps, episodes and seconds of all members until then.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, or not such a file, or the agents are not of `AsyncTrainer`.
        """
        if not self.trainable:
            raise ValueError("only populations of agents of AsyncTrainer can be loaded")
        state = read_checkpoint(path)
        self._loaded = state, os.fspath(path)
        return Count(*state["count"])

    def run_in_members(self, task: str, arguments: Sequence[tuple[Any, ...]] | None = None) -> list[Any]:
        """Run a task in every member, all of which must be idle; return the results."""
        for number, own in enumerate(arguments or [()] * self.n_workers):
            self._begin(number, task, *own)
        results = dict(self._next() for _ in self.records)
        return [results[number] for number in range(self.n_workers)]

    @property
    def count(self) -> Count:
        """The steps and episodes of all members together, and the seconds of the run."""
        counts = [record.count for record in self.records]
        steps, episodes = sum(count.steps for count in counts), sum(count.episodes for count in counts)
        return Count(steps, episodes, time.monotonic() - self.started)

    @property
    def last(self) -> Count:
        """The counts of all members together when the agent was last trained or combined."""
        return max((record.last for record in self.records), default=Count())

    @property
    def returns(self) -> list[list[float]]:
        """The returns of all episodes of each member; before `run`, those in a checkpoint that was loaded."""
        if self.records or self._loaded is None:
            return [record.returns for record in self.records]
        return [own["returns"] for own in self._loaded[0]["records"]]

    @property
    def stats(self) -> list[Stats]:
        """The statistics of the members, `Population.STATS`."""
        return [stats_of(record.returns) for record in self.records]

    def _advance_all(self) -> None:
        """Let the members work until all have finished."""
        idle = [number for number, record in enumerate(self.records) if not record.finished]
        running = {*idle}
        while running:
            for number in idle:
                self._begin(number, "advance")
            waited_for = len(running) if self.sync_mode == SyncMode.SYNCHRONOUS else 1
            reports = dict(sorted(self._next() for _ in range(waited_for)))
            for number, report in reports.items():
                self._store(self.records[number], report)
            self._learn({*reports} if self.learning else running)
            self._display.show_returns(self.records)
            for callback in self.callbacks:
                callback(self)
            idle = [number for number in reports if not (self.stopped or self.records[number].finished)]
            running -= reports.keys() - {*idle}

    def _store(self, record: Record, report: Report) -> None:
        """Store a report, and its experience where it is needed."""
        record.update(report)
        if self.keep_experience:
            record.experience.add_experience(report.experience)
        if not self.learning and not self.schedule.train_agent.is_never:
            self.experience.add_experience(report.experience)

    def _begin(self, number: int, task: str, *args: Any) -> None:
        """Begin a task of a member, which first takes the agent that waits for it."""
        self._members.begin(number, task, self.records[number].take_update(), *args)

    def _next(self) -> tuple[int, Any]:
        """Return the number of a member whose task is done, and the result."""
        return self._members.next(self._display.show_steps)

    def _learn(self, members: set[int]) -> None:
        """Train or combine, if it is due for some of these members, and give them the result.

        In parallel learning these are the members that have just reported. A member that still trains gets nothing: the
        combination would lack what that member is learning.
        """
        every, now = self.schedule.combine_agents if self.learning else self.schedule.train_agent, self.count
        members = {number for number in members if due(every, self.records[number].last, now)}
        if not members:
            return
        for number in members:
            self.records[number].last = now
        if self.learning:
            self._combine(members)
        else:
            self._train()
            self._send(dict.fromkeys(members, self.agent))

    def _train(self) -> None:
        with self._streams():
            self.agent.train(self.experience.pop_experience_batch())
        self.agent_version += 1

    def _combine(self, members: set[int]) -> None:
        agents = [record.agent for record in self.records]
        combined = self.combiner.combine(agents, self.agent, self.stats)
        self.agent_version = max(record.version for record in self.records) + 1
        if isinstance(combined, list):
            self.agent = self._single_agent()
            self._send({number: combined[number] for number in members if combined[number] is not agents[number]})
        else:
            self.agent = copy.deepcopy(combined)
            self._send(dict.fromkeys(members, combined))

    def _send(self, agents: dict[int, Any]) -> None:
        """Send agents to members with their next task."""
        contents = {id(agent): packed(agent) for agent in agents.values()}
        for number, agent in agents.items():
            self.records[number].waiting = Update(self.agent_version, contents[id(agent)])

    def _single_agent(self) -> Any:
        """Return a copy of the combiner's single agent."""
        return copy.deepcopy(self.combiner.choose([record.agent for record in self.records], self.agent, self.stats))

    def _finish_learning(self) -> None:
        if not self.learning:
            if len(self.experience) and not self.schedule.train_agent.is_never:
                self._train()
        elif self.last.steps < self.count.steps:
            self.agent = self._single_agent()

    def _make_members(self, seeds: Sequence[int]) -> Processes | InThisProcess:
        makes = [*map(self._maker, range(self.n_workers))]
        if self.n_workers == 1:
            return InThisProcess(makes[0], seeds[0])
        restore = self._restore if self.on_worker_error == "restart" else None
        return Processes(makes, seeds, restore=restore, timeout=self.step_timeout)

    def _restore(self, number: int) -> tuple[Update, Count]:
        """Return what a lost member begins again with; the experience of its running episode ends."""
        record = self.records[number]
        for experience in (self.experience, record.experience):
            experience.end_episode(number)
        return record.held, record.count

    def _maker(self, number: int) -> MakeMember:
        """Return a function that makes a member in its process."""
        agent = copy.deepcopy(self._initial[number])
        if self.trainable:
            return partial(
                TrainerMember, number, agent, env_factories(self.env, self.num_envs), self.schedule,
                options=self.trainer_options,
            )  # fmt: skip
        is_copied = not isinstance(self.env, gym.Env | type) and hasattr(self.env, "step")
        make_env = partial(copy.deepcopy, self.env) if is_copied else env_factory(self.env)
        return partial(
            AgentMember, number, agent, make_env, self.schedule, learning=self.learning,
            keep_experience=self.keep_experience,
        )  # fmt: skip


def _one_for_each(agent: Any, n_workers: int, mode: str) -> list[Any]:
    """Return the initial agent of each member."""
    agents = agent if isinstance(agent, list) else [agent] * n_workers
    if len(agents) != n_workers:
        raise ValueError(f"there are {len(agents)} agents for {n_workers} workers: the list needs one for each")
    if isinstance(agent, list) and mode != Mode.PARALLEL_LEARNING:
        raise ValueError(f"a list of agents needs mode='parallel_learning', not {str(mode)!r}")
    for candidate in agents:
        if not is_trainable(candidate) and not (hasattr(candidate, "action") and hasattr(candidate, "train")):
            raise TypeError(f"{candidate!r} is not an agent: it has no action(state) and train(experience)")
    if len({is_trainable(candidate) for candidate in agents}) > 1:
        raise TypeError("the agents of a population are either all for AsyncTrainer, or none is")
    return agents
