"""The package as `pip install` puts it in place, used from the directory of somebody's own project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

pytest.importorskip("setuptools", minversion="77", reason="a wheel is built with setuptools (requirements-dev.txt)")
ROOT = Path(__file__).parent.parent
TYPED = {"PPO", "AsyncPPO", "Rollouts", "OffPolicy", "Population", "parallel_rl"}
SOURCES = (*TYPED, "utils", "pyproject.toml", "README.md", "LICENSE")
HOSTILE = ("utils", "config", "networks", "commands", "presets", "main")
"""Names that somebody's own modules have, and that ours must not take for its own."""
RUN_BLOCKS = "import runpy, sys; [runpy.run_path(block, run_name='__main__') for block in sys.argv[1:]]"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    source = directory / "source"
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", directory, source],
        check=True,
        capture_output=True,
    )
    return next(directory.glob("*.whl"))


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("site")
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target", directory, wheel]
    subprocess.run(install, check=True, capture_output=True)
    return directory


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in HOSTILE:
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('{name}.py of the user was imported')\n")
    return tmp_path


def run(site: Path, project: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(project), str(site)])  # the user's modules come first, as beside a script
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PYTHONPATH": path}
    return subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=200, check=True
    )


def test_the_wheel_holds_the_packages_with_their_types_and_nothing_else(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert top == TYPED | {"utils"}
    assert {name for name in names if name.endswith("py.typed")} == {f"{package}/py.typed" for package in TYPED}


@pytest.mark.slow
def test_the_blocks_of_the_readme_run_installed_beside_modules_of_the_users_own(site: Path, project: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    paths = []
    for number, block in enumerate(blocks):
        paths.append(project / f"block_{number}.py")
        paths[-1].write_text(block.replace("100_000", "1_500"))
    paths.append(project / "imports.py")
    paths[-1].write_text("".join(f"import {package}\n" for package in sorted(TYPED)))
    run(site, project, sys.executable, "-c", RUN_BLOCKS, *paths)


@pytest.mark.slow
def test_the_installed_command_trains_beside_modules_of_the_users_own(site: Path, project: Path) -> None:
    flags = ["--steps", "1024", "--num-envs", "4", "--eval-every", "0", "--eval-episodes", "2", "--run-dir", "here"]
    done = run(site, project, site / "bin" / "parallel-rl", *flags)
    assert "parallel-rl resume here --steps" in done.stdout
    assert (project / "here" / "Policy_weights.pth").is_file()
    shown = run(site, project, site / "bin" / "parallel-rl", "--help").stdout
    assert "source <(parallel-rl --tyro-print-completion bash)" in shown
