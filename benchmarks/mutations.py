"""Mutation testing: changes one operator, number, branch or call at a time, and runs the tests that call its function.

    python -m benchmarks.mutations results.jsonl PPO/losses.py parallel_rl/utils --every 5
    python -m benchmarks.mutations results.jsonl > benchmarks/mutations.md

A mutant that no test fails on is a survivor: a line that could be wrong without anybody noticing.

First, all tests run once, and `results.calls` notes which functions each of them calls. A mutant gets the tests that
call its function, beginning with those named after its file and those that call little else, until one fails.
`results.jsonl` gets a line for each mutant, with an empty `verdict`, to be filled in by hand if no test failed. A run
that was stopped goes on; to test a mutant again, delete its line. Without files, the results are printed as a table.
"""

import ast
import copy
import gc
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import pytest
import tyro
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
PACKAGES = ("AsyncPPO", "OffPolicy", "PPO", "Population", "Rollouts", "parallel_rl")
TESTS = [f"tests/{name}" for name in (*PACKAGES[:-1], "contracts", "networks", "utils")]
IGNORED = shutil.ignore_patterns(".git", ".venv", "__pycache__", "runs", ".*_cache", "*.png")
LIMIT_SECONDS = 180.0
"""After which a mutant is stopped; most of those hang."""
SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip
"""Operators and their replacements."""
NAMES = {"min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum"}
"""Functions and their replacements."""
KEY = ("file", "function", "before", "after")


@dataclass(frozen=True)
class Mutant:
    """A file with one change in it."""

    file: str
    function: str
    """The function or method, or "" outside of any."""
    line: int
    before: str
    after: str
    source: str

    def key(self) -> tuple[str, ...]:
        """Return what names the mutant; its line may move."""
        return tuple(getattr(self, name) for name in KEY)


def mutants_of(file: str) -> Iterator[Mutant]:
    """Yield every mutant of a file, but for its annotations and error messages."""
    tree = ast.parse((ROOT / file).read_text())
    lines = ast.unparse(tree).splitlines()
    for number, (function, node) in enumerate(_walk(tree)):
        for changed in _changes(node):
            mutated = copy.deepcopy(tree)
            target = next(other for index, (_, other) in enumerate(_walk(mutated)) if index == number)
            if isinstance(changed, ast.AST):
                target.__class__ = type(changed)
            else:
                target.__dict__.update(changed)
            source = ast.unparse(mutated)
            before, after = next(pair for pair in zip(lines, source.splitlines(), strict=False) if pair[0] != pair[1])
            yield Mutant(file, function, node.lineno, before.strip(), after.strip(), source)


def _walk(node: ast.AST, function: str = "", is_inside: bool = False) -> Iterator[tuple[str, Any]]:
    """Yield the nodes under a node, each with the name of its outermost function."""
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, ast.Raise) or name in ("annotation", "returns"):
                continue
            inner = function
            if isinstance(child, ast.ClassDef | ast.FunctionDef) and not is_inside:
                inner = f"{function}.{child.name}".lstrip(".")
            yield inner, child
            yield from _walk(child, inner, is_inside or isinstance(child, ast.FunctionDef))


def _changes(node: ast.AST) -> Iterator[dict[str, Any] | ast.AST]:
    """Yield the mutations of a node: new values of its fields, or a node in its place."""
    match node:
        case ast.Compare(ops=[*operators]):
            for index, operator in enumerate(operators):
                if type(operator) in SWAPS:
                    yield {"ops": [*operators[:index], SWAPS[type(operator)](), *operators[index + 1 :]]}
        case ast.BinOp(op=operator) | ast.BoolOp(op=operator) | ast.AugAssign(op=operator) if type(operator) in SWAPS:
            yield {"op": SWAPS[type(operator)]()}
        case ast.UnaryOp(op=ast.USub()):
            yield {"op": ast.UAdd()}
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test) if not isinstance(test, ast.Compare):
            yield {"test": ast.UnaryOp(ast.Not(), test)}
        case ast.Constant(value=bool(value)):
            yield {"value": not value}
        case ast.Constant(value=int(value)):
            yield {"value": value + 1}
        case ast.Constant(value=float(value)):
            yield {"value": 2 * value or 1.0}
        case ast.Name(id=name) if name in NAMES:
            yield {"id": NAMES[name]}
        case ast.Attribute(attr=name) if name in NAMES:
            yield {"attr": NAMES[name]}
        case ast.Expr(value=ast.Call()):
            yield ast.Pass()


