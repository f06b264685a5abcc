"""Rollout fragments for your own torch loop: neither the algorithm nor the actor handles the collection."""

from Rollouts.actor import BaseActorModule
from Rollouts.evaluation import evaluations
from Rollouts.feed import rollout
from Rollouts.fragment import Fragment, State
from Rollouts.whole import episodes

__all__ = ["BaseActorModule", "Fragment", "State", "episodes", "evaluations", "rollout"]
