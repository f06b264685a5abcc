"""Fragments of experience for a plain torch loop: collecting is no part of the algorithm, nor of the actor."""

from Rollouts.actor import BaseActorModule
from Rollouts.evaluation import evaluations
from Rollouts.feed import rollout
from Rollouts.fragment import Fragment, State
from Rollouts.whole import episodes

__all__ = ["BaseActorModule", "Fragment", "State", "episodes", "evaluations", "rollout"]
