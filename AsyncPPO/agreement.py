"""What ranks tell each other beside gradients: counts, differences of their agents, and when to stop."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from AsyncPPO.agent import optional
from AsyncPPO.episodes import Episode
from AsyncPPO.vectorizer import EnvVectorizer
from parallel_rl.utils import Ranks, State, state_to_bytes

if TYPE_CHECKING:
    from AsyncPPO.trainer import AsyncTrainer

PARTS = 8
"""The number of parts in which a rank collects its share if it may be preempted, which happens between them."""


def collect_share(trainer: "AsyncTrainer", steps: int) -> tuple[int, list[Episode]]:
    """Step this rank's environments.

    With `preempt`, stop once enough ranks have collected their shares, but not in the first quarter of the steps
    (DD-PPO, Wijmans et al. 2020, arXiv:1911.00357).

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
    """Restarts of environments that failed."""
    running_envs: int
    """Their environments; fewer than those of the run while a rank is missing."""


@dataclass
class Others:
    """Counts of the other ranks, as of the last exchange."""

    waiting: int = 0
    """Transitions in the buffers of the others."""
    known_restarts: int = 0
    """Restarts of this rank's environments that the others know of."""

    def count(self, ranks: Ranks, steps: int, episodes: list[Episode], waiting: int, env: EnvVectorizer) -> Counts:
        """Exchange what the ranks have collected since the last count; return the totals.

        Args:
            ranks: the ranks.
            steps: environment steps of this rank.
            episodes: those that ended.
            waiting: transitions in this rank's buffer.
            env: its environments.
        """
        restarts = env.restarts - self.known_restarts
        counts, all_waiting = Counts(steps, episodes, restarts, env.num_envs), waiting
        if ranks.world_size > 1:
            ended = [[episode.return_, episode.length, episode.infos] for episode in episodes]
            parts = ranks.all_gather([steps, waiting, env.num_envs, restarts, ended])
            all_steps, all_waiting, all_envs, all_restarts = (sum(part[index] for part in parts) for index in range(4))
            all_episodes = [Episode(*episode) for *_, ended in parts for episode in ended]
            counts = Counts(all_steps, all_episodes, all_restarts, all_envs)
        self.waiting = all_waiting - waiting
        self.known_restarts += restarts
        return counts


def agree_on_state(trainer: "AsyncTrainer", seconds: float) -> float:
    """Compare the agents of all ranks. If processors rounded differently, all load the first one's, with a warning.

    An off-policy agent is compared once for each row of metrics.

    Args:
        trainer: of this rank; its agent has `shared_state`.
        seconds: since the start, on this rank.

    Returns:
        The seconds of the first rank.
    """
    if trainer.ranks.nodes == 1:
        return seconds
    if optional(trainer.agent, "on_policy") or trainer.rows.is_due(trainer.steps_done, last=False):
        return agree_on_weights(trainer, seconds)
    return trainer.ranks.all_gather(seconds)[0]


def agree_on_weights(trainer: "AsyncTrainer", seconds: float) -> float:
    """Compare the agents of all ranks; if they differ, all load the first one's, with a warning.

    One message has the digests and the seconds. Returns the seconds of the first rank.
    """
    agent, ranks = trainer.agent, trainer.ranks
    learned = agent.shared_state()
    reports = ranks.all_gather([seconds, sha256(state_to_bytes(learned)).hexdigest()])
    if len({digest for _, digest in reports}) > 1:
        if ranks.node == 0:
            text = f"after {trainer.steps_done} steps the weights of the ranks differ: all take over those of the first"
            warnings.warn(text, RuntimeWarning, stacklevel=2)
        agent.load_shared_state(ranks.all_gather(learned)[0])
    return reports[0][0]


def agree_to_stop(trainer: "AsyncTrainer", state: Callable[[], State]) -> bool:
    """Return whether a rank is to stop: then all stop, for its reason. Otherwise let ranks in that are ready to join.

    Also count the environments of the ranks that go on.

    Args:
        trainer: of this rank.
        state: returns the state of the run, for ranks that join.
    """
    while True:
        own = [trainer.stopped, trainer.skip_slow_work, trainer.env.num_envs, trainer.ranks.candidates()]
        reports = trainer.ranks.all_gather(own)
        trainer.running_envs = sum(envs for _, _, envs, _ in reports)
        for why, *_ in reports:
            if why is not None:
                trainer.stopped, trainer.skip_slow_work = why, any(skip for _, skip, *_ in reports)
                return True
        if not trainer.ranks.admit([candidates for *_, candidates in reports], state):
            return False
