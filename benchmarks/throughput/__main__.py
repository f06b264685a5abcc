"""Measure on an idle machine and write the tables."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import tyro
from tqdm import tqdm

from benchmarks.throughput import stepping, training


def stepping_table(envs: Sequence[str], sizes: Sequence[int], seconds: float, rounds: int) -> str:
    """Return a table with the fraction of the limit that vectorized environments reach."""
    header = ["environment", "N", "limit, steps/s", *stepping.CONTESTANTS]
    lines = [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    rows = [(num_envs, name) for num_envs in sizes for name in envs if stepping.can_be_timed(name, num_envs)]
    for num_envs, name in tqdm(rows, unit="row"):
        rates = stepping.measure(stepping.ENVS[name], num_envs, seconds, rounds)
        shares = [f"{rates[contestant] / rates['limit']:.0%}" for contestant in stepping.CONTESTANTS]
        lines.append(f"| {name} | {num_envs} | {rates['limit']:,.0f} | {' | '.join(shares)} |")
    return "\n".join(lines)


def training_table(env_ids: Sequence[str], steps: int, rounds: int) -> str:
    """Return a table with the steps per second of training with PPO."""
    peers = [name for name in training.CONTESTANTS if name in training.PEERS]
    header = ["task", *training.CONTESTANTS, *(["ours / fastest peer"] if peers else [])]
    lines = [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    for env_id, (name, shape) in tqdm([(e, shape) for e in env_ids for shape in training.SHAPES.items()], unit="row"):
        rates = training.measure(env_id, shape, steps, rounds)
        cells = [f"{rate:,.0f}" for rate in rates.values()]
        if peers:
            cells.append(f"{rates['ours'] / max(rates[peer] for peer in peers):.2f}")
        lines.append(f"| {env_id}, {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(
    envs: Sequence[str] = tuple(stepping.ENVS),
    sizes: Sequence[int] = (32, 128, 8, 4, 2),
    seconds: float = 1.0,
    rounds: int = 3,
    train: Sequence[str] = training.TASKS,
    steps: int = 100_000,
) -> None:
    """Measure stepping and training, ours and other installed libraries; write `README.md` next to this file.

    Args:
        envs: the environments to step.
        sizes: the numbers of parallel environments.
        seconds: of each measurement of stepping.
        rounds: the number of measurements of each contestant; the tables show medians.
        train: the tasks to train on.
        steps: of each measurement of training.
    """
    page = f"""# Speed

Made by `python -m benchmarks.throughput` on a quiet machine: {os.cpu_count()} cores ({platform.machine()}), Python
{platform.python_version()}. Medians of {rounds} turns; compare figures of one row, not of different machines.
[performance.md](../../docs/performance.md#the-tables-of-benchmarksthroughput) has notes and further measurements.

## Stepping environments

The limit is the speed of plain loops without communication: one process for each core (if environments sleep: for each
environment) steps its share of the environments. The other columns are percentages of the limit. Actions are random,
and a turn takes {seconds:g} s.

{stepping_table(envs, sizes, seconds, rounds)}

## Training

These are training steps per second, including updates. A turn takes {steps:,} steps. Networks are separate for actor
and critic, 64x64 tanh, and nothing is rendered. Wide: 32 environments x 64 steps, minibatch 512, 4 epochs. Small: 8 x
256, minibatch 64, 10 epochs. The first five columns are ours: with all automatic choices; in one process; with
central inference at every step; with autograd gradients; and the README's custom loop.

{training_table(train, steps, rounds)}
"""
    (Path(__file__).parent / "README.md").write_text(page)
    print(page)


if __name__ == "__main__":
    tyro.cli(main)
