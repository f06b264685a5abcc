"""Arrays and files: what the learner and the collector share.

It imports nothing else of ours, and importing it does not import torch.
"""

from parallel_rl.utils.averages import mean_of_states
from parallel_rl.utils.closeable import Closeable
from parallel_rl.utils.configured import Configured
from parallel_rl.utils.counts import counted
from parallel_rl.utils.described import describe_space, make_space
from parallel_rl.utils.elements import COMPOSITE, choices_of, element_of, join_parts, name_of, rows_of, split_parts
from parallel_rl.utils.features import FORBIDDEN, Features
from parallel_rl.utils.files import append_to, load_tensors, read_json, remove_unfinished, to_json, write_atomically
from parallel_rl.utils.free_memory import free_memory
from parallel_rl.utils.history import History, Metrics
from parallel_rl.utils.made_with import MadeWith
from parallel_rl.utils.masks import (
    buffer_append,
    buffer_to_target_buffer_transfer,
    inactive_states_dropout,
    indexes_of_active_environments,
    number_of_active_environments,
    range_of_active_environments,
    update_active_environments_list,
)
from parallel_rl.utils.parts import ACTION_MASK, Image, unseen_images
from parallel_rl.utils.quadrature import gauss_hermite
from parallel_rl.utils.ranks import ALONE, Cluster, Fixed, RankError, Ranks, mean_metrics, merged, own_stream, stream_of
from parallel_rl.utils.registration import (
    check_env_id,
    environments_of,
    failure_of,
    opened,
    reason_of,
    register_games,
    registered,
    spaces_in,
)
from parallel_rl.utils.returns import (
    discounted_returns,
    discounted_sums,
    gae,
    n_step_returns,
    reward_unit,
    td_errors,
    v_trace,
)
from parallel_rl.utils.schedules import Schedule, check_annealed, linear, scheduled
from parallel_rl.utils.scores import bootstrap_interval, interquartile_mean
from parallel_rl.utils.seeding import (
    OwnStreams,
    env_seeds,
    global_streams_kept,
    restart_seed,
    seed_global_streams,
    spawn_seeds,
)
from parallel_rl.utils.settings import (
    Config,
    Setting,
    SettingValues,
    fault_of,
    make_config,
    new_default,
    setting,
    settings_class,
    settings_in,
)
from parallel_rl.utils.spaces import Keys, action_units, bounds_of, leaves, row_type
from parallel_rl.utils.state import (
    DamagedError,
    State,
    check_fit,
    check_like,
    holds_state,
    load_state,
    save_state,
    state_from,
    state_to_bytes,
    whole_number,
)
from parallel_rl.utils.threads import blas_threads, compute_threads, one_torch_thread, torch_threads
from parallel_rl.utils.trajectory import (
    Batch,
    Trajectory,
    bootstrap_values,
    ends_of,
    episode_ends,
    episode_numbers,
    next_rows,
    true_next_obs,
)

__all__ = [
    "ACTION_MASK",
    "ALONE",
    "COMPOSITE",
    "FORBIDDEN",
    "Batch",
    "Closeable",
    "Cluster",
    "Config",
    "Configured",
    "DamagedError",
    "Features",
    "Fixed",
    "History",
    "Image",
    "Keys",
    "MadeWith",
    "Metrics",
    "OwnStreams",
    "RankError",
    "Ranks",
    "Schedule",
    "Setting",
    "SettingValues",
    "State",
    "Trajectory",
    "action_units",
    "append_to",
    "blas_threads",
    "bootstrap_interval",
    "bootstrap_values",
    "bounds_of",
    "buffer_append",
    "buffer_to_target_buffer_transfer",
    "check_annealed",
    "check_env_id",
    "check_fit",
    "check_like",
    "choices_of",
    "compute_threads",
    "counted",
    "describe_space",
    "discounted_returns",
    "discounted_sums",
    "element_of",
    "ends_of",
    "env_seeds",
    "environments_of",
    "episode_ends",
    "episode_numbers",
    "failure_of",
    "fault_of",
    "free_memory",
    "gae",
    "gauss_hermite",
    "global_streams_kept",
    "holds_state",
    "inactive_states_dropout",
    "indexes_of_active_environments",
    "interquartile_mean",
    "join_parts",
    "leaves",
    "linear",
    "load_state",
    "load_tensors",
    "make_config",
    "make_space",
    "mean_metrics",
    "mean_of_states",
    "merged",
    "n_step_returns",
    "name_of",
    "new_default",
    "next_rows",
    "number_of_active_environments",
    "one_torch_thread",
    "opened",
    "own_stream",
    "range_of_active_environments",
    "read_json",
    "reason_of",
    "register_games",
    "registered",
    "remove_unfinished",
    "restart_seed",
    "reward_unit",
    "row_type",
    "rows_of",
    "save_state",
    "scheduled",
    "seed_global_streams",
    "setting",
    "settings_class",
    "settings_in",
    "spaces_in",
    "spawn_seeds",
    "split_parts",
    "state_from",
    "state_to_bytes",
    "stream_of",
    "td_errors",
    "to_json",
    "torch_threads",
    "true_next_obs",
    "unseen_images",
    "update_active_environments_list",
    "v_trace",
    "whole_number",
    "write_atomically",
]
