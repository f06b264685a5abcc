"""Memory stays flat over many episodes."""

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from Population import Trainer
from tests.Population.toys import Adder, Line

ROOT = Path(__file__).parents[2]
EPISODES, STEPS = 400, 5
WIDE = 2500
"""Numbers in an observation: all steps of a member together are 40 MB."""


class Wide(Line):
    """Shows its position in many numbers."""

    def reset(self) -> Any:
        obs, info = super().reset()
        return np.full(WIDE, obs[0], float), info

    def step(self, action: Any) -> Any:
        obs, *rest = super().step(action)
        return np.full(WIDE, obs[0], float), *rest


def megabytes() -> float:
    """Return the memory of this process and its children."""
    pids = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6


def growth(mode: str, *, train: bool = True, keep: bool = False) -> float:
    """Return by how many megabytes four members and the main process grow after their first fifth."""
    seen: list[tuple[float, float]] = []
    schedule = [("finish", EPISODES, "episodes"), ("worker_send_data", 20, "episodes")]
    schedule += [("train_agent", 10, "episodes")] if train else []
    Trainer(
        Adder(), Wide(STEPS), 4, mode, schedule=schedule, sync_mode="sync", seed=0, progress=False,
        keep_experience=keep, callbacks=[lambda trainer: seen.append((trainer.count.episodes, megabytes()))],
    ).run()  # fmt: skip
    later = [memory for episodes, memory in seen if episodes >= 4 * EPISODES / 5]
    return max(later) - later[0]


@pytest.mark.slow
def test_memory_is_flat_over_many_episodes_of_each_member_unless_experience_is_kept() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    # a process of its own: here members could use memory that other tests have freed
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, check=True)
    *flat, kept = json.loads(done.stdout)
    assert len(flat) == 4
    assert max(flat) < 20
    assert kept > 80, "of 128"


if __name__ == "__main__":
    modes = "parallel_learning", "parallel_collecting"
    grown = [growth(mode, train=train) for mode in modes for train in (True, False)]
    print(json.dumps([*grown, growth("parallel_learning", keep=True)]))
