"""Updates per second of the off-policy agents and of Stable-Baselines3's: `python -m benchmarks.offpolicy_speed`.

Minibatches have 256 transitions (observations of 17 numbers, 6 actions), sampled from 20,000, on one thread, or with
`--device cuda` on a GPU. Ours and theirs take turns in one process, and a figure is the median over the turns. It needs
requirements-bench.txt.
"""

import argparse
import time
from collections.abc import Callable
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
    """Return the updates of Stable-Baselines3's agent, with the settings of ours."""
    import stable_baselines3
    from stable_baselines3.common.logger import Logger

    options = {"target_update_interval": 1, "tau": 0.005} if name == "DQN" else {}
    agent = getattr(stable_baselines3, name)(
        "MlpPolicy", Spaces(AGENTS[name]), seed=0, policy_kwargs={"net_arch": [hidden, hidden]}, batch_size=BATCH,
        buffer_size=2 * ROWS, learning_starts=ROWS, device=device, **options,
    )  # fmt: skip
    agent.set_logger(Logger(None, []))
    obs, actions, rewards = transitions(AGENTS[name])
    none = np.zeros(1, bool)
    for row in range(ROWS):
        following = obs[(row + 1) % ROWS]
        agent.replay_buffer.add(obs[row, None], following[None], actions[row, None], rewards[row, None], none, [{}])
    return lambda count: agent.train(count, BATCH)


def updates_per_second(update: Updates, count: int) -> float:
    """Return the speed of `count` updates."""
    start = time.perf_counter()
    update(count)
    return count / (time.perf_counter() - start)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description="Updates per second of the off-policy agents and of SB3's.")
    parser.add_argument("--agents", nargs="+", default=list(AGENTS), choices=AGENTS)
    parser.add_argument("--hidden", nargs="+", type=int, default=[256, 64], help="units of each of two layers")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--updates", type=int, default=40, help="in each turn")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="compile our updates")
    typed = parser.parse_args()
    settings: dict[str, Any] = {"compile": True} if typed.compile else {}
    torch.set_num_threads(1)
    print("| agent | hidden layers | ours | SB3 | ratio |\n| --- | --- | --- | --- | --- |")
    for hidden in typed.hidden:
        for name in typed.agents:
            both = [
                ours(name, hidden, typed.device, **settings),
                stable_baselines(name, hidden, typed.device),
            ]
            turns = [[updates_per_second(update, typed.updates) for update in both] for _ in range(typed.turns + 1)]
            our_speed, their_speed = np.median(turns[1:], axis=0)
            ratio = our_speed / their_speed
            print(f"| {name} | 2 x {hidden} | {our_speed:.0f}/s | {their_speed:.0f}/s | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
