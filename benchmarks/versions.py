"""The speed of training of two versions of this project: `python -m benchmarks.versions OLD NEW`, two checkouts.

Both train at the same time, and take turns of a quarter of a second: one is stopped while the other runs. So both have
the same machine, however its speed changes, and ratios repeat within a few percent. Each case runs twice, with the
turns in either order. It needs a system with SIGSTOP, such as Linux or macOS.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from tqdm import tqdm

from parallel_rl.commands.stopping import ended_by_signals

TURN = 0.25
"""Seconds."""
WARM = "warm"
"""What a program prints when its warm-up is over."""
PROGRAM = f"""
import sys
import gymnasium as gym
from AsyncPPO import AsyncPPO
from PPO import PPO

env_id, steps, settings, run = eval(sys.argv[1])
ppo = PPO.for_env(gym.make(env_id), seed=0, **settings)
with AsyncPPO(env_id, ppo, steps=steps // 4, seed=0, progress=False, **run) as trainer:
    trainer.run()
    print({WARM!r}, flush=True)
    trainer.steps = steps
    trainer.run()
"""
WIDE = {"batch_size": 2048, "mini_batch_size": 512, "k_epochs": 4, "lr": 3e-4}
SMALL = {"batch_size": 2048, "mini_batch_size": 64, "k_epochs": 10, "lr": 3e-4}
CASES = {
    "CartPole, wide": ("CartPole-v1", 300_000, WIDE, {"num_envs": 32}),
    "CartPole, small": ("CartPole-v1", 100_000, SMALL, {"num_envs": 8}),
    "CartPole, one process": ("CartPole-v1", 150_000, WIDE, {"num_envs": 32, "backend": "inline"}),
    "CartPole, central": ("CartPole-v1", 100_000, WIDE, {"num_envs": 32, "acting": "central"}),
    "CartPole, RND": ("CartPole-v1", 60_000, WIDE | {"use_RND": True}, {"num_envs": 32}),
    "CartPole, GRU": ("CartPole-v1", 40_000, WIDE | {"core": "gru"}, {"num_envs": 32}),
    "Pendulum, wide": ("Pendulum-v1", 200_000, WIDE, {"num_envs": 32}),
    "LunarLander, wide": ("LunarLander-v3", 100_000, WIDE, {"num_envs": 32}),
    "LunarLander, small": ("LunarLander-v3", 60_000, SMALL, {"num_envs": 8}),
}
"""By name: environment, steps, settings of PPO, and of the run."""


@dataclass
class Run:
    """A training in a checkout, in a process group that can be stopped."""

    process: "subprocess.Popen[bytes]"
    output: int
    """A pipe, readable after the warm-up."""
    seconds: float = 0.0
    """For which it ran."""
    start: float = 0.0
    """Seconds of them until its warm-up was over."""

    @classmethod
    def stopped(cls, checkout: Path, case: str) -> "Run":
        """Start a case, and stop it before it imports anything."""
        command = [sys.executable, "-c", PROGRAM, repr(CASES[case])]
        environment = {**os.environ, "PYTHONPATH": str(checkout)}
        output, given = os.pipe()
        os.set_blocking(output, False)
        process = subprocess.Popen(command, cwd=checkout, env=environment, stdout=given, start_new_session=True)
        os.close(given)
        os.killpg(process.pid, signal.SIGSTOP)
        return cls(process, output)

    def take_turn(self) -> None:
        """Let it run for one turn, or to its end."""
        os.killpg(self.process.pid, signal.SIGCONT)
        begin = time.perf_counter()
        try:
            self.process.wait(TURN)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGSTOP)
        self.seconds += time.perf_counter() - begin
        with contextlib.suppress(BlockingIOError):
            if not self.start and os.read(self.output, len(WARM)):
                self.start = self.seconds

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.process.poll() is not None


def compare(checkouts: tuple[Path, Path], case: str) -> tuple[float, float]:
    """Return the ratio of speeds, and of the times until the warm-up is over, of the second checkout to the first.

    Raises:
        RuntimeError: a training failed.
    """
    runs: list[Run] = []
    try:
        for checkout in checkouts:
            runs.append(Run.stopped(checkout, case))
        while not all(run.ended for run in runs):
            for run in runs:
                if not run.ended:
                    run.take_turn()
    finally:
        for run in runs:
            os.close(run.output)
            if not run.ended:
                os.killpg(run.process.pid, signal.SIGKILL)
                run.process.wait()
    for run, checkout in zip(runs, checkouts, strict=True):
        if run.process.returncode or not run.start:
            raise RuntimeError(f"training in {checkout} failed ({case})")
    old, new = runs
    return (old.seconds - old.start) / (new.seconds - new.start), old.start / new.start


def main(
    old: tyro.conf.Positional[Path], new: tyro.conf.Positional[Path] = Path(), cases: tuple[str, ...] = tuple(CASES)
) -> None:
    """Print how fast the new version trains, as a ratio to the old one.

    Args:
        old: directory of the old checkout.
        new: directory of the new checkout; by default this one.
        cases: names of cases; by default all.
    """
    pair = (old.resolve(), new.resolve())
    print("| case | training, new / old | start and warm-up, new / old |\n| --- | --- | --- |")
    with ended_by_signals():  # otherwise SIGTERM would leave the stopped training behind
        for case in tqdm(cases, unit="case"):
            speed, start = compare(pair, case)
            speed_back, start_back = compare(pair[::-1], case)
            print(f"| {case} | {np.sqrt(speed / speed_back):.3f} | {np.sqrt(start / start_back):.3f} |", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
