"""The picture of a run for the README: the terminal's output and the learning curve.

python -m benchmarks.picture [FLAGS OF main.py]
"""

import os
import pty
import re
import shlex
import shutil
import sys
import textwrap
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread

from parallel_rl.commands.run_directory import CURVE_FILE

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "run.png"
RUN_DIR = Path("runs") / "lander"
"""Its directory, relative to `ROOT`; removed afterwards."""
COLUMNS = 112


def terminal_of(command: list[str]) -> list[str]:
    """Run a command in a terminal; return the lines on its screen at the end."""
    shown = bytearray()

    def read(descriptor: int) -> bytes:
        data = os.read(descriptor, 1024)
        shown.extend(data)
        return data

    os.environ |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    pty.spawn(["sh", "-c", f"stty cols {COLUMNS} rows 40 && exec {shlex.join(command)}"], read)
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", shown.decode())
    lines = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n")]
    return [part for line in lines for part in textwrap.wrap(line, COLUMNS, subsequent_indent=" " * 10)]


def main(flags: list[str]) -> None:
    """Make the picture."""
    os.chdir(ROOT)
    if RUN_DIR.exists():
        raise FileExistsError(f"{RUN_DIR} is in the way")
    command = ["python", "main.py", *flags, "--run-dir", str(RUN_DIR)]
    try:
        lines = [f"$ {shlex.join(command)}", *terminal_of(command)]
        curve = imread(RUN_DIR / CURVE_FILE)
    finally:
        shutil.rmtree(RUN_DIR, ignore_errors=True)
    figure = Figure(figsize=(10, 7.7), layout="constrained", facecolor="white")
    above, below = figure.subplots(2, 1, height_ratios=[1, 2.5])
    above.set_facecolor("#1e1e2e")
    above.text(
        0.01,
        0.5,
        "\n".join(lines),
        family="monospace",
        fontsize=8.8,
        color="#e0e0e0",
        va="center",
        transform=above.transAxes,
    )
    above.set(xticks=[], yticks=[])
    below.imshow(curve)
    below.axis("off")
    FigureCanvasAgg(figure).print_figure(str(PICTURE), dpi=130)


if __name__ == "__main__":
    main(sys.argv[1:] or ["--env-id", "LunarLander-v3"])
