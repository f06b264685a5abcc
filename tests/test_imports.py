"""Imports flow one way, and importing does nothing else."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = {"PPO", "AsyncPPO", "networks", "utils", "main", "commands", "config", "presets", "tests", "benchmarks"}
ALLOWED = {
    "AsyncPPO/trainer.py": {"PPO", "AsyncPPO", "utils"},
    "AsyncPPO": {"AsyncPPO", "utils"},
    "PPO": {"PPO", "networks", "utils"},
    "networks": {"networks", "utils"},
    "utils": {"utils"},
}


def imported(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            names.add(node.module or "")
    return {name.split(".")[0] for name in names} & OURS


@pytest.mark.parametrize("package", ["AsyncPPO", "PPO", "networks", "utils"])
def test_imports_flow_one_way(package: str) -> None:
    for file in (ROOT / package).rglob("*.py"):
        path = file.relative_to(ROOT).as_posix()
        allowed = ALLOWED.get(path, ALLOWED[package])
        assert imported(file) <= allowed, f"{path} imports {imported(file) - allowed}"


@pytest.mark.parametrize("module", ["PPO", "AsyncPPO", "networks", "utils", "main", "AsyncPPO.trainer", "PPO.export"])
def test_importing_prints_nothing_and_leaves_random_states_alone(module: str) -> None:
    script = (
        "import random, numpy as np; random.seed(1); np.random.seed(1); "
        "before = (random.getstate(), np.random.get_state()[1].tolist()); "
        f"import {module}; assert before == (random.getstate(), np.random.get_state()[1].tolist())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("", "")


def test_the_collector_and_the_command_line_need_no_torch() -> None:
    script = "import sys, main, AsyncPPO, utils; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
