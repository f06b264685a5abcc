"""Combiners: from the agents of all members, they make the agents with which the members continue."""

import copy
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np

from AsyncPPO import evaluate
from AsyncPPO.agent import optional
from AsyncPPO.evaluation import EvaluationSettings
from parallel_rl.utils import Configured, Setting, State, counted, settings_in, state_to_bytes
from parallel_rl.utils.names import suggestion
from Population.statistics import STATS, Stats
from Population.transport import load_shared, shared

Agents = Sequence[Any]
"""The agent of each member."""
AllStats = Sequence[Stats | None] | None
"""The statistics of each member."""


class AgentCombiner(ABC):
    """Combines agents."""

    def check(self, agents: Agents) -> None:  # noqa: B027  # most combiners take any agents
        """Raise a `ValueError` if the initial agents of the members cannot be combined; by default they can."""

    @abstractmethod
    def combine(
        self, workers_agents: Agents, main_agent: Any, workers_stats: AllStats = None, main_agent_stats: Any = None
    ) -> Any:
        """Return the agent that all members continue with, or a list with one for each member.

        Args:
            workers_agents: the current agent of each member; for a finished member, its last one.
            main_agent: the result of the last combination; at first the initial agent.
            workers_stats: the statistics of each member, by the names in `STATS`.
            main_agent_stats: not used.
        """

    def choose(self, workers_agents: Agents, main_agent: Any, workers_stats: AllStats = None) -> Any:
        """Return the agent that the run returns at its end; by default the result of `combine`."""
        return self.combine(workers_agents, main_agent, workers_stats)

    def state(self) -> State:
        """Return what an exact resume needs, for `utils.save_state`; by default the random stream `rng`, if any."""
        return {"rng": vars(self)["rng"].getstate()} if "rng" in vars(self) else {}

    def load_state(self, state: State) -> None:
        """Restore what `state` returned."""
        if "rng" in state:
            version, numbers, gauss = state["rng"]
            vars(self)["rng"].setstate((version, tuple(numbers), gauss))


class FixedAgentCombiner(AgentCombiner):
    """Takes the agent of one member."""

    def __init__(self, idx: int = 0) -> None:
        self.idx = idx

    def check(self, agents: Agents) -> None:
        """Check that there is such a member."""
        if self.idx not in range(-len(agents), len(agents)):
            raise ValueError(
                f"FixedAgentCombiner takes the number of one of the {len(agents)} members, not {self.idx!r}"
            )

    def combine(
        self, workers_agents: Agents, main_agent: Any, workers_stats: AllStats = None, main_agent_stats: Any = None
    ) -> Any:
        """Return the agent of that member."""
        return workers_agents[self.idx]


class RandomAgentCombiner(AgentCombiner):
    """Takes the agent of a random member."""

    def __init__(self, seed: int | None = None) -> None:
        """Seed the combiner's random stream; None takes fresh entropy."""
        self.rng = random.Random(seed)

    def combine(
        self, workers_agents: Agents, main_agent: Any, workers_stats: AllStats = None, main_agent_stats: Any = None
    ) -> Any:
        """Return the agent of a random member."""
        return self.rng.choice(workers_agents)


class FixedStatAgentCombiner(AgentCombiner):
    """Takes the agent of the member with the highest value of a statistic."""

    def __init__(self, stat_name: str = "mean_reward") -> None:
        """Store the name of the statistic.

        Raises:
            ValueError: it is not in `STATS`.
        """
        self.stat_name = _known(stat_name)

    def combine(
        self, workers_agents: Agents, main_agent: Any, workers_stats: AllStats = None, main_agent_stats: Any = None
    ) -> Any:
        """Return the best agent among the members that have finished an episode; if none has, the first agent."""
        ranking = _ranking(workers_stats or (), self.stat_name)
        return workers_agents[ranking[0] if ranking else 0]


