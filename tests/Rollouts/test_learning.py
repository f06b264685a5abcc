"""The programs of docs/rollouts.md learn what they are for."""

import contextlib
import io
import re
import runpy
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "rollouts.md"
A2C, RECURRENT, DOUBLE_DQN = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def mean_return(program: str, seed: int, directory: Path) -> float:
    """Return what a program prints at its end, with another seed."""
    script = directory / "program.py"
    other, count = re.subn(r"(seed, steps, num_envs, n_steps = )0,", rf"\g<1>{seed},", program)
    assert count == 1
    script.write_text(other)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        runpy.run_path(str(script), run_name="__main__")
    return float(printed.getvalue().splitlines()[-1])


@pytest.mark.parametrize("seed", range(5))
def test_a2c_solves_cartpole(seed: int, tmp_path: Path) -> None:
    assert mean_return(A2C, seed, tmp_path) >= 475


@pytest.mark.parametrize("seed", range(3))
def test_a_recurrent_actor_recalls_what_a_feed_forward_one_cannot(seed: int, tmp_path: Path) -> None:
    forgetful = RECURRENT.replace("memory * ~begins[:, None]", "memory * 0")
    assert forgetful != RECURRENT
    assert mean_return(RECURRENT, seed, tmp_path) >= 0.95
    assert mean_return(forgetful, seed, tmp_path) <= 0.65


@pytest.mark.parametrize("seed", range(3))
def test_double_dqn_learns_cartpole(seed: int, tmp_path: Path) -> None:
    assert mean_return(DOUBLE_DQN, seed, tmp_path) >= 400
