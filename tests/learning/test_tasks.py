"""Whole tasks through the command line; the committed table in benchmarks/learning has more seeds."""

import json
from pathlib import Path

import pytest

from parallel_rl import main


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "bar"),
    [
        ([], 475),
        (["--mode", "mask", "--use-rnd"], 400),
        (["--env-id", "Pendulum-v1"], -200),
        (["--env-id", "Acrobot-v1"], -100),
        (["--env-id", "MountainCar-v0", "--use-rnd"], -130),
        (["--env-id", "LunarLander-v3"], 200),
    ],
    ids=lambda value: " ".join(value) or "CartPole-v1" if isinstance(value, list) else "",
)
def test_the_task_is_learned(flags: list[str], bar: float, tmp_path: Path) -> None:
    assert main.main([*flags, "--run-dir", str(tmp_path / "run"), "--seed", "11"]) == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["evaluation"]["mean"] >= bar
