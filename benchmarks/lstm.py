"""Training steps per second with an LSTM, ours and of RecurrentPPO of sb3-contrib: `python -m benchmarks.lstm`.

CartPole, 8 environments x 128 steps, minibatches of 128, 10 epochs; actor and critic share an LSTM of 64 units.
"""

from collections.abc import Callable
from functools import partial

import gymnasium as gym
import tyro

from AsyncPPO import AsyncPPO
from benchmarks.throughput.training import Shape, agent, compare, model_speed, trainer_speed

ENV_ID, SHAPE, UNITS = "CartPole-v1", Shape(8, 128, 128, 10), 64


def ours(steps: int) -> float:
    """Return the speed of `AsyncPPO`."""
    ppo = agent(ENV_ID, SHAPE, core="lstm", core_size=UNITS)
    with AsyncPPO(ENV_ID, ppo, SHAPE.num_envs, steps, seed=0, progress=False) as trainer:
        return trainer_speed(trainer, steps)


def recurrent_ppo(steps: int) -> float:
    """Return the speed of sb3-contrib."""
    from sb3_contrib import RecurrentPPO
    from torch.nn import Tanh

    lstm = {"lstm_hidden_size": UNITS, "shared_lstm": True, "enable_critic_lstm": False}
    return model_speed(
        RecurrentPPO, partial(gym.make, ENV_ID), Tanh, SHAPE, steps, policy="MlpLstmPolicy", policy_kwargs=lstm
    )


CONTESTANTS: dict[str, Callable[[int], float]] = {"ours": ours, "RecurrentPPO": recurrent_ppo}


def turn(name: str, steps: int) -> float:
    """Return the speed of one contestant."""
    return CONTESTANTS[name](steps)


def main(steps: int = 8_000, rounds: int = 3) -> None:
    """Print the steps per second of both, measured in turns, and the ratio of the medians.

    Args:
        steps: the number of steps in each measurement.
        rounds: the number of measurements of each.
    """
    compare(turn, ("ours", steps), ("RecurrentPPO", steps), rounds)


if __name__ == "__main__":
    tyro.cli(main)
