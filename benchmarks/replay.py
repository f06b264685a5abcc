"""The time to sample a minibatch from a full replay buffer: `python -m benchmarks.replay`.

A minibatch has 256 transitions, and the buffer 1,000,000 rows of 8 environments. The time is the least of 400 means of
10 calls, on one core.

| sampling | bar | predicted | before | now | quiet core |
| --- | --- | --- | --- | --- | --- |
| uniform, 17 numbers | 100 us | 65 us | 91 us | 66 us | 45 us |
| uniform, goals (31 numbers) | | 75 us | 105 us | 80 us | 53 us |
| hindsight | 100 us | 150 us | 297 us | 210 us | 147 us |
| prioritized, 17 numbers | 200 us | 200 us | 360 us | 272 us | 188 us |
| hindsight, 8 minibatches at once: each | 100 us | | | | 76 us |

An agent samples all updates of a group at once: with 8 environments and `utd` 1, that is 8 minibatches.

The columns *before* and *now* were measured on one of two cores of a machine with a load of 4 to 7, the last one later,
without other programs. The predictions assume 16 us to gather 256 observations that are not in the cache, 3 us for any
other operation on 256 numbers, for hindsight 14 us in the environment's reward function, and for prioritized replay 60
us for each of two levels of 256 times 32 sums.
"""

import argparse
from collections.abc import Callable
from timeit import repeat
from typing import Any

import numpy as np
from gymnasium import spaces

from OffPolicy import GoalFunctions, Hindsight, Priorities, Replay
from parallel_rl.utils import Trajectory, row_type

NUM_ENVS, EPISODE, BATCH = 8, 50, 256
UPDATES = 8
"""Minibatches that are sampled at once."""
GAMMA = 0.99


def numbers(count: int) -> spaces.Box:
    """Return a space of vectors."""
    return spaces.Box(-np.inf, np.inf, (count,), np.float64)


def full_replay(space: spaces.Space, rows: int) -> Replay:
    """Return a buffer with episodes of 50 steps."""
    replay, rng = Replay(rows, space, spaces.Box(-1, 1, (4,)), NUM_ENVS), np.random.default_rng(0)
    length = rows // NUM_ENVS // (EPISODE + 1) * EPISODE
    over = np.arange(length) % EPISODE == EPISODE - 1
    shape, kind = row_type(space)
    for env_id in range(NUM_ENVS):
        obs, final_obs = np.zeros((length, *shape), kind), np.zeros((int(over.sum()), *shape), kind)
        action, reward = np.zeros((length, 4), np.float32), rng.random(length).astype(np.float32)
        replay.extend([Trajectory(env_id, obs, action, reward, np.zeros(length, bool), over, final_obs)])
    return replay


def compute_reward(achieved: np.ndarray, desired: np.ndarray, info: dict[str, Any]) -> np.ndarray:
    """Return the rewards of Fetch."""
    return -(np.linalg.norm(achieved - desired, axis=-1) > 0.05).astype(np.float32)


def microseconds(sample: Callable[[], object], calls: int = 10, repeats: int = 400) -> float:
    """Return the time of a call."""
    return min(repeat(sample, number=calls, repeat=repeats)) / calls * 1e6


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description="The time to sample a minibatch from a full replay buffer.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    rng = np.random.default_rng(1)
    vectors = full_replay(numbers(17), rows)
    goals = full_replay(spaces.Dict(observation=numbers(25), achieved_goal=numbers(3), desired_goal=numbers(3)), rows)
    functions = GoalFunctions(compute_reward, lambda achieved, desired, info: np.zeros(len(desired), bool))
    hindsight = Hindsight(functions, "future", k=4)
    priorities = Priorities(rows, alpha=0.6)
    priorities.extend(np.arange(len(vectors.is_transition)), vectors.is_transition)

    def with_hindsight(count: int) -> object:
        return hindsight.transitions(goals, goals.sample(count, rng), GAMMA, rng)

    kinds: dict[str, Callable[[], object]] = {
        "uniform, 17 numbers": lambda: vectors.transitions(vectors.sample(BATCH, rng), GAMMA),
        "uniform, goals (31 numbers)": lambda: goals.transitions(goals.sample(BATCH, rng), GAMMA),
        "hindsight": lambda: with_hindsight(BATCH),
        "prioritized, 17 numbers": lambda: vectors.transitions(priorities.sample(BATCH, rng), GAMMA),
    }
    print("| sampling | us |\n| --- | --- |")
    for name, sample in kinds.items():
        print(f"| {name} | {microseconds(sample):.0f} |", flush=True)
    at_once = microseconds(lambda: with_hindsight(UPDATES * BATCH)) / UPDATES
    print(f"| hindsight, {UPDATES} minibatches at once: each | {at_once:.0f} |", flush=True)


if __name__ == "__main__":
    main()
