"""The contents of a checkpoint, and how a run continues from it."""

import os
from collections.abc import Callable, Collection
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from AsyncPPO.agent import optional
from AsyncPPO.agreement import Others, agree_on_weights
from AsyncPPO.backends import EnvError
from AsyncPPO.episodes import Episode
from AsyncPPO.share import joined_environments, part_of_agent, part_of_environments
from parallel_rl.utils import DamagedError, History, State, load_state, older, whole_number
from parallel_rl.utils.records import check_equal, plain

if TYPE_CHECKING:
    from AsyncPPO.trainer import AsyncTrainer

PARTS = {"made_for", "signature", "progress", "recent", "agent", "buffer", "collector"}


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    steps_done: int
    seconds: float
    episodes_done: int
    restarts: int
    """Restarts of environments that failed."""
    goal: tuple[int, int]
    """The steps at which the current call of `run` began, and at which it ends."""
    recent: list[Episode]
    """The last episodes."""

    @classmethod
    def of(cls, trainer: "AsyncTrainer") -> Self:
        """Return how far a trainer is."""
        return cls(
            steps_done=trainer.steps_done,
            seconds=trainer.seconds,
            episodes_done=trainer.episodes_done,
            restarts=trainer.restarts,
            goal=trainer.goal,
            recent=[*trainer.recent],
        )

    @classmethod
    def of_state(cls, counts: State, episodes: Any) -> Self:
        """Return the progress that `state` gave as plain values; an episode may lack infos.

        Raises:
            ValueError, TypeError: a value is not valid.
            LookupError: one is missing.
        """
        seconds = float(counts["seconds"])
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"the saved seconds are {seconds}")
        begin, end = counts["goal"]
        return cls(
            steps_done=whole_number(counts["steps_done"], "number of steps"),
            seconds=seconds,
            episodes_done=whole_number(counts["episodes_done"], "number of episodes"),
            restarts=whole_number(counts["restarts"], "number of restarts"),
            goal=(whole_number(begin, "beginning"), whole_number(end, "end")),
            recent=[
                Episode(float(return_), whole_number(length, "length"), *({**infos} for infos in rest))
                for return_, length, *rest in episodes
            ],
        )

    def state(self) -> tuple[State, list[Any]]:
        """Return the counts and the last episodes as plain values."""
        counts = {name: value for name, value in vars(self).items() if name != "recent"}
        return counts, [[episode.return_, episode.length, episode.infos] for episode in self.recent]

    def restore(self, trainer: "AsyncTrainer") -> None:
        """Set the counts of a trainer."""
        trainer.steps_done, trainer.seconds, trainer.goal = self.steps_done, self.seconds, self.goal
        trainer.episodes_done, trainer.restarts = self.episodes_done, self.restarts
        trainer.recent.clear()
        trainer.recent.extend(self.recent)


def read_checkpoint(path: str | os.PathLike[str]) -> State:
    """Return the content of a checkpoint, also of an older version.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or is not a checkpoint.
    """
    state = load_state(path)
    if isinstance(state, dict):
        state = older.checkpoint(state)
    if not isinstance(state, dict) or state.keys() != PARTS:
        parts = ", ".join(state) if isinstance(state, dict) and state else "nothing"
        raise ValueError(f"{path} is not the checkpoint of a run: it holds {parts}")
    if not all(isinstance(part, dict) for name, part in state.items() if name != "recent"):
        raise DamagedError(f"{path} is not the checkpoint of a run: some of its parts are something else")
    return state


def contents(trainer: "AsyncTrainer") -> State | None:
    """Return the content of a run's checkpoint, with the environments of all ranks.

    All ranks call this; those after the first one get None.
    """
    joined = joined_environments(trainer)
    if joined is None:
        return None
    collector, buffer, agent = joined
    return {
        "made_for": made_for(trainer) | {"num_envs": len(buffer["lengths"])},
        "signature": trainer.agent.signature(),
        "buffer": buffer,
        "collector": collector,
        "agent": agent,
        **_progress_of(trainer),
    }


def state_for_new_rank(trainer: "AsyncTrainer") -> State:
    """Return what a rank needs to join a run: what all ranks share, and a state for new episodes."""
    agent = part_of_agent(trainer.agent, trainer.agent.state(), trainer.share, slice(0, 0))
    env = trainer.env.new_episodes(trainer.steps_done)
    return {"agent": agent, "env": env, "waiting": trainer.waiting, **_progress_of(trainer)}


