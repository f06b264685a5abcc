"""What people copy must run as it stands: the seed's two loops, and every Python block of our README and docs."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL), 1)
]


def run(script: Path, directory: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'stubs'}",
        "PYTHONWARNINGS": "error::DeprecationWarning:__main__",
    }
    done = subprocess.run(
        [sys.executable, script],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return done


def test_the_quick_start_of_the_seed_learns(tmp_path: Path) -> None:
    done = run(ROOT / "tests/seed_snippets/quick_start.py", tmp_path)
    returns = re.findall(r"mean return (\d+\.\d)", done.stderr)
    assert float(returns[-1]) >= 300, "an unlucky seed; most reach 500 (benchmarks/learning)"
    saved = list(tmp_path.rglob("Policy_weights.pth"))
    assert [str(path.relative_to(tmp_path)) for path in saved] == [
        "(insert your path)/Parallel-Reinforcement-Learning/PPO/data/Policy_weights.pth"
    ]


def test_the_custom_loop_of_the_seed_learns(tmp_path: Path) -> None:
    done = run(ROOT / "tests/seed_snippets/custom_loop.py", tmp_path)
    returns = [float(value) for value in re.findall(r"Mean reward\s+(\d+\.\d)", done.stderr)]
    iterations = [value for index, value in enumerate(returns) if index == 0 or value != returns[index - 1]]
    assert max(iterations) >= 400
    assert max(iterations) > 10 * iterations[0]


def test_the_rollout_of_the_seed_runs(tmp_path: Path) -> None:
    run(ROOT / "tests/seed_snippets/rollouts.py", tmp_path)
    run(ROOT / "tests/seed_snippets/rollouts_actor.py", tmp_path)


def test_the_population_of_the_seed_learns(tmp_path: Path) -> None:
    run(ROOT / "tests/seed_snippets/population_agent.py", tmp_path)
    run(ROOT / "tests/seed_snippets/population_env.py", tmp_path)
    done = run(ROOT / "tests/seed_snippets/population.py", tmp_path)
    assert re.findall(r"mean return (.*?):", done.stderr)[-1] == "1.0, 1.0, 1.0, 1.0"


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.filterwarnings("error::DeprecationWarning:__main__")
def test_every_block_of_the_docs_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "tests" / "stubs")
    script = Path("block.py")
    script.write_text(re.sub(r"\b[1-9]00_000\b", "10_000", block))  # the tests above ask whether they learn
    runpy.run_path(str(script), run_name="__main__")
