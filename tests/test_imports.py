"""Imports flow one way, and importing does nothing else."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOP = {"PPO", "AsyncPPO", "Rollouts", "OffPolicy", "Population", "utils", "main", "tests", "benchmarks"}
NETWORKS, UTILS = "parallel_rl.networks", "parallel_rl.utils"
ALLOWED = {
    "AsyncPPO": {"AsyncPPO", UTILS},
    "PPO": {"PPO", NETWORKS, UTILS},
    "OffPolicy": {"OffPolicy", NETWORKS, UTILS},
    "Rollouts": {"Rollouts", "AsyncPPO", UTILS},
    "Population": {"Population", "AsyncPPO", UTILS},
    "parallel_rl/networks": {NETWORKS, UTILS},
    "parallel_rl/utils": {UTILS},
    "parallel_rl/ranks": {"parallel_rl.ranks", UTILS},
    "parallel_rl/commands": {"PPO", "AsyncPPO", "Population", "parallel_rl"},
}
"""Which of our packages a package may import; a test or a benchmark may import all."""
MODULES = [
    "PPO",
    "AsyncPPO",
    "Rollouts",
    "OffPolicy",
    "Population",
    NETWORKS,
    UTILS,
    "utils",
    "main",
    "AsyncPPO.trainer",
    "parallel_rl.networks.export",
    "parallel_rl.ranks",
]
IMPORTS = """
import importlib, os, random, sys
import numpy as np

def states():
    return random.getstate(), np.random.get_state()[1].tolist()

random.seed(1)
np.random.seed(1)
if len(sys.argv) > 2:
    import gymnasium, torch, tyro, matplotlib.pyplot, tensorboardX, threadpoolctl, safetensors, cloudpickle
for module in sys.argv[1:]:
    child = os.fork()
    if not child:
        before = states()
        importlib.import_module(module)
        assert states() == before, module
        sys.stdout.flush()
        os._exit(0)  # an orderly exit takes longer than the import
    assert os.waitpid(child, 0)[1] == 0, module
"""
"""Imports each of some modules, where none of ours has been imported before."""


def imported(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    ours = {name for name in names if name.split(".")[0] in TOP | {"parallel_rl"}}
    return {".".join(name.split(".")[:2]) if name.startswith("parallel_rl") else name.split(".")[0] for name in ours}


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_flow_one_way(package: str) -> None:
    for file in (ROOT / package).rglob("*.py"):
        path = file.relative_to(ROOT).as_posix()
        allowed = ALLOWED[package]
        foreign = {name for name in imported(file) if name not in allowed and name.split(".")[0] not in allowed}
        assert not foreign, f"{path} imports {foreign}"


@pytest.mark.parametrize(
    "modules", [MODULES[:1], MODULES[1:]], ids=["torch and its warnings too", "each first, after what is not ours"]
)
def test_importing_prints_nothing_and_leaves_random_states_alone(modules: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, *modules], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_a_folder_utils_of_the_users_own_is_not_hidden(tmp_path: Path) -> None:
    (tmp_path / "utils").mkdir()
    (tmp_path / "utils" / "helper.py").write_text("answer = 42")
    script = "from utils.helper import answer; from utils import buffer_append; assert answer == 42"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, env=environment)


def test_the_collector_and_the_command_line_need_neither_torch_nor_ray() -> None:
    script = "import sys, main, AsyncPPO, OffPolicy, Population, utils; assert not {'torch', 'ray'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
