"""A run over several ranks: which environments each has, and what they tell each other beside gradients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from AsyncPPO.agent import optional
from AsyncPPO.episodes import Episode
from AsyncPPO.memory import joined_buffers, part_of_buffer
from AsyncPPO.resets import EnvSeeds
from AsyncPPO.settings import EnvSettings
from AsyncPPO.vectorizer import EnvVectorizer
from parallel_rl.utils import Cluster, Ranks, State, state_to_bytes

if TYPE_CHECKING:
    from AsyncPPO.trainer import AsyncTrainer


PARTS = 8
"""In how many parts a rank that may be preempted collects its share."""


class Share(NamedTuple):
    """The environments of a rank, `first` to `stop`, among the N of all ranks."""

    first: int
    stop: int
    total: int

    @property
    def own(self) -> slice:
        """The index of this rank's environments."""
        return slice(self.first, self.stop)

    @property
    def num_envs(self) -> int:
        """The number of this rank's environments."""
        return self.stop - self.first

    @property
    def is_whole(self) -> bool:
        """Whether this rank has all environments."""
        return self.num_envs == self.total

    @classmethod
    def of(cls, ranks: Cluster, num_envs: int) -> "Share":
        """Return the share of a rank of N environments; every rank has about as many.

        Raises:
            ValueError: there are fewer environments than ranks.
        """
        if num_envs < ranks.nodes:
            raise ValueError(f"{ranks.nodes} ranks need at least as many environments, not {num_envs}")
        first, stop = (num_envs * node // ranks.nodes for node in (ranks.node, ranks.node + 1))
        return cls(first, stop, num_envs)

    def of_run(self, env: Any, settings: EnvSettings) -> tuple[Any, dict[str, Any]]:
        """Return the part of the environments of a run for this rank, and the keywords of its `EnvVectorizer`."""
        if self.is_whole:
            return env, {**settings}
        seeds = EnvSeeds(settings["seed"], self.total, self.own)
        return env[self.own] if isinstance(env, list | tuple) else env, {**settings, "seed": seeds}


def check_ranks(ranks: Cluster, agent: Any, mode: str, lag: int, seed: Any) -> None:
    """Check that a run can have several ranks.

    Raises:
        ValueError: it cannot; the message says why.
    """
    if ranks.nodes == 1:
        return
    if not optional(agent, "learns_on_ranks"):
        raise ValueError(f"{type(agent).__name__} does not learn on several ranks")
    if mode != "streaming" or lag:
        raise ValueError("several ranks need mode='streaming' and lag=0: they collect and update in step")
    if seed is None:
        raise ValueError("several ranks need a seed: the same for all")


def collect_share(trainer: "AsyncTrainer", steps: int) -> tuple[int, list[Episode]]:
    """Step this rank's environments; stop after a quarter if the ranks preempt it, as in DD-PPO.

    Args:
        trainer: of this rank.
        steps: the number of steps for each environment.

    Returns:
        The number of steps of all its environments together, and the episodes that ended.
    """
    ranks = trainer.ranks
    if ranks.preempt is None:
        return trainer.collector.collect(steps)
    total, episodes = 0, list[Episode]()
    for start, stop in pairwise(dict.fromkeys(steps * part // PARTS for part in range(PARTS + 1))):
        if start >= steps / 4 and ranks.enough_have_collected():
            for _ in range(start, steps):
                trainer.agent.noise(trainer.num_envs)  # keeps the random streams of all ranks alike
            return total, episodes
        count, ended = trainer.collector.collect(stop - start)
        total, episodes = total + count, episodes + ended
    ranks.enough_have_collected(own=True)
    return total, episodes


class Counts(NamedTuple):
    """What all ranks have collected together."""

    steps: int
    episodes: list[Episode]
    restarts: int
    """Of environments that failed."""


@dataclass
class Others:
    """What a rank knows of the others."""

    running_envs: int
    """Environments of all ranks when they last counted; fewer than `num_envs` while a rank is missing."""
    waiting: int = 0
    """Transitions in the buffers of the others."""
    known_restarts: int = 0
    """Of this rank's environments that failed, the number that the others have counted."""

    def count(self, ranks: Ranks, steps: int, episodes: list[Episode], waiting: int, env: EnvVectorizer) -> Counts:
        """Count with the others what all ranks have collected.

        Args:
            ranks: the ranks.
            steps: environment steps of this rank.
            episodes: those that ended.
            waiting: transitions in this rank's buffer.
            env: its environments.
        """
        restarts = env.restarts - self.known_restarts
        counts, all_waiting, all_envs = Counts(steps, episodes, restarts), waiting, env.num_envs
        if ranks.world_size > 1:
            ended = [[episode.return_, episode.length, episode.infos] for episode in episodes]
            parts = ranks.all_gather([steps, waiting, env.num_envs, restarts, ended])
            all_steps, all_waiting, all_envs, all_restarts = (sum(part[index] for part in parts) for index in range(4))
            counts = Counts(all_steps, [Episode(*episode) for *_, ended in parts for episode in ended], all_restarts)
        self.running_envs, self.waiting = all_envs, all_waiting - waiting
        self.known_restarts += restarts
        return counts


def agree_on_state(trainer: "AsyncTrainer", seconds: float) -> float:
    """Compare what the agents of all ranks have learned; if it differs, all take over the first one's.

    It differs if their processors round differently. An off-policy agent is compared once for each row of metrics.

    Args:
        trainer: of this rank; its agent has `shared_state`.
        seconds: since the start, on this rank.

    Returns:
        The seconds of the first rank.
    """
    if trainer.ranks.nodes == 1:
        return seconds
    agent = trainer.agent
    due = optional(agent, "on_policy") or trainer.rows.is_due(trainer.steps_done, last=False)
    learned = agent.shared_state() if due else {}
    reports = trainer.ranks.all_gather([seconds, sha256(state_to_bytes(learned)).hexdigest()])
    if len({digest for _, digest in reports}) > 1:
        agent.load_shared_state(trainer.ranks.all_gather(learned)[0])
    return reports[0][0]


def agree_to_stop(trainer: "AsyncTrainer", state: Callable[[], State]) -> bool:
    """Return whether any rank is to stop; its reason becomes that of all. Otherwise ranks that are ready join.

    Args:
        trainer: of this rank.
        state: returns the state of the run, for ranks that join.
    """
    while True:
        reports = trainer.ranks.all_gather([trainer.stopped, trainer.skip_slow_work, trainer.ranks.candidates()])
        for why, *_ in reports:
            if why is not None:
                trainer.stopped, trainer.skip_slow_work = why, any(skip for _, skip, _ in reports)
                return True
        if not trainer.ranks.admit([candidates for *_, candidates in reports], state):
            return False


def joined_environments(trainer: "AsyncTrainer") -> tuple[State, State, State] | None:
    """Return the states of the collector, of the buffer and of the agent, with the environments of all ranks.

    All ranks call this; those after the first one get None.
    """
    agent = trainer.agent
    own = [*trainer.collector.state(), agent.state()]
    parts = trainer.ranks.attempt(lambda ranks: ranks.gather(own), lambda: lambda: None)
    if parts is None:
        return None
    if len(parts) == 1:
        return parts[0]
    collectors, buffers, agents = zip(*parts, strict=True)
    return _joined(collectors), joined_buffers(buffers), optional(agent, "joined_states")(agents)


def part_of_environments(share: Share, collector: State, buffer: State) -> tuple[State, State]:
    """Return this rank's part of the states of collector and buffer that `joined_environments` returned."""
    if share.is_whole:
        return collector, buffer
    return _part(collector, share.own), part_of_buffer(buffer, share.own)


def part_of_agent(agent: Any, state: State, share: Share, own: slice) -> State:
    """Return the state of an agent with the environments `own` of those that `state` has."""
    return state if own == slice(0, share.total) else optional(agent, "part_of_state")(state, own)


def _joined(states: Sequence[Any]) -> Any:
    """Join lists and arrays that have an entry for each environment, in a tree; the rest is the same for all ranks."""
    first = states[0]
    if isinstance(first, dict):
        return {
            name: part if name in COMMON else _joined([state[name] for state in states]) for name, part in first.items()
        }
    if isinstance(first, list):
        return [entry for state in states for entry in state]
    return np.concatenate(states) if isinstance(first, np.ndarray) else first


def _part(state: Any, own: slice) -> Any:
    """Undo `_joined`, for the environments `own`."""
    if isinstance(state, dict):
        return {name: part if name in COMMON else _part(part, own) for name, part in state.items()}
    return state[own] if isinstance(state, list | np.ndarray) else state


COMMON = {"reset_options"}
"""Parts of the state of a collector that do not belong to one environment."""
