"""What people copy must run as it stands: the seed's loops, and every Python block of our README and docs."""

import logging
import re
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path) -> list[str]:
    """Return the Python blocks of a page."""
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


BLOCKS = [
    pytest.param(block, id=f"{page.name}-{number}") for page in PAGES for number, block in enumerate(blocks(page), 1)
]
OPTIONAL = ("optuna", "onnxruntime")
"""Libraries of examples that not every installation has."""
OWN_UPDATE = ("buffer_to_target_buffer_transfer(buffer, ppo.memory)", "def learn(ppo, optimizer)")
"""In the README: the custom loop, and an update for it."""
Run = Callable[[str], str]
pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning:__main__")


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> Run:
    """Return a function that runs a text as a script, and returns its output on standard error."""
    caplog.set_level(logging.NOTSET, "AsyncPPO")  # puts back the level that a script sets
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "tests" / "stubs")

    def run(text: str) -> str:
        script = tmp_path / "script.py"  # absolute: a fork server of an earlier test has another working directory
        script.write_text(text)
        runpy.run_path(str(script), run_name="__main__")
        errors = capfd.readouterr().err
        assert "Traceback" not in errors
        return errors

    return run


def snippet(name: str, old: str | None = None, new: str = "") -> str:
    """Return a snippet of the seed as it stands, but for the length of its run if `old` is replaced."""
    text = (ROOT / "tests/seed_snippets" / name).read_text()
    if old is None:
        return text
    assert text.count(old) == 1
    return text.replace(old, new)


@pytest.mark.parametrize(("steps", "least"), [(30_000, 60), pytest.param(100_000, 300, marks=pytest.mark.slow)])
def test_the_quick_start_of_the_seed_learns(
    run: Run, tmp_path: Path, steps: int, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("AsyncPPO.progress.FIRST_LINE", 0.0)
    returns = re.findall(r"mean return (\d+\.\d)", run(snippet("quick_start.py", "100000", str(steps))))
    assert float(returns[-1]) >= least, "an unlucky seed; most reach 500 in 100,000 steps (benchmarks/learning)"
    assert float(returns[-1]) > 2 * float(returns[0])
    saved = list(tmp_path.rglob("Policy_weights.pth"))
    assert [str(path.relative_to(tmp_path)) for path in saved] == [
        "(insert your path)/Parallel-Reinforcement-Learning/PPO/data/Policy_weights.pth"
    ]


@pytest.mark.parametrize(("steps", "least"), [(10_000, 60), pytest.param(100_000, 400, marks=pytest.mark.slow)])
def test_the_custom_loop_of_the_seed_learns(run: Run, steps: int, least: float) -> None:
    errors = run(snippet("custom_loop.py", "100000", str(steps)))
    returns = [float(value) for value in re.findall(r"Mean reward\s+(\d+\.\d)", errors)]
    assert max(returns) >= least
    assert max(returns) > 2 * returns[0]


def test_the_update_in_the_readme_takes_gradient_steps_in_its_custom_loop(run: Run) -> None:
    loop, update = (block for block in blocks(ROOT / "README.md") if any(name in block for name in OWN_UPDATE))
    for old, new in (
        ("100_000", "1_000"),
        ("num_envs=32)\n    ppo", 'num_envs=32, backend="inline")\n    ppo'),
        ("    buffer = ", "    optimizer = torch.optim.Adam(ppo.parameters())\n    buffer = "),
        ("ppo.learn() ", "learn(ppo, optimizer) "),
        ("env.close()", "env.close()\n    assert len(optimizer.state) == len(ppo.parameters())"),
    ):
        assert loop.count(old) == 1
        loop = loop.replace(old, new)
    run(update + loop)


@pytest.mark.parametrize("fragments", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_the_rollout_of_the_seed_runs(run: Run, fragments: int) -> None:
    run(snippet("rollouts.py", "range(100)", f"range({fragments})"))


def test_the_actor_of_the_seed_can_be_written(run: Run) -> None:
    run((ROOT / "tests/seed_snippets/rollouts_actor.py").read_text())


def test_the_population_of_the_seed_learns(run: Run) -> None:
    run(snippet("population_agent.py"))
    run(snippet("population_env.py"))
    printed = run(snippet("population.py"))
    assert re.findall(r"mean return (.*?):", printed)[-1] == "1.0, 1.0, 1.0, 1.0"


@pytest.mark.slow
def test_the_population_of_the_seed_learns_lunar_lander(run: Run) -> None:
    """Random actions have a mean return of about -180."""
    check = """
first, last = (
    sum(sum(worker["rewards"][part]) for worker in result["workers"]) / 200 for part in (slice(50), slice(-50, None))
)
assert last > first + 30, (first, last)
"""
    run(snippet("population.py", "from prlearn_parts", "from prlearn_lander") + check)


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_of_the_docs_runs(run: Run, block: str) -> None:
    for name in OPTIONAL:
        if f"import {name}\n" in block:
            pytest.importorskip(name)
    if "assert" not in block:  # the tests above ask whether they learn
        block = re.sub(r"\b\d+_(000|240)\b", "1_100", block)
        block = re.sub(r'\("finish", \d+, "episodes"\)', '("finish", 80, "episodes")', block)
        block = re.sub(r"updates = 8, 128, \d+", "updates = 8, 32, 2", block)
        block = block.replace("range(200)", "range(20)")
    run(re.sub(r"\b\d+0_000\b", "2_000", block))
