"""Ranks in several processes, on one machine or on several (docs/scale-out.md)."""

from parallel_rl.ranks.environment import ranks_of_environment

__all__ = ["ranks_of_environment"]
