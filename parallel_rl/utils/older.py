"""Files of older versions. Each function converts one kind of old content; current content is returned unchanged.

Only this module knows the older forms. The exception: a reader fills in what an older file lacks by its own default.
`tests/fixtures` has such files.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from parallel_rl.utils.history import Metrics
from parallel_rl.utils.state import State
from parallel_rl.utils.trajectory import episode_ends

CHECKPOINT = {"ppo": "agent", "settings": "signature"}
COLLECTOR = {"core": "recurrent"}
EXTRAS = {"draw": "raw_action", "core": "state"}
METRICS = {"intrinsic_reward": "rnd_reward"}
SETTINGS = {"squash": "squash_actions"}
"""Former names, and the current ones: parts of a checkpoint and of its collector, extras, metrics, settings."""
MADE_FOR = {"the environment", "its observation space", "its action space", "num_envs", "mode"}
"""The names in `made_for` that do not belong to settings."""
VALUES = {("acting", "alternating"): "central"}
"""Removed values of settings of a run, and the values that replace them."""


def checkpoint(state: State) -> State:
    """Convert the content of a run's checkpoint, except for its buffer and agent; return other content as it is."""
    state = _renamed(state, CHECKPOINT)
    made_for, progress, collector = (state.get(name) for name in ("made_for", "progress", "collector"))
    if not (isinstance(made_for, dict) and isinstance(progress, dict) and isinstance(collector, dict)):
        return state
    if "signature" not in state:
        state["signature"] = {name: value for name, value in made_for.items() if name not in MADE_FOR}
        state["made_for"] = {name: value for name, value in made_for.items() if name in MADE_FOR}
    progress = {"restarts": 0, "rows": {"last": progress.get("steps_done"), "sums": {}}} | progress
    return state | {"progress": progress, "collector": _renamed(collector, COLLECTOR)}


def buffer(state: State) -> State:
    """Convert the state of a `VecMemory`.

    The arrays were `(N, T, ...)`. `final_obs[i, k]` was the next observation of the k-th end of environment i, and
    `final_obs[i, ends[i]]` the one of its last row.

    Raises:
        ValueError: the numbers of ends do not match the flags.
    """
    if "ends" not in state:
        return state
    lengths, ends = state["lengths"], state["ends"]
    arrays = {name: np.swapaxes(array, 0, 1) for name, array in _renamed(state["arrays"], EXTRAS).items()}
    if not arrays:
        return {"lengths": lengths, "next_obs": None, "arrays": {}}
    final_obs, ended = arrays["final_obs"], episode_ends(arrays["terminated"], arrays["truncated"])
    ended &= np.arange(len(ended))[:, None] < lengths
    if not np.array_equal(ended.sum(axis=0), ends):
        raise ValueError("the saved numbers of ends do not match the saved flags")
    env_ids, count = np.arange(len(lengths)), np.cumsum(ended, axis=0) - 1
    next_obs = final_obs[np.minimum(ends, len(final_obs) - 1), env_ids]
    arrays["final_obs"] = final_obs[count[ended], np.nonzero(ended)[1]]
    return {"lengths": lengths, "next_obs": next_obs, "arrays": arrays}


def ppo(state: State) -> State:
    """Convert the state of a `PPO`. `stacked` tells whether Adam's moments are in the order of `stacked_moments`."""
    state = {"rewarded": bool(state.get("updates")), "stacked": False, **state}
    returns: Any = state.get("intrinsic_returns", {})
    if not isinstance(returns, dict):  # None, or a single tensor, which is that of RND
        state["intrinsic_returns"] = {} if returns is None else {"RND.return_stats": returns}
    return state


def stacked_moments(moments: dict[str, Any], parameters: Sequence[Any], stacked: Sequence[Any]) -> dict[str, Any]:
    """Convert the moments of Adam of a policy of several choices: their order was the one of `policy.parameters()`.

    Args:
        moments: of the `parameters`, vectors or scalars by name.
        parameters: in their own order.
        stacked: the same ones, in the order of the optimizer.
    """
    import torch

    def reordered(tensor: torch.Tensor) -> torch.Tensor:
        parts = dict(zip(parameters, tensor.split([parameter.numel() for parameter in parameters]), strict=True))
        return torch.cat([parts[parameter] for parameter in stacked])

    return {name: reordered(tensor) if tensor.ndim else tensor for name, tensor in moments.items()}


def ppo_settings(saved: State, own: State) -> State:
    """Convert the settings of a `PPO` in a checkpoint: older ones have only the networks'; the rest is from `own`."""
    return own | _renamed(saved, SETTINGS) if "squash" in saved else saved


def off_policy_counts(counts: State) -> State:
    """Convert the counts of an off-policy agent."""
    return {"_from_step": 0, "_from_update": 0, "_acted": 0} | counts


def run_record(record: State) -> State:
    """Convert the content of a `config.json`, which had all settings in one dict."""
    return record | {"run": record["config"], "settings": {}} if "config" in record else record


def metrics(row: Metrics) -> Metrics:
    """Convert a row of `metrics.csv`."""
    return _renamed(row, METRICS)


def _renamed(parts: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(name, name): part for name, part in parts.items()}
