"""The state of a replay buffer whose environments are dealt to several ranks.

Row r of a buffer of N environments is of environment `r % N`; here the rows of each array are `(T, N, ...)`.
"""

from collections.abc import Sequence

import numpy as np

from OffPolicy.replay import ARRAYS, COUNTS, RUNNING
from parallel_rl.utils import State


def joined_replays(states: Sequence[State]) -> State:
    """Return the state of one `Sampler` with the environments of several, one after the other."""
    replays = [state["replay"] for state in states]
    sizes = [replay["num_envs"] for replay in replays]
    if not all(sizes):
        return states[0] | {"replay": {"num_envs": 0}}
    total, firsts = sum(sizes), np.cumsum([0, *sizes]).tolist()
    longest = max(len(replay["obs"]) // envs for replay, envs in zip(replays, sizes, strict=True))

    def joined(arrays: list[np.ndarray]) -> np.ndarray:
        wide = [_widened(array, longest, envs) for array, envs in zip(arrays, sizes, strict=True)]
        return _flat(np.concatenate(wide, axis=1))

    rows = {name: [replay[name] for replay in replays] for name in ARRAYS}
    rows["final_row"] = [
        _moved(array, envs, total, first) for array, envs, first in zip(rows["final_row"], sizes, firsts, strict=False)
    ]
    replay = {name: joined(arrays) for name, arrays in rows.items()}
    replay |= {name: np.concatenate([each[name] for each in replays]) for name in COUNTS}
    priorities = states[0]["priorities"]
    if priorities is not None:
        leaves = joined([
            state["priorities"]["priorities"][: len(each["obs"])]
            for state, each in zip(states, replays, strict=True)
        ])  # fmt: skip
        priorities = priorities | {"priorities": _padded(leaves, len(priorities["priorities"]))}
    return {"replay": {"num_envs": total, **replay}, "priorities": priorities}


def part_of_replay(state: State, own: slice) -> State:
    """Return the state of a `Sampler` for some of the environments of another one."""
    replay, priorities = state["replay"], state["priorities"]
    total, envs = replay["num_envs"], own.stop - own.start
    if not total:
        return state | {"replay": {"num_envs": 0}}
    counts = {name: replay[name][own] for name in COUNTS}
    filled = min(int(counts["written"].max()) + 1, len(replay["obs"]) // total)

    def part(array: np.ndarray) -> np.ndarray:
        return _flat(array[: filled * total].reshape(filled, total, *array.shape[1:])[:, own])

    rows = {name: part(replay[name]) for name in ARRAYS}
    rows["final_row"] = _moved(rows["final_row"], total, envs, -own.start)
    if priorities is not None:
        leaves = priorities["priorities"]
        priorities = priorities | {"priorities": _padded(part(leaves), len(leaves))}
    return {"replay": {"num_envs": envs, **counts, **rows}, "priorities": priorities}


def _moved(rows: np.ndarray, envs: int, others: int, shift: int) -> np.ndarray:
    """Return the numbers of rows after their environments, of N = `envs`, have become some of N = `others`."""
    return np.where(rows == RUNNING, RUNNING, rows // envs * others + rows % envs + shift)


def _widened(rows: np.ndarray, steps: int, envs: int) -> np.ndarray:
    """Return rows as `(steps, envs, ...)`, with zeros at the end."""
    return _padded(rows, steps * envs).reshape(steps, envs, *rows.shape[1:])


def _padded(rows: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate([rows, np.zeros((count - len(rows), *rows.shape[1:]), rows.dtype)])


def _flat(rows: np.ndarray) -> np.ndarray:
    return rows.reshape(-1, *rows.shape[2:])
