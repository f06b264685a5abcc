"""Measure on a quiet machine and write the table."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import tyro
from tqdm import tqdm

from benchmarks.throughput.stepping import CONTESTANTS, ENVS, measure


def main(
    envs: Sequence[str] = tuple(ENVS), sizes: Sequence[int] = (32, 128, 8), seconds: float = 1.0, rounds: int = 3
) -> None:
    """Measure `EnvVectorizer` beside the limit and Gymnasium's vectorizers; write `README.md` beside this file.

    Args:
        envs: which environments.
        sizes: how many copies of them.
        seconds: of each measurement.
        rounds: how often each contestant takes its turn; the table shows medians.
    """
    header = ["environment", "N", "limit, steps/s", *CONTESTANTS]
    lines = [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    for num_envs, name in tqdm([(num_envs, name) for num_envs in sizes for name in envs], unit="row"):
        rates = measure(ENVS[name], num_envs, seconds, rounds)
        shares = [f"{rates[contestant] / rates['limit']:.0%}" for contestant in CONTESTANTS]
        lines.append(f"| {name} | {num_envs} | {rates['limit']:,.0f} | {' | '.join(shares)} |")
    page = f"""# How fast environments are stepped

Made by `python -m benchmarks.throughput` on a quiet machine: {os.cpu_count()} cores ({platform.machine()}), Python
{platform.python_version()}. The limit is a process per core, each looping over its own environments and exchanging
nothing; the others are shares of it, under random actions, medians of {rounds} turns of {seconds:g} s each.

{chr(10).join(lines)}
"""
    (Path(__file__).parent / "README.md").write_text(page)
    print(page)


if __name__ == "__main__":
    tyro.cli(main)
