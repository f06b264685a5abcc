"""Training steps per second of PPO with the same hyperparameters and networks: ours and other installed libraries."""

import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from types import MappingProxyType
from typing import Any

import gymnasium as gym
import numpy as np
from tqdm import tqdm

from AsyncPPO import AsyncPPO, EnvVectorizer, VecMemory
from parallel_rl import utils
from PPO import PPO


@dataclass(frozen=True)
class Shape:
    """The shape of a batch and of its update; separate 64x64 tanh networks throughout."""

    num_envs: int
    horizon: int
    mini_batch_size: int
    k_epochs: int

    @property
    def batch_size(self) -> int:
        """Transitions in a batch."""
        return self.num_envs * self.horizon


SHAPES = {"wide": Shape(32, 64, 512, 4), "small": Shape(8, 256, 64, 10)}
"""Wide: 32 environments x 64 steps. Small: Stable-Baselines3's default."""
MUJOCO = ["HalfCheetah-v5"] if importlib.util.find_spec("mujoco") else []
TASKS = ["CartPole-v1", "LunarLander-v3", *MUJOCO]


def timed(run: Callable[[int], int], steps: int) -> float:
    """Return the steps per second of a second run, after a first one as a warm-up.

    Args:
        run: takes at least that many steps and returns their number: whole batches, or whole episodes.
        steps: of the second run.
    """
    run(steps // 4)
    start = time.perf_counter()
    return run(steps) / (time.perf_counter() - start)


def agent(env_id: str, shape: Shape, **settings: Any) -> PPO:
    """Make our PPO for a shape."""
    return PPO.for_env(
        gym.make(env_id),
        batch_size=shape.batch_size,
        mini_batch_size=shape.mini_batch_size,
        k_epochs=shape.k_epochs,
        lr=3e-4,
        seed=0,
        **settings,
    )


def trainer_speed(trainer: AsyncPPO, steps: int) -> float:
    """Return the speed of one of our trainers."""

    def run(count: int) -> int:
        trainer.steps, before = count, trainer.steps_done
        trainer.run()
        return trainer.steps_done - before

    return timed(run, steps)


def ours(env_id: str, shape: Shape, steps: int, learner: Any = "auto", compiled: bool = False, **options: Any) -> float:
    """Return the speed of `AsyncPPO`."""
    ppo = agent(env_id, shape, learner=learner, compile=compiled)
    with AsyncPPO(env_id, ppo, shape.num_envs, steps, seed=0, progress=False, **options) as trainer:
        return trainer_speed(trainer, steps)


def by_hand(env_id: str, shape: Shape, steps: int) -> float:
    """Return the speed of the README's loop."""
    ppo, buffer = agent(env_id, shape), VecMemory(shape.num_envs)
    with EnvVectorizer(env_id, shape.num_envs, seed=0) as env:

        def run(count: int) -> int:
            done = 0
            while done < count:
                states, _ = env.reset()
                while not env.finished.all():
                    actions, extras = ppo.act(states)
                    next_states, rewards, dones, truncates, _ = env.step(actions)
                    utils.buffer_append(
                        buffer,
                        states,
                        actions,
                        rewards,
                        dones,
                        is_env_terminal=env.envs_active,
                        num_envs=shape.num_envs,
                        truncates=truncates,
                        next_states=next_states,
                        **extras,
                    )
                    done += len(rewards)
                    states = utils.inactive_states_dropout(next_states, dones | truncates)
                    env.envs_active = utils.update_active_environments_list(env.envs_active, dones | truncates)
                utils.buffer_to_target_buffer_transfer(buffer, ppo.memory)
                ppo.learn()
            return done

        return timed(run, steps)


def stable_baselines(library: str, env_id: str, shape: Shape, steps: int) -> float:
    """Return the speed of `stable_baselines3` or `sbx` with a DummyVecEnv, the fastest for cheap environments."""
    layers, name = ("flax.linen", "tanh") if library == "sbx" else ("torch.nn", "Tanh")
    tanh = getattr(importlib.import_module(layers), name)
    return model_speed(importlib.import_module(library).PPO, partial(gym.make, env_id), tanh, shape, steps)


def model_speed(
    algorithm: Any,
    make_env: Callable[[], gym.Env],
    tanh: Any,
    shape: Shape,
    steps: int,
    policy: str = "MlpPolicy",
    policy_kwargs: Mapping[str, Any] = MappingProxyType({}),
) -> float:
    """Return the speed of an algorithm with the interface of Stable-Baselines3's PPO."""
    from stable_baselines3.common.vec_env import DummyVecEnv

    model = algorithm(
        policy,
        DummyVecEnv([make_env] * shape.num_envs),
        n_steps=shape.horizon,
        batch_size=shape.mini_batch_size,
        n_epochs=shape.k_epochs,
        policy_kwargs={"net_arch": {"pi": [64, 64], "vf": [64, 64]}, "activation_fn": tanh, **policy_kwargs},
        device="cpu",
        seed=0,
    )

    def run(count: int) -> int:
        before = model.num_timesteps
        return model.learn(count, reset_num_timesteps=False).num_timesteps - before

    return timed(run, steps)


PEERS = {"SBX": "sbx", "Stable-Baselines3": "stable_baselines3"}
CONTESTANTS: dict[str, Callable[[str, Shape, int], float]] = {
    "ours": ours,
    "one process": partial(ours, backend="inline"),
    "central": partial(ours, acting="central"),
    "learner=torch": partial(ours, learner="torch"),
    "torch, compiled": partial(ours, learner="torch", compiled=True),
    "by hand": by_hand,
    **{
        name: partial(stable_baselines, library) for name, library in PEERS.items() if importlib.util.find_spec(library)
    },
}


def in_turns(speed: Callable[..., float], cases: Sequence[tuple], rounds: int) -> dict[tuple, list[float]]:
    """Return the speeds of each case, the arguments of a function, taken in turns, each in a new process."""
    rates: dict[tuple, list[float]] = {case: [] for case in cases}
    for case in tqdm([*cases] * rounds, unit="turn"):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            rates[case].append(pool.submit(speed, *case).result())
    return rates


def compare(speed: Callable[..., float], ours: tuple, theirs: tuple, rounds: int) -> None:
    """Print the speeds of two cases, whose first arguments are their names, and the ratio of the medians."""
    rates = in_turns(speed, [ours, theirs], rounds)
    for (name, *_), each in rates.items():
        print(f"{name}: {', '.join(f'{rate:,.0f}' for rate in each)} steps/s")
    print(f"{ours[0]} / {theirs[0]}: {np.median(rates[ours]) / np.median(rates[theirs]):.2f}")


def turn(contestant: str, env_id: str, shape: Shape, steps: int) -> float:
    """Return the speed of a contestant."""
    return CONTESTANTS[contestant](env_id, shape, steps)


def measure(env_id: str, shape: Shape, steps: int, rounds: int) -> dict[str, float]:
    """Return the median speed of each contestant, taken in turns, each in a new process."""
    turns = []
    for _ in range(rounds):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
            turns.append([pool.submit(turn, name, env_id, shape, steps).result() for name in CONTESTANTS])
    return dict(zip(CONTESTANTS, np.median(turns, axis=0).tolist(), strict=True))