class Recorder:
    """A pytest plugin: writes which functions of the checkout each test calls, in its forked processes, too."""

    def __init__(self, path: Path) -> None:
        """Append to a file."""
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._ours = tuple(f"{Path.cwd()}/{package}/" for package in PACKAGES)
        self._seen: set[int] = set()
        self._passed = True

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Note the calls of a test and its fixtures, and how long it took."""
        self._seen, self._passed, started = set(), True, _seconds()
        self._test = item.nodeid
        threading.setprofile(self._note)
        sys.setprofile(self._note)
        try:
            return (yield)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
            self._write([_seconds() - started, self._passed])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note whether the test passed."""
        self._passed &= not report.failed

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and id(code) not in self._seen:
            self._seen.add(id(code))
            if code.co_filename.startswith(self._ours):
                self._write([os.path.relpath(code.co_filename), code.co_qualname.split(".<locals>")[0]])

    def _write(self, entry: list[Any]) -> None:
        os.write(self._file, (json.dumps([self._test, *entry]) + "\n").encode())


def _seconds() -> float:
    """Return the computing time of this process and of the processes that it has waited for."""
    return sum(os.times()[:4])


Calls = dict[str, tuple[float, set[tuple[str, str]]]]
"""By test: its seconds, and the files and functions of ours that it calls."""


def read_calls(path: Path) -> Calls:
    """Return the calls of the tests that passed."""
    calls: dict[str, set[tuple[str, str]]] = defaultdict(set)
    seconds: dict[str, float] = {}
    for line in path.read_text().splitlines():
        match json.loads(line):
            case [test, str(file), str(function)]:
                calls[test].add((file, function))
            case [test, float(duration), True]:
                seconds[test] = duration
    return {test: (duration, calls[test]) for test, duration in seconds.items()}


def tests_of(mutant: Mutant, calls: Calls, seconds: float) -> list[str]:
    """Return the tests that call the function of a mutant; outside of a function, those that call any of its file."""
    callers = {test for test, (_, called) in calls.items() if (mutant.file, mutant.function) in called}
    if not callers:
        callers = {test for test, (_, called) in calls.items() if mutant.file in (file for file, _ in called)}
    path = Path(mutant.file)
    names = (f"test_{path.stem}", f"test_{path.parent.name}")
    chosen: list[str] = []
    for test in sorted(callers, key=lambda test: (not any(name in test for name in names), len(calls[test][1]))):
        seconds -= calls[test][0]
        if not chosen or seconds > 0:
            chosen.append(test)
    return chosen


@contextmanager
def checkouts(number: int) -> Iterator[list[Path]]:
    """Make copies of the repository, with its files written as those of mutants are."""
    with tempfile.TemporaryDirectory() as directory:
        copies = [Path(directory) / str(index) for index in range(number)]
        for checkout in copies:
            shutil.copytree(ROOT, checkout, ignore=IGNORED)
            for package in PACKAGES:
                for file in (checkout / package).rglob("*.py"):
                    file.write_text(ast.unparse(ast.parse(file.read_text())))
                    os.utime(file, (0, 0))
        yield copies


def load_libraries() -> None:
    """Import what tests import, for the processes forked from this one."""
    import gymnasium  # noqa: F401
    import hypothesis  # noqa: F401
    import torch._dynamo

    torch.set_num_threads(1)  # a forked process has none of the others
    gc.collect()
    gc.freeze()


def begin(checkout: Path, options: list[str], plugins: Sequence[object] = ()) -> int:
    """Start tests in a forked process, which has the libraries already, but nothing of ours; return its number."""
    process = os.fork()
    if process:
        return process
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.chdir(checkout)
    sys.dont_write_bytecode = False
    sys.path[:] = [str(checkout), *(path for path in sys.path if Path(path or ".").resolve() != ROOT)]
    os._exit(pytest.main(["-p", "no:cacheprovider", "-m", "not slow", "--rootdir", str(checkout), *options], plugins))


