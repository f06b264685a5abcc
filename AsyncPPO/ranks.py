"""A run over several ranks: which environments each has, and what they tell each other beside gradients."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from AsyncPPO.episodes import Episode
from AsyncPPO.memory import joined_buffers, part_of_buffer
from AsyncPPO.settings import EnvSettings
from parallel_rl.utils import Ranks, State, env_seeds

if TYPE_CHECKING:
    from AsyncPPO.trainer import AsyncTrainer


class Deal(NamedTuple):
    """The environments of a rank, `first` to `stop`, among the N of all ranks."""

    first: int
    stop: int
    total: int

    @property
    def own(self) -> slice:
        """The index of this rank's environments."""
        return slice(self.first, self.stop)


def deal(ranks: Ranks, num_envs: int) -> Deal:
    """Deal N environments to the ranks, about as many to each.

    Raises:
        ValueError: there are fewer environments than ranks.
    """
    if num_envs < ranks.count:
        raise ValueError(f"{ranks.count} ranks need at least as many environments, not {num_envs}")
    first, stop = (num_envs * number // ranks.count for number in (ranks.number, ranks.number + 1))
    return Deal(first, stop, num_envs)


def check_ranks(ranks: Ranks, agent: Any, mode: str, lag: int, seed: Any) -> None:
    """Check that a run can have several ranks.

    Raises:
        ValueError: it cannot; the message says why.
    """
    if ranks.count == 1:
        return
    if not getattr(agent, "learns_on_ranks", False):
        raise ValueError(f"{type(agent).__name__} does not learn on several ranks")
    if mode != "streaming" or lag:
        raise ValueError("several ranks need mode='streaming' and lag=0: they collect and update in step")
    if seed is None:
        raise ValueError("several ranks need a seed: the same for all")


def own_settings(dealt: Deal, env: Any, settings: EnvSettings) -> tuple[Any, EnvSettings]:
    """Return the environment, or the list of those of this rank, and the keywords of its `EnvVectorizer`."""
    if dealt.own == slice(0, dealt.total):
        return env, settings
    seeds = env_seeds(settings["seed"], dealt.total)[dealt.own]
    return env[dealt.own] if isinstance(env, list | tuple) else env, {**settings, "seed": seeds}


def collected(ranks: Ranks, steps: int, episodes: list[Episode], waiting: int) -> tuple[int, list[Episode], int]:
    """Return what was collected on all ranks.

    Args:
        ranks: the ranks.
        steps: environment steps of this rank.
        episodes: those that ended.
        waiting: transitions in this rank's buffer.

    Returns:
        The steps and episodes of all ranks, and the transitions in the buffers of the others.
    """
    if ranks.count == 1:
        return steps, episodes, 0
    told = ranks.gather([steps, waiting, [[*episode, dict(episode.infos)] for episode in episodes]])
    everyones = [Episode(*episode) for _, _, ended in told for episode in ended]
    return sum(each[0] for each in told), everyones, sum(each[1] for each in told) - waiting


def agree_to_stop(trainer: "AsyncTrainer") -> bool:
    """Return whether any rank is to stop; its reason becomes that of all."""
    for why, skip_slow_work in trainer.ranks.gather((trainer.stopped, trainer.skip_slow_work)):
        if why is not None:
            trainer.stopped, trainer.skip_slow_work = why, skip_slow_work
            return True
    return False


def joined_environments(trainer: "AsyncTrainer") -> tuple[State, State]:
    """Return the states of the collector and of the buffer, of the environments of all ranks."""
    collectors, buffers = zip(*trainer.ranks.gather([trainer.collector.state(), trainer.buffer.state()]), strict=True)
    return _joined(collectors), joined_buffers(buffers)


def part_of_environments(dealt: Deal, collector: State, buffer: State) -> tuple[State, State]:
    """Return this rank's part of what `joined_environments` returned."""
    if dealt.own == slice(0, dealt.total):
        return collector, buffer
    return _part(collector, dealt.own), part_of_buffer(buffer, dealt.own)


def _joined(states: Sequence[Any]) -> Any:
    """Join lists and arrays that have an entry for each environment, in a tree; the rest is the same for all ranks."""
    first = states[0]
    if len(states) == 1:
        return first
    if isinstance(first, dict):
        return {
            name: part if name in COMMON else _joined([state[name] for state in states]) for name, part in first.items()
        }
    if isinstance(first, list):
        return [each for state in states for each in state]
    return np.concatenate(states) if isinstance(first, np.ndarray) else first


def _part(state: Any, own: slice) -> Any:
    """Undo `_joined`, for the environments `own`."""
    if isinstance(state, dict):
        return {name: part if name in COMMON else _part(part, own) for name, part in state.items()}
    return state[own] if isinstance(state, list | np.ndarray) else state


COMMON = {"reset_options"}
"""Parts of the state of a collector that do not belong to one environment."""
