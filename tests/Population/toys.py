"""Agents and environments with known answers."""

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from Population import Agent, Environment, Experience


class Line(Environment):
    """Episodes of some length: the observation is the number of steps, the reward is the action."""

    def __init__(self, length: int = 10) -> None:
        self.length, self.steps = length, 0

    def reset(self) -> Any:
        self.steps = 0
        return [0], {"at": 0}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return [self.steps], action, self.steps >= self.length, False, {"at": self.steps}


class Adder(Agent):
    """Its action is a constant; each training adds the constant to its number."""

    def __init__(self, constant: float = 1.0) -> None:
        self.constant, self.number, self.seen, self.calls = constant, 0.0, 0, 0

    def action(self, state: Any) -> float:
        self.calls += 1
        return self.constant

    def train(self, experience: Experience) -> None:
        self.seen += len(experience)
        self.number += self.constant


class OwnConstant(Adder):
    """Only its number travels."""

    def get(self) -> float:
        return self.number

    def set(self, data: float) -> None:
        self.number = data


class Dice(Agent):
    """Acts by its own and by the global random streams, and remembers the sum of all rewards."""

    def __init__(self) -> None:
        self.rng, self.total = np.random.default_rng(), 0.0

    def action(self, state: Any) -> float:
        return random.random() + float(np.random.random()) + self.rng.random()  # noqa: NPY002

    def train(self, experience: Experience) -> None:
        self.total += sum(experience.rewards) + random.random() + self.rng.random()


class OwnDice(Dice):
    """Acts by its own random stream."""

    def action(self, state: Any) -> float:
        return self.rng.random()


class Bad(OwnConstant):
    """Fails at an action, in the member whose constant is negative; only once, with a file that remembers."""

    def __init__(self, constant: float, fault: str, file: Path | None = None, at: int = 19) -> None:
        super().__init__(constant)
        self.fault, self.file, self.at = fault, file, at

    def action(self, state: Any) -> float:
        if self.constant < 0 and self.calls == self.at and not (self.file and self.file.exists()):
            if self.file:
                self.file.touch()
            if self.fault == "raise":
                raise ValueError("no action comes to mind")
            if self.fault == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.fault == "hang":
                time.sleep(1000)
        return super().action(state)