def outcomes_of(mutants: list[Mutant], calls: Calls, seconds: float, free: list[Path]) -> Iterator[tuple[Mutant, str]]:
    """Run the tests of mutants, one in each checkout at a time; yield what became of each."""
    running: dict[int, tuple[Mutant, Path, float]] = {}
    waiting = list(enumerate(mutants, start=1))[::-1]
    while waiting or running:
        while waiting and free:
            (number, mutant), checkout = waiting.pop(), free.pop()
            if not (tests := tests_of(mutant, calls, seconds)):
                free.append(checkout)
                yield mutant, "not tested"
                continue
            shutil.copy2(checkout / mutant.file, checkout / "unchanged")
            (checkout / mutant.file).write_text(mutant.source)
            os.utime(checkout / mutant.file, (number, number))  # the compiled file of another is not taken for its own
            running[begin(checkout, ["-x", *tests])] = mutant, checkout, time.monotonic()
        for late in [
            process for process, (_, _, started) in running.items() if time.monotonic() > started + LIMIT_SECONDS
        ]:
            os.killpg(late, signal.SIGKILL)
        process, status = os.waitpid(-1, os.WNOHANG) if running else (0, 0)
        if not process:
            time.sleep(0.01)
            continue
        mutant, checkout, _ = running.pop(process)
        shutil.copy2(checkout / "unchanged", checkout / mutant.file)
        free.append(checkout)
        code = os.waitstatus_to_exitcode(status)
        yield mutant, "survived" if code == 0 else "too slow" if code == -signal.SIGKILL else "caught"


def report(results: list[dict[str, Any]]) -> None:
    """Print a table of the results, and the mutants that were not caught."""
    print("# Mutation testing\n\nMade by `python -m benchmarks.mutations`, which says how.\n")
    outcomes = ("caught", "survived", "too slow", "not tested")
    print("| file | mutants |", " | ".join(outcomes), "|\n| --- |", "---: | " * (1 + len(outcomes)))
    by_file: dict[str, Counter[str]] = defaultdict(Counter)
    for result in results:
        by_file[result["file"]][result["outcome"]] += 1
    for file, counts in [*by_file.items(), ("all", sum(by_file.values(), Counter()))]:
        print(f"| {file} | {counts.total()} |", " | ".join(str(counts[outcome]) for outcome in outcomes), "|")
    print("\n## Not caught")
    for file in by_file:
        left = [result for result in results if result["file"] == file and result["outcome"] != "caught"]
        if left:
            print(f"\n### {file}\n")
        for result in left:
            outcome = "" if result["outcome"] == "survived" else f"{result['outcome']}; "
            print(f"- {result['function']}: `{result['before']}` -> `{result['after']}`: {outcome}{result['verdict']}")


def main(
    results: tyro.conf.Positional[Path],
    paths: tyro.conf.Positional[tuple[Path, ...]] = (),
    jobs: Annotated[int, tyro.conf.arg(help="Mutants that are tested at once.")] = 1,
    every: Annotated[int, tyro.conf.arg(help="Take each so many-th mutant only.")] = 1,
    seconds: Annotated[float, tyro.conf.arg(help="Computing time of the tests of a mutant; more are left out.")] = 30.0,
) -> None:
    """Test the mutants of files, or of all files in directories; without any, print the report of the results."""
    known = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    if not paths:
        report(known)
        return
    files = [file for path in paths for file in ([path] if path.is_file() else sorted(path.rglob("*.py")))]
    mutants = [
        mutant for file in files for mutant in list(mutants_of(file.resolve().relative_to(ROOT).as_posix()))[::every]
    ]
    done = {tuple(result[name] for name in KEY) for result in known}
    waiting = [mutant for mutant in mutants if mutant.key() not in done]
    load_libraries()
    with checkouts(jobs) as free, results.open("a") as file:
        calls = results.with_suffix(".calls")
        if not calls.exists():
            os.waitpid(begin(free[0], TESTS, [Recorder(calls)]), 0)
        for mutant, outcome in tqdm(
            outcomes_of(waiting, read_calls(calls), seconds, free), total=len(waiting), unit="mutant"
        ):
            entry = asdict(mutant) | {"outcome": outcome, "verdict": ""}
            del entry["source"]
            file.write(json.dumps(entry) + "\n")
            file.flush()


if __name__ == "__main__":
    tyro.cli(main)
