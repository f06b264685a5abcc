"""Small environments with known answers."""

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Counter(gym.Env):
    """Counts its steps: obs = [number from its random stream, step], reward = step, over after `length` steps."""

    def __init__(self, length: int = 5, truncates: bool = False) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Discrete(3)
        self.length, self.truncates = length, truncates

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.count = 0
        return self._obs(), dict(options or {})

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.count += 1
        over = self.count >= self.length
        info = {"action": int(action)} if over else {}
        return self._obs(), float(self.count), over and not self.truncates, over and self.truncates, info

    def _obs(self) -> np.ndarray:
        return np.array([self.np_random.random(), self.count], np.float32)


class Telltale(Counter):
    """Reports what its process has imported, as its observation."""

    def _obs(self) -> np.ndarray:
        return np.array([os.getpid() % 2**20, "torch" in sys.modules], np.float32)


class Gate(Counter):
    """Waits, if its action says so, until someone writes into a named pipe."""

    PASS, WAIT = 0, 1

    def __init__(self, pipe: Path) -> None:
        super().__init__(length=10**9)
        self.pipe = pipe

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        if action == self.WAIT:
            self.pipe.read_bytes()
        return super().step(0)


class Faulty(gym.Env):
    """Causes the fault of `FAULTS` that its action selects."""

    FAULTS = (
        "fine", "raise", "nan_obs", "nan_reward", "shape", "die", "raise_in_reset", "step_words", "four", "lock",
        "words", "exit", "unreadable", "dtype", "hang",
    )  # fmt: skip

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
        self.action_space = spaces.Discrete(len(self.FAULTS))
        self.fault = "fine"

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        if self.fault == "raise_in_reset":
            raise ValueError("the reset is broken")
        return np.zeros(3, np.float32), {}

    def step(self, action: int) -> tuple[Any, Any, bool, bool, dict]:
        self.fault = self.FAULTS[int(action)]
        if self.fault == "raise":
            raise ValueError("the step is broken")
        if self.fault == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "four":
            return np.zeros(3), 0.0, False, {}  # type: ignore[return-value]
        if self.fault == "words":
            return np.array(["a", "b", "c"]), 0.0, False, False, {}
        if self.fault == "hang":
            threading.Event().wait()
        if self.fault == "dtype":
            return np.zeros(3, complex), 0.0, False, False, {}
        if self.fault == "exit":
            raise SystemExit(3)
        info = {"lock": {"lock": threading.Lock(), "number": 1}, "unreadable": {"error": Unreadable(1, 2)}}.get(
            self.fault, {}
        )
        obs = np.full(3, np.nan if self.fault == "nan_obs" else 0.0, np.float32)
        reward = {"nan_reward": float("nan"), "step_words": "a lot"}.get(self.fault, 0.0)
        return (obs[:2] if self.fault == "shape" else obs), reward, False, False, info


class Hanging(Counter):
    """Never returns from a step."""

    def step(self, action: int) -> Any:
        threading.Event().wait()


class Unreadable(Exception):
    """Can be pickled, but not unpickled."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(one)


class Unclosable(Counter):
    """Fails to close."""

    def close(self) -> None:
        raise OSError("no such window")


class Grid(gym.Env):
    """Four continuous actions in two rows; their sum is the reward."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 1, (1,), np.float32)
        self.action_space = spaces.Box(0, 100, (2, 2), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert action.shape == (2, 2)
        return np.zeros(1, np.float32), float(action.sum()), False, False, {}


class Pixels(gym.Env):
    """uint8 images that show the step, and two continuous actions that it echoes as its reward."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 255, (8, 6, 3), np.uint8)
        self.action_space = spaces.Box(np.array([-1, 0], np.float32), np.array([1, 4], np.float32))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.count = 0
        return self._obs(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.count += 1
        return self._obs(), float(action[0] + 10 * action[1]), False, self.count >= 7, {}

    def _obs(self) -> np.ndarray:
        return self.np_random.integers(0, 256, (8, 6, 3), dtype=np.uint8)


class Nested(gym.Env):
    """A Dict with a Tuple in it: over after three steps, which it counts."""

    def __init__(self, fault: str = "") -> None:
        self.observation_space = spaces.Dict(
            inner=spaces.Tuple((spaces.Discrete(9), spaces.Box(-np.inf, np.inf, (1,)))),
            picture=spaces.Box(0, 255, (4, 4, 1), np.uint8),
        )
        self.action_space = spaces.Discrete(3)
        self.fault = fault

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.count = 0
        return self._obs(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict]:
        self.count += 1
        return self._obs(), 1.0, self.count == 3, False, {}

    def _obs(self) -> dict[str, Any]:
        draw = int(self.np_random.integers(9))
        numbers = np.full(2 if self.fault == "shape" else 1, np.nan if self.fault == "nan" else self.count, np.float32)
        picture = {} if self.fault == "missing" else {"picture": np.full((4, 4, 1), draw, np.uint8)}
        return {"inner": (draw, numbers), **picture}


class Hybrid(gym.Env):
    """One step: the observation, a Dict with a Tuple, shows the right action, of the same space; 0 is the best return.

    It checks its actions, stores the last one and changes it, so that a shared array would be noticed.
    """

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = spaces.Dict(
            move=spaces.Discrete(2, start=3),
            aim=spaces.Tuple((spaces.Box(-2, 2, (1, 1), np.float64), spaces.MultiBinary(2))),
            gears=spaces.MultiDiscrete([2, 3], start=[0, 5]),
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.asked = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.asked, {}

    def step(self, action: dict[str, Any]) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert self.action_space.contains(action), action
        assert isinstance(action["move"], np.integer)
        assert action["aim"][0].dtype == np.float64
        assert action["aim"][1].dtype == np.int8
        first, second = self.asked > 0
        wrong = [
            action["move"] - 3 != first,
            *(action["aim"][1] != [second, True]),
            *(action["gears"] - [0, 5] != [second, 2 * first]),
        ]
        error = np.abs(action["aim"][0] - self.asked[0]).sum()
        self.last = action
        self.last["aim"][0][:] += 100.0
        return self.asked, -float(np.sum(wrong) + error), True, False, {"move": int(action["move"])}

    def action_masks(self) -> np.ndarray:
        """The mask allows only the right move and the right first switch."""
        first, second = self.asked > 0
        return np.array([not first, first, not second, second, 1, 1, 1, 1, 1, 1, 1], np.int8)
