"""OffPolicy: agents that learn from a replay buffer."""

from OffPolicy.her import Hindsight
from OffPolicy.priorities import Priorities, SumTree
from OffPolicy.replay import Replay, Transitions

__all__ = ["Hindsight", "Priorities", "Replay", "SumTree", "Transitions"]
