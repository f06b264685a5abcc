"""OffPolicy: agents that learn from a replay buffer."""

from OffPolicy.replay import Replay, Transitions

__all__ = ["Replay", "Transitions"]
