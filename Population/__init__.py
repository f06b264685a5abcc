"""Agents that train in parallel and are combined: members, a schedule and a combiner."""

from Population.agent import Agent, Environment
from Population.combiners import (
    AgentCombiner,
    EvaluatedAgentCombiner,
    ExploitExplore,
    FixedAgentCombiner,
    FixedStatAgentCombiner,
    MeanAgentCombiner,
    RandomAgentCombiner,
)
from Population.experience import Experience
from Population.modes import Mode, SyncMode
from Population.processes import MemberError
from Population.statistics import STATS
from Population.trainer import Trainer

__all__ = [
    "STATS",
    "Agent",
    "AgentCombiner",
    "Environment",
    "EvaluatedAgentCombiner",
    "Experience",
    "ExploitExplore",
    "FixedAgentCombiner",
    "FixedStatAgentCombiner",
    "MeanAgentCombiner",
    "MemberError",
    "Mode",
    "RandomAgentCombiner",
    "SyncMode",
    "Trainer",
]
