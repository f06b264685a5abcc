"""The helpers of the hand-written loop, for programs that say `import utils`; their home is `parallel_rl.utils`."""

from parallel_rl.utils import (
    buffer_append,
    buffer_to_target_buffer_transfer,
    inactive_states_dropout,
    indexes_of_active_environments,
    number_of_active_environments,
    range_of_active_environments,
    update_active_environments_list,
)

__all__ = [
    "buffer_append",
    "buffer_to_target_buffer_transfer",
    "inactive_states_dropout",
    "indexes_of_active_environments",
    "number_of_active_environments",
    "range_of_active_environments",
    "update_active_environments_list",
]
