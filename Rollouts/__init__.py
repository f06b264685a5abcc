"""Rollout fragments for your own torch loop, which is left with the algorithm alone."""

from Rollouts.actor import BaseActorModule
from Rollouts.evaluation import evaluations
from Rollouts.feed import rollout
from Rollouts.fragment import Fragment, State
from Rollouts.whole import episodes

__all__ = ["BaseActorModule", "Fragment", "State", "episodes", "evaluations", "rollout"]