class EvaluatedAgentCombiner(AgentCombiner):
    """Takes the agent with the highest mean return of deterministic episodes, the same for all members.

    Statistics of the training cost nothing, but they are of stochastic actions, and partly of earlier policies. Here
    each combination takes the time of an evaluation of every member.
    """

    def __init__(self, env: Any, episodes: int = 100, **settings: Unpack[EvaluationSettings]) -> None:
        """Store the arguments.

        Args:
            env: the environments of the evaluation: anything that `EnvVectorizer` takes.
            episodes: of each agent.
            settings: further arguments of `AsyncPPO.evaluate`; the seed is 0 if there is none.

        Raises:
            ValueError: there are no episodes.
        """
        self.env, self.episodes = env, counted("episodes", episodes)
        self.settings: EvaluationSettings = {"seed": 0, **settings}

    def check(self, agents: Agents) -> None:
        """Check that the agents can be evaluated."""
        for agent in agents:
            if not hasattr(agent, "get_action"):
                raise ValueError(f"EvaluatedAgentCombiner evaluates agents by get_action, not {type(agent).__name__}")

    def combine(
        self, workers_agents: Agents, main_agent: Any, workers_stats: AllStats = None, main_agent_stats: Any = None
    ) -> Any:
        """Return the best agent."""
        means = [evaluate(agent, self.env, self.episodes, **self.settings).mean() for agent in workers_agents]
        return workers_agents[int(np.argmax(means))]


class MeanAgentCombiner(AgentCombiner):
    """Averages the agents of all members by their `average`, or by `mean_of_states` if they have none.

    The mean of agents of `AsyncTrainer` has the settings of the first one.
    """

    def check(self, agents: Agents) -> None:
        """Check that agents with networks start from the same weights: otherwise the mean of these means nothing.

        RND's fixed target, for example, would become the mean of different random functions, which no predictor knows.
        """
        if len({state_to_bytes(agent.shared_state()) for agent in agents if hasattr(agent, "shared_state")}) > 1:
            raise ValueError(
                "the mean needs members that start from the same weights: give one agent, or agents with the same seed"
            )

    def combine(
        self, workers_agents: Agents, main_agent: Any, workers_stats: AllStats = None, main_agent_stats: Any = None
    ) -> Any:
        """Return a new agent with the mean.

        Raises:
            TypeError: a part of an agent has no mean; the message names it.
            ValueError: the agents have different shapes.
        """
        average = optional(workers_agents[0], "average")
        mean = average([shared(agent) for agent in workers_agents])
        agent = copy.deepcopy(workers_agents[0])
        load_shared(agent, mean)
        return agent


