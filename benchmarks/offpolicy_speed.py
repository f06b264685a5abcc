"""Updates per second of the off-policy agents and of other libraries': `python -m benchmarks.offpolicy_speed`.

Minibatches have 256 transitions (observations of 17 numbers, 6 actions), sampled from 20,000, on one thread, or with
`--device cuda` on a GPU. All take turns in one process, and a figure is the median over the turns. It needs
requirements-bench.txt. `--of ours compiled SB3 SBX` names what is measured.
"""

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

import OffPolicy
from parallel_rl.utils import Trajectory

ROWS, BATCH, COLUMNS, ACTIONS, EPISODE = 20_000, 256, 17, 6, 1_000
CONTINUOUS, DISCRETE = spaces.Box(-1, 1, (ACTIONS,)), spaces.Discrete(ACTIONS)
AGENTS = {"SAC": CONTINUOUS, "TD3": CONTINUOUS, "DDPG": CONTINUOUS, "DQN": DISCRETE}
Updates = Callable[[int], None]
"""Makes a number of updates."""


class Spaces(gym.Env):
    """An environment of which only the spaces are used."""

    def __init__(self, action_space: spaces.Space) -> None:
        """Store the spaces."""
        self.observation_space = spaces.Box(-np.inf, np.inf, (COLUMNS,))
        self.action_space = action_space


def transitions(action_space: spaces.Space) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return random observations, actions and rewards."""
    rng = np.random.default_rng(0)
    discrete = isinstance(action_space, spaces.Discrete)
    actions = rng.integers(ACTIONS, size=ROWS) if discrete else rng.uniform(-1, 1, (ROWS, ACTIONS)).astype(np.float32)
    return rng.normal(size=(ROWS, COLUMNS)).astype(np.float32), actions, rng.normal(size=ROWS).astype(np.float32)


def ours(name: str, hidden: int, device: str, **settings: Any) -> Updates:
    """Return the updates of our agent with two hidden layers."""
    agent: Any = getattr(OffPolicy, name).for_env(
        Spaces(AGENTS[name]), seed=0, hidden_sizes=(hidden, hidden), batch_size=BATCH, buffer_size=2 * ROWS,
        learning_starts=ROWS, device=device, **settings,
    )  # fmt: skip
    obs, actions, rewards = transitions(AGENTS[name])
    truncated = np.arange(ROWS) % EPISODE == EPISODE - 1
    agent.observe([Trajectory(0, obs, actions, rewards, np.zeros(ROWS, bool), truncated, obs[truncated])])

    def update(count: int) -> None:
        agent.steps += count  # as if this number of steps had been collected
        agent.update(0.0)

    return update


def stable_baselines(name: str, hidden: int, device: str) -> Updates:
    """Return the updates of Stable-Baselines3's agent."""
    import stable_baselines3

    return _filled(getattr(stable_baselines3, name), name, hidden, device=device)


def _filled(kind: Any, name: str, hidden: int, **options: Any) -> Updates:
    """Return the updates of an agent of Stable-Baselines3 or SBX, with the settings of ours and a filled buffer."""
    from stable_baselines3.common.logger import Logger

    options |= {"target_update_interval": 1, "tau": 0.005} if name == "DQN" else {}
    agent = kind(
        "MlpPolicy", Spaces(AGENTS[name]), seed=0, policy_kwargs={"net_arch": [hidden, hidden]}, batch_size=BATCH,
        buffer_size=2 * ROWS, learning_starts=ROWS, **options,
    )  # fmt: skip
    agent.set_logger(Logger(None, []))
    obs, actions, rewards = transitions(AGENTS[name])
    none = np.zeros(1, bool)
    for row in range(ROWS):
        following = obs[(row + 1) % ROWS]
        agent.replay_buffer.add(obs[row, None], following[None], actions[row, None], rewards[row, None], none, [{}])
    return lambda count: agent.train(count, BATCH)


def sbx(name: str, hidden: int, device: str) -> Updates:
    """Return the updates of SBX's agent, which takes its device from JAX."""
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    import sbx

    return _filled(getattr(sbx, name), name, hidden)


OF: dict[str, Callable[..., Updates]] = {
    "ours": ours, "compiled": partial(ours, compile=True), "SB3": stable_baselines, "SBX": sbx,
}  # fmt: skip


def updates_per_second(update: Updates, count: int) -> float:
    """Return the speed of `count` updates."""
    start = time.perf_counter()
    update(count)
    return count / (time.perf_counter() - start)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description="Updates per second of the off-policy agents and of others'.")
    parser.add_argument("--agents", nargs="+", default=list(AGENTS), choices=AGENTS)
    parser.add_argument("--hidden", nargs="+", type=int, default=[256, 64], help="units of each of two layers")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--updates", type=int, default=40, help="in each turn")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--of", nargs="+", default=["ours", "SB3"], choices=OF)
    typed = parser.parse_args()
    torch.set_num_threads(1)
    print(f"| agent | hidden layers | {' | '.join(typed.of)} |\n| --- | --- |{' --- |' * len(typed.of)}")
    for hidden in typed.hidden:
        for name in typed.agents:
            all_updates = [OF[one](name, hidden, typed.device) for one in typed.of]
            turns = [[updates_per_second(one, typed.updates) for one in all_updates] for _ in range(typed.turns + 1)]
            speeds = " | ".join(f"{speed:.0f}/s" for speed in np.median(turns[1:], axis=0))
            print(f"| {name} | 2 x {hidden} | {speeds} |", flush=True)


if __name__ == "__main__":
    main()
