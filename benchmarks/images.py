"""Training steps per second with images: ours beside Stable-Baselines3, with the same convolutional network.

python -m benchmarks.images --rounds 3
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import tyro

from AsyncPPO import AsyncPPO
from benchmarks.lag import Pixels
from benchmarks.throughput.training import in_turns, timed, trainer_speed
from PPO import PPO

NUM_ENVS, HORIZON, MINIBATCH, EPOCHS = 8, 128, 256, 4


def ours(steps: int, bf16: bool = False) -> float:
    """Return the speed of `AsyncPPO`."""
    ppo = PPO.for_env(
        Pixels(),
        hidden_sizes=(),
        batch_size=NUM_ENVS * HORIZON,
        mini_batch_size=MINIBATCH,
        k_epochs=EPOCHS,
        bf16=bf16,
        seed=0,
    )
    with AsyncPPO(Pixels, ppo, NUM_ENVS, steps, seed=0, progress=False) as trainer:
        return trainer_speed(trainer, steps)


def stable_baselines(steps: int) -> float:
    """Return the speed of Stable-Baselines3."""
    from stable_baselines3 import PPO as Theirs
    from stable_baselines3.common.vec_env import DummyVecEnv

    envs = DummyVecEnv([Pixels] * NUM_ENVS)
    model = Theirs("CnnPolicy", envs, n_steps=HORIZON, batch_size=MINIBATCH, n_epochs=EPOCHS, device="cpu", seed=0)

    def run(count: int) -> int:
        before = model.num_timesteps
        return model.learn(count, reset_num_timesteps=False).num_timesteps - before

    return timed(run, steps)


CONTESTANTS: dict[str, Callable[[int], float]] = {
    "ours": ours,
    "Stable-Baselines3": stable_baselines,
    "ours, bf16": partial(ours, bf16=True),
}


def turn(name: str, steps: int) -> float:
    """Return the speed of a contestant."""
    return CONTESTANTS[name](steps)


def main(steps: int = 4_096, rounds: int = 3) -> None:
    """Print the median steps per second of each contestant, taken in turns, and the ratio to Stable-Baselines3.

    Args:
        steps: of each measurement.
        rounds: the number of turns of each.
    """
    rates = in_turns(turn, [(name, steps) for name in CONTESTANTS], rounds)
    medians = {name: float(np.median(each)) for (name, _), each in rates.items()}
    for name, median in medians.items():
        print(f"{name}: {median:,.0f} steps/s, {median / medians['Stable-Baselines3']:.2f}")


if __name__ == "__main__":
    tyro.cli(main)
