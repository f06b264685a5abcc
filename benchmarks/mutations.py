"""Mutation testing: changes one operator, number or branch of a file at a time, and runs the tests of that file.

    python -m benchmarks.mutations PPO/losses.py utils --jobs 2 --every 5

A mutant that no test fails on is a survivor: a line that could be wrong without anybody noticing. Survivors are printed
with what was changed; some are harmless (an equivalent program, a limit on time, a message). Mutants whose tests take
too long are printed, too: some hang, which counts as caught.
"""

import ast
import copy
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
IGNORED = shutil.ignore_patterns(".git", ".venv", "__pycache__", "runs", ".*_cache", "*.png")
LIMIT_SECONDS = 900.0
"""Seconds that the tests of a mutant may take."""
SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip
"""Operators and their replacements."""
FURTHER_TESTS = {
    "PPO": ["tests/PPO"],
    "OffPolicy": ["tests/OffPolicy"],
    "AsyncPPO": ["tests/AsyncPPO", "tests/contracts"],
}
"""The tests of a package, besides those with the name of the file."""


@dataclass(frozen=True)
class Mutant:
    """A file with one change in it."""

    file: str
    line: int
    before: str
    after: str
    source: str


def mutants_of(file: Path) -> Iterator[Mutant]:
    """Yield every mutant of a file, in the order of its lines."""
    tree = ast.parse(file.read_text())
    for number, node in enumerate(ast.walk(tree)):
        for changed in _changes(node):
            mutated = copy.deepcopy(tree)
            target = next(other for index, other in enumerate(ast.walk(mutated)) if index == number)
            target.__dict__.update(changed)
            name = file.relative_to(ROOT).as_posix()
            yield Mutant(name, node.lineno, ast.unparse(node), ast.unparse(target), ast.unparse(mutated))  # type: ignore[attr-defined]


def _changes(node: ast.AST) -> Iterator[dict[str, object]]:
    """Yield the mutations of a node: new values of its fields."""
    match node:
        case ast.Compare(ops=[*operators]):
            for index, operator in enumerate(operators):
                if type(operator) in SWAPS:
                    yield {"ops": [*operators[:index], SWAPS[type(operator)](), *operators[index + 1 :]]}
        case ast.BinOp(op=operator) | ast.BoolOp(op=operator) | ast.AugAssign(op=operator) if type(operator) in SWAPS:
            yield {"op": SWAPS[type(operator)]()}
        case ast.UnaryOp(op=ast.USub()):
            yield {"op": ast.UAdd()}
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
            yield {"test": ast.UnaryOp(ast.Not(), test)}
        case ast.Constant(value=bool(value)):
            yield {"value": not value}
        case ast.Constant(value=int(value)):
            yield {"value": value + 1}
        case ast.Constant(value=float(value)):
            yield {"value": 2 * value or 1.0}


def tests_of(file: str) -> list[list[str]]:
    """Return the tests of a file: those of its name, and those to run if none of them fails."""
    path = Path(file)
    named = sorted(ROOT.glob(f"tests/**/test_{path.stem}*.py"))
    further = FURTHER_TESTS.get(path.parts[0], [f"tests/{path.parent.name}"])
    return [tests for tests in ([test.relative_to(ROOT).as_posix() for test in named], further) if tests]


def begin(mutant: Mutant, checkout: Path) -> int:
    """Start the tests on a mutant in a forked process, which has torch already; return its number."""
    (checkout / mutant.file).write_text(mutant.source)
    process = os.fork()
    if process:
        return process
    os.setsid()
    os.chdir(checkout)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    sys.path[:] = [str(checkout), *(path for path in sys.path if Path(path or ".").resolve() != ROOT)]
    import pytest

    options = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", "--rootdir", str(checkout)]
    os._exit(any(pytest.main([*options, *tests]) for tests in tests_of(mutant.file)))


def survivors_of(mutants: list[Mutant], jobs: int) -> Iterator[tuple[Mutant, bool]]:
    """Run the tests on mutants, some at a time; yield those that were not caught, and whether they took too long."""
    with tempfile.TemporaryDirectory() as directory:
        free = [Path(directory) / str(job) for job in range(jobs)]
        for checkout in free:
            shutil.copytree(ROOT, checkout, ignore=IGNORED)
        running: dict[int, tuple[Mutant, Path, float]] = {}
        waiting = list(reversed(mutants))
        with tqdm(total=len(mutants), unit="mutant") as bar:
            while waiting or running:
                while waiting and free:
                    mutant, checkout = waiting.pop(), free.pop()
                    running[begin(mutant, checkout)] = mutant, checkout, time.monotonic()
                process, status = os.waitpid(-1, os.WNOHANG)
                if not process:
                    time.sleep(0.02)
                    for late, (_, _, started) in running.items():
                        if time.monotonic() > started + LIMIT_SECONDS:
                            os.killpg(late, signal.SIGKILL)
                    continue
                mutant, checkout, _ = running.pop(process)
                shutil.copy(ROOT / mutant.file, checkout / mutant.file)
                free.append(checkout)
                bar.update()
                if (code := os.waitstatus_to_exitcode(status)) in (0, -signal.SIGKILL):
                    yield mutant, code != 0


def main(
    paths: tyro.conf.Positional[tuple[Path, ...]],
    jobs: Annotated[int, tyro.conf.arg(help="Tests that run at once.")] = 2,
    every: Annotated[int, tyro.conf.arg(help="Take each so many-th mutant only.")] = 1,
) -> None:
    """Print the survivors among the mutants of files, or of all files in directories."""
    import torch

    torch.set_num_threads(1)  # a forked process has none of the others
    files = [file for path in paths for file in ([path] if path.is_file() else sorted(path.rglob("*.py")))]
    mutants = [mutant for file in files for mutant in mutants_of(file.resolve())][::every]
    survivors = 0
    for mutant, is_late in survivors_of(mutants, jobs):
        survivors += not is_late
        before, after = (" ".join(text.split())[:100] for text in (mutant.before, mutant.after))
        tqdm.write(f"{mutant.file}:{mutant.line}: {before}  ->  {after}{'  (took too long)' if is_late else ''}")
    print(f"{len(mutants)} mutants, {survivors} survived")


if __name__ == "__main__":
    tyro.cli(main)
