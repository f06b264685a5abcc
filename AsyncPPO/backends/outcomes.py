"""Checks of what an environment's `reset` and `step` return; a wrong value is one clear error."""

import math
import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from AsyncPPO.backends.base import EnvError

Info = dict[str, Any]
NUMBERS = frozenset({float, np.float64, np.float32, np.int64})
FLAGS = frozenset({bool, np.bool_})
COLLECTIONS = (dict, list, tuple, np.ndarray)
LARGEST_REWARD = float(np.finfo(np.float32).max)
"""Rewards are stored in single precision."""
SQUARE = LARGEST_REWARD**2


def reset_outcome(index: int, outcome: Any) -> tuple[Any, Info]:
    """Return observation and info of environment `index`.

    Raises:
        EnvError: the environment returned something else.
    """
    if not isinstance(outcome, tuple | list) or len(outcome) != 2 or not isinstance(outcome[1], dict):
        raise EnvError(
            f"environment {index} returned {_shown(outcome)} from reset, which is not an observation and an info, a "
            "dict: does it follow the interface of the old gym?"
        )
    return outcome[0], outcome[1]


def step_outcome(index: int, outcome: Any) -> tuple[Any, Any, bool, bool, Info]:
    """Return observation, reward, terminated, truncated and info of environment `index`.

    Raises:
        EnvError: the environment returned something else.
    """
    try:
        obs, reward, terminated, truncated, info = outcome
    except (TypeError, ValueError) as error:
        count = f"{len(outcome)} values" if isinstance(outcome, tuple | list) else _shown(outcome)
        hint = "; the old gym's environments return four" if count == "4 values" else ""
        raise EnvError(
            f"environment {index} returned {count} from step, not five: observation, reward, terminated, truncated "
            f"and info{hint}"
        ) from error
    if type(reward) not in NUMBERS:
        reward = _number(index, reward)
    if type(terminated) not in FLAGS:
        terminated = _flag(index, "terminated", terminated)
    if type(truncated) not in FLAGS:
        truncated = _flag(index, "truncated", truncated)
    if not isinstance(info, dict):
        raise EnvError(f"environment {index} returned the info {_shown(info)}, which is not a dict")
    return obs, reward, terminated, truncated, info


def copied(value: Any) -> Any:
    """Return a copy of an info; only its collections are copied."""
    if isinstance(value, dict):
        return {name: copied(part) if isinstance(part, COLLECTIONS) else part for name, part in value.items()}
    if type(value) is list or type(value) is tuple:
        return type(value)(copied(part) for part in value)
    return value.copy() if isinstance(value, np.ndarray) else value


def check_results(env_ids: np.ndarray, rewards: np.ndarray, obs: np.ndarray) -> None:
    """Check the numbers of a step of environments `(n,)`.

    Raises:
        EnvError: see `check_rewards` and `check_finite`.
    """
    check_rewards(env_ids, rewards)
    check_finite("observation", env_ids, obs)


def check_finite(what: str, env_ids: Sequence[int] | np.ndarray, rows: np.ndarray) -> None:
    """Check rows `(n, ...)` of environments.

    Raises:
        EnvError: there is a NaN or an infinity in them; names the first environment.
    """
    for name in rows.dtype.names or ():
        check_finite(f"{what} {name!r}", env_ids, rows[name])
    if rows.dtype.kind != "f" or math.isfinite(np.vdot(rows, rows)):  # fast path: a sum of squares
        return
    finite = np.isfinite(rows.reshape(len(rows), -1)).all(axis=1)
    if not finite.all():
        bad = env_ids[int(finite.argmin())]
        large = "" if rows.dtype.itemsize >= 8 else f" (or a number too large for {rows.dtype})"
        raise EnvError(f"environment {bad} returned a NaN or an infinity as its {what}{large}")


def check_rewards(env_ids: Sequence[int] | np.ndarray, rewards: np.ndarray) -> None:
    """Check rewards float64 `(n,)` of environments.

    Raises:
        EnvError: one is a NaN, an infinity or too large; names the first environment.
    """
    if rewards.dot(rewards) <= SQUARE:  # fast path
        return
    check_finite("reward", env_ids, rewards)
    large = np.flatnonzero(np.abs(rewards) > LARGEST_REWARD)
    if len(large):
        raise _too_large(env_ids[int(large[0])], f" {rewards[large[0]]:g}")


def _too_large(env_id: int, reward: str = "") -> EnvError:
    """Return the error for a reward that is too large."""
    return EnvError(
        f"environment {env_id} returned a reward{reward} that is too large for float32, in which rewards are stored"
    )


def _number(index: int, reward: Any) -> float:
    try:
        if not isinstance(reward, int) and (isinstance(reward, str | bytes) or np.ndim(reward)):
            raise TypeError
        return float(reward)
    except OverflowError as error:
        raise _too_large(index) from error
    except (TypeError, ValueError) as error:
        raise EnvError(f"environment {index} returned the reward {_shown(reward)}, which is not a number") from error


def _flag(index: int, name: str, flag: Any) -> bool:
    if np.ndim(flag) or flag not in (0, 1):
        raise EnvError(f"environment {index} returned {name}={_shown(flag)}, which is not a bool")
    return bool(flag)


def _shown(value: Any) -> str:
    return " ".join(reprlib.repr(value).split())
