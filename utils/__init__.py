"""The helpers of the hand-written loop, for programs that say `import utils`; their home is `parallel_rl.utils`."""

from pkgutil import extend_path

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
__path__ = extend_path(__path__, __name__)  # so that it does not hide modules in somebody's folder `utils`