class ExploitExplore(AgentCombiner):
    """Population-based training (Jaderberg et al. 2017, arXiv:1711.09846), with truncation selection.

    Each of the worst members continues with a copy of one of the best, with perturbed settings. The others continue
    with their own agents. The statistics of a replaced member still include its episodes from before.
    """

    def __init__(
        self,
        stat_name: str = "mean_x_episodes_reward",
        fraction: float = 0.25,
        factors: Sequence[float] = (0.8, 1.2),
        of: Sequence[str] = ("lr",),
        seed: int | None = 0,
    ) -> None:
        """Store the parameters.

        Args:
            stat_name: the statistic that ranks the members.
            fraction: the fraction of members that counts as worst, and the fraction that counts as best; at least one
                member each.
            factors: each perturbed setting is multiplied by a random one of these and clipped to its range; it keeps
                its value if the result contradicts another setting. Whole numbers are rounded.
            of: the settings to perturb, attributes of the agent.
            seed: of the combiner's random stream.

        Raises:
            ValueError: the statistic is unknown, the fraction is not in (0, 0.5], or a factor is not positive.
        """
        if not 0 < fraction <= 0.5:
            raise ValueError(f"fraction must be in (0, 0.5], not {fraction}")
        if not factors or not all(0 < factor < math.inf for factor in factors):
            raise ValueError(f"factors must be positive numbers, not {factors}")
        self.stat_name, self.fraction, self.factors, self.of = _known(stat_name), fraction, (*factors,), (*of,)
        self.rng = random.Random(seed)

    def combine(
        self, workers_agents: Agents, main_agent: Any, workers_stats: AllStats = None, main_agent_stats: Any = None
    ) -> list[Any]:
        """Return an agent for each member."""
        ranking = _ranking(workers_stats or (), self.stat_name)
        count = min(max(int(self.fraction * len(ranking)), 1), len(ranking) // 2)
        agents = [*workers_agents]
        for loser in ranking[len(ranking) - count :]:
            agents[loser] = self._explored(workers_agents[self.rng.choice(ranking[:count])])
        return agents

    def check(self, agents: Agents) -> None:
        """Check that all agents have the settings, and that factors can change these."""
        for name in self.of:
            faults = [_fault_of(agent, name) for agent in agents]
            if not any(np.any(getattr(agent, name, None)) for agent in agents):
                faults.append("it is 0 in all agents, which no factor changes")
            if fault := next(filter(None, faults), None):
                raise ValueError(f"ExploitExplore cannot change {name!r}: {fault}")

    def choose(self, workers_agents: Agents, main_agent: Any, workers_stats: AllStats = None) -> Any:
        """Return the best agent."""
        return FixedStatAgentCombiner(self.stat_name).combine(workers_agents, main_agent, workers_stats)

    def _explored(self, agent: Any) -> Any:
        agent, known = copy.deepcopy(agent), _settings_of(agent)
        for name in self.of:
            try:
                value = getattr(agent, name)
                changed = value * self.rng.choice(self.factors)
                changed = round(changed) if isinstance(value, int) else changed
                setattr(agent, name, known[name].nearest(changed) if known else changed)
            except (AttributeError, TypeError, ValueError) as error:
                raise ValueError(f"ExploitExplore cannot change the setting {name!r}: {error}") from error
            if known and not _is_consistent(agent):
                setattr(agent, name, value)
        return agent


def combiner_of(given: AgentCombiner | None, agents: Agents, learning: bool) -> AgentCombiner:
    """Return the given combiner, or the default one for these agents.

    Raises:
        TypeError: it is not a combiner.
        ValueError: it cannot combine the agents, which it has to in parallel learning.
    """
    if given is not None and not isinstance(given, AgentCombiner):
        raise TypeError(f"combiner must be an AgentCombiner such as MeanAgentCombiner(), not {given!r}")
    combiner = given or (FixedAgentCombiner(0) if len(agents) == 1 else RandomAgentCombiner(0))
    if learning:
        combiner.check(agents)
    return combiner


def _settings_of(agent: Any) -> dict[str, Setting]:
    """Return the facts about the settings of an agent of `AsyncTrainer`; none for other agents."""
    return settings_in(type(agent.config)) if isinstance(agent, Configured) else {}


def _is_consistent(agent: Any) -> bool:
    """Return whether no settings of an agent exclude each other."""
    try:
        agent.config.check_relations()
    except ValueError:
        return False
    return True


def _fault_of(agent: Any, name: str) -> str | None:
    """Return, in words, why an attribute cannot be multiplied; None if it can be."""
    known = _settings_of(agent)
    if not (name in known if known else hasattr(agent, name)):
        return f"there is no such setting{suggestion(name, known)}"
    value = getattr(agent, name)
    if known and known[name].fixed:
        return "it cannot be changed once the agent is made"
    if known and (isinstance(value, bool) or not isinstance(value, int | float)):
        return f"it is {value!r}, not a number"
    return None


def _known(stat_name: str) -> str:
    if stat_name not in STATS:
        raise ValueError(f"stat_name must be one of {', '.join(STATS)}, not {stat_name!r}")
    return stat_name


def _ranking(stats: Sequence[Stats | None], name: str) -> list[int]:
    """Return the numbers of the members that have a statistic, in descending order of it."""
    values = {number: (one or {}).get(name) for number, one in enumerate(stats)}
    known = {number: value for number, value in values.items() if value is not None and not math.isnan(value)}
    return sorted(known, key=known.__getitem__, reverse=True)
