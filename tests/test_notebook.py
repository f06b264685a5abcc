"""The notebook of the docs runs from top to bottom, and bars suit the place that they are shown in."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parent.parent / "docs" / "quickstart.ipynb"
IN_A_NOTEBOOK = """
import sys
from types import ModuleType, SimpleNamespace
ipython = sys.modules["IPython"] = ModuleType("IPython")
ipython.get_ipython = lambda: SimpleNamespace()
sys.modules["ipykernel.zmqshell"] = ModuleType("zmqshell")
from AsyncPPO.progress import Bar
bar = Bar(total=2)
bar.update(2)
bar.close()
"""


def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook = json.loads(NOTEBOOK.read_text())
    assert notebook["nbformat"] == 4
    names: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells):
        assert not cell["outputs"], "outputs are not committed"
        text = "".join(cell["source"]).replace("100_000", "3_000").replace("episodes=100", "episodes=2")
        exec(compile(text, f"cell {number}", "exec"), names)
    assert len(names["history"]) >= 2
    assert names["returns"].shape == (2,)
    assert len(names["scores"]) >= 2
    assert names["ppo"].updates >= 1


def test_in_a_notebook_the_bar_is_the_notebooks_and_elsewhere_the_terminals() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_A_NOTEBOOK], capture_output=True, text=True, timeout=120, check=True
    )
    assert "IProgress not found" in done.stderr, "tqdm looks for the notebook's widgets, which are not installed"
    script = "import sys, AsyncPPO.progress; print([name for name in sys.modules if name in ('tqdm.auto', 'asyncio')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "[]\n"