def _progress_of(trainer: "AsyncTrainer") -> State:
    counts, recent = Progress.of(trainer).state()
    return {"progress": counts | {"rows": trainer.rows.state()}, "recent": recent}


def savepoint(trainer: "AsyncTrainer") -> Callable[[], None]:
    """Return a function that undoes an update: the agent, the counts and the transitions are as now."""
    agent, buffer, others, progress = trainer.agent, copy(trainer.buffer), copy(trainer.others), Progress.of(trainer)
    undo_agent = optional(agent, "savepoint")()

    def undo() -> None:
        undo_agent()
        vars(trainer.buffer).update(vars(buffer))
        progress.restore(trainer)
        trainer.others = others

    return undo


def join(trainer: "AsyncTrainer") -> None:
    """Connect to the other ranks.

    At the start of a run: count the transitions in all buffers, and compare the agents, which may have no seed.
    If the run has begun already: take over its state, in place of a checkpoint that this rank has loaded, and start new
    episodes.

    Raises:
        RankError: the run is over.
    """
    state = trainer.ranks.join()
    if state is None:  # after a checkpoint, the buffers of all ranks may have transitions
        trainer.others.waiting = sum(trainer.ranks.all_gather(len(trainer.buffer))) - len(trainer.buffer)
        if trainer.ranks.nodes > 1:
            agree_on_weights(trainer, trainer.seconds)
        return
    trainer.rows.load_state(state["progress"]["rows"])
    trainer.agent.load_state(state["agent"])
    trainer.env.begin_after(state["env"])
    trainer.buffer.clear()
    trainer.others = Others(state["waiting"])
    Progress.of_state(state["progress"], state["recent"]).restore(trainer)


def made_for(trainer: "AsyncTrainer") -> dict[str, Any]:
    """Return what must equal the values in a checkpoint, apart from the agent's signature."""
    env = trainer.env
    return {
        "the environment": env.spec.id if env.spec else None,
        "its observation space": str(env.single_observation_space),
        "its action space": str(env.single_action_space),
        "num_envs": trainer.num_envs,
        "mode": trainer.mode,
    }


def restore(
    trainer: "AsyncTrainer",
    state: State,
    path: str | os.PathLike[str],
    *,
    any_num_envs: bool = False,
    changed: Collection[str] = (),
) -> None:
    """Restore a run, as `AsyncTrainer.load_checkpoint` documents.

    Args:
        trainer: made with the arguments of that run.
        state: the result of `read_checkpoint`.
        path: of the file, for messages.
        any_num_envs: whether the number of environments may differ.
        changed: names of the agent's settings that may differ.

    Raises:
        ValueError: the checkpoint does not fit, or is damaged. Nothing is changed then.
        EnvError: a worker failed, or died.
    """
    agent, buffer, own = trainer.agent, trainer.buffer, made_for(trainer)
    other_envs = any_num_envs and state["made_for"].get("num_envs") != trainer.num_envs
    compared = {name: value for name, value in own.items() if not (other_envs and name == "num_envs")}
    check_equal(state["made_for"], compared, f"the checkpoint {path}")
    now = {name: plain(value) for name, value in agent.signature().items() if name in changed}
    optional(agent, "check_signature")(state["signature"] | now, f"the agent in {path}")
    before = optional(agent, "whole_state")(), buffer.state(), trainer.rows.state()
    try:
        progress = Progress.of_state(state["progress"], state["recent"])
        trainer.rows.load_state(state["progress"]["rows"])
        envs = slice(0, 0) if other_envs else trainer.share.own
        agent.load_state(part_of_agent(agent, state["agent"], trainer.share, envs))
        if other_envs:
            optional(agent, "forget_environments")()
            trainer.env.begin_after(state["collector"]["env"])
            buffer.clear()
        else:
            trainer.collector.load_state(*part_of_environments(trainer.share, state["collector"], state["buffer"]))
    except EnvError:
        raise
    except Exception as error:  # a forged part can raise anything
        for part, former in zip((agent, buffer, trainer.rows), before, strict=True):
            part.load_state(former)
        raise DamagedError(f"{path} is not the checkpoint of such a run: {error!r}") from error
    progress.restore(trainer)
    trainer.history = History(row for row in trainer.history if trainer.has_reported(row["steps"]))
    trainer.evaluations = [evaluation for evaluation in trainer.evaluations if evaluation.steps <= trainer.steps_done]
