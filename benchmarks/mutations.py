"""Mutation testing: changes one operator, number, branch or call at a time, and runs the tests that call its function.

    python -m benchmarks.mutations results.jsonl PPO/losses.py parallel_rl/utils --every 5
    python -m benchmarks.mutations results.jsonl > benchmarks/mutations.md

A mutant for which no test fails is a survivor: a line that could be wrong without anybody noticing.

First, all tests run once, and `results.calls` records which functions each test calls. A mutant is tested by the tests
that call its function, until one fails: first those named after its file and those that call little else. A line in
`results.jsonl` records each mutant. If no test failed, fill in its `verdict` by hand. A run that was stopped continues;
to test a mutant again, delete its line. Without files, the results are printed as a table.
"""

import ast
import inspect
import json
import math
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import CodeType, FrameType, FunctionType
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
    """Yield every mutant of a file, but for annotations, decorators, errors raised and `strict` of `zip`."""
    tree = ast.parse((ROOT / file).read_text())
    lines = ast.unparse(tree).splitlines()
    for function, node in _walk(tree):
        unchanged = vars(node).copy()
        for changed in _changes(node):
            vars(node).update(changed)
            source = ast.unparse(tree)
            vars(node).update(unchanged)
            before, after = next(pair for pair in zip(lines, source.splitlines(), strict=False) if pair[0] != pair[1])
            yield Mutant(file, function, node.lineno, before.strip(), after.strip(), source)


def _walk(node: ast.AST, function: str = "", is_inside: bool = False) -> Iterator[tuple[str, Any]]:
    """Yield the nodes under a node, each with the name of the outermost function (or class) that runs it."""
    for name, value in ast.iter_fields(node):
        inner, is_body = function, is_inside
        if name == "body" and not is_inside and isinstance(node, ast.ClassDef | ast.FunctionDef):
            inner, is_body = f"{function}.{node.name}".lstrip("."), isinstance(node, ast.FunctionDef)
        for child in value if isinstance(value, list) else [value]:
            match child:
                case ast.Raise() | ast.keyword(arg="strict"):
                    pass
                case ast.AST() if name not in ("annotation", "returns", "decorator_list"):
                    yield inner, child
                    yield from _walk(child, inner, is_body)


def _changes(node: ast.AST) -> Iterator[dict[str, Any]]:
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
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test) if not isinstance(test, ast.Compare):
            yield {"test": ast.UnaryOp(ast.Not(), test)}
        case ast.Constant(value=bool(value)):
            yield {"value": not value}
        case ast.Constant(value=int(value)):
            yield {"value": value + 1}
        case ast.Constant(value=float(value)):
            yield {"value": 2 * value or 1.0}
        case ast.Name(id=name, ctx=ast.Load()) if name in NAMES:
            yield {"id": NAMES[name]}
        case ast.Attribute(attr=name) if name in NAMES:
            yield {"attr": NAMES[name]}
        case ast.Expr(value=ast.Call()):
            yield {"value": ast.Constant(None)}


class Recorder:
    """A pytest plugin: writes which functions of the checkout each test calls, in its forked processes, too."""

    def __init__(self, path: Path) -> None:
        """Append to a file."""
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._ours = tuple(f"{Path.cwd()}/{package}/" for package in PACKAGES)
        self._seen: set[int] = set()

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


class Tester:
    """A pytest plugin: runs the tests of mutants in place of those collected."""

    def __init__(self, mutants: list[tuple[Mutant, list[str]]], results: Path) -> None:
        """Store mutants with their tests, and the file to append results to."""
        self._mutants, self._results = mutants, results

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the tests of each mutant in a forked process, which has all modules already."""
        items = {item.nodeid: item for item in session.items}
        with self._results.open("a") as results:
            for number, (mutant, tests) in enumerate(tqdm(self._mutants, unit="mutant"), start=1):
                with written(mutant, number):
                    outcome = outcome_of(partial(run_tests, [items[test] for test in tests if test in items], mutant))
                entry = {**asdict(mutant), "outcome": outcome if tests else "not tested", "verdict": ""}
                del entry["source"]
                print(json.dumps(entry), file=results, flush=True)
        return True


@contextmanager
def written(mutant: Mutant, number: int) -> Iterator[None]:
    """Write a mutant into its file, for processes that import it."""
    file, original = Path(mutant.file), Path(mutant.file).read_text()
    file.write_text(mutant.source)
    os.utime(file, (number, number))  # so that no compiled file of another is taken for its own
    yield
    file.write_text(original)
    os.utime(file, (0, 0))


def outcome_of(run: Callable[[], bool], limit: float = LIMIT_SECONDS) -> str:
    """Return whether a forked process found that the tests pass."""
    process = os.fork()
    if not process:
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        passed = False
        try:
            passed = run()
        finally:
            os._exit(not passed)
    deadline = time.monotonic() + limit
    while (ended := os.waitpid(process, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.killpg(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return "too slow"
        time.sleep(0.01)
    return "survived" if ended[1] == 0 else "caught"


def run_tests(items: list[pytest.Item], mutant: Mutant) -> bool:
    """Return whether the tests pass with a mutant."""
    if not put_in_place(mutant):
        os.execv(sys.executable, [sys.executable, "-m", "pytest", "-x", *(item.nodeid for item in items)])
    for item, following in zip(items, [*items[1:], None], strict=True):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if item.session.testsfailed:
            return False
    return True


def put_in_place(mutant: Mutant) -> bool:
    """Give the function of a mutant its code; return whether that is possible: not for what only runs at import."""
    function: Any = sys.modules.get(mutant.file.removesuffix(".py").replace("/", "."))
    code = compile(mutant.source, mutant.file, "exec")
    for name in mutant.function.split("."):
        codes = [const for const in code.co_consts if isinstance(const, CodeType) and const.co_name == name]
        if len(codes) != 1 or name not in vars(function):
            return False
        code, function = codes[0], vars(function)[name]
    function = getattr(function, "fget", None) or getattr(function, "__func__", None) or function
    function = inspect.unwrap(getattr(function, "func", None) or function)
    if not isinstance(function, FunctionType) or code.co_freevars != function.__code__.co_freevars:
        return False
    function.__code__ = code
    return True


def report(results: list[dict[str, Any]]) -> None:
    """Print a table of the results, and the mutants that no test failed on."""
    print("# Mutation testing\n\nMade by `python -m benchmarks.mutations`, whose first lines explain it.\n")
    outcomes = ("caught", "survived", "too slow", "not tested")
    print("| file | mutants | tried |", " | ".join(outcomes), "|\n| --- |", ("---: | " * (2 + len(outcomes))).rstrip())
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for result in results:
        counts[result["file"]][result["outcome"]] += 1
    numbers = [
        (sum(1 for _ in mutants_of(file)), own.total(), *(own[outcome] for outcome in outcomes))
        for file, own in counts.items()
    ]
    for file, row in [*zip(counts, numbers, strict=True), ("all", map(sum, zip(*numbers, strict=True)))]:
        print(f"| {file} |", " | ".join(map(str, row)), "|")
    print("\n## Not caught\n")
    for result in sorted(results, key=lambda result: (result["file"], result["line"])):
        if result["outcome"] != "caught":
            where = f"{result['file']}, {result['function'] or 'outside of functions'}"
            change = f"`{result['before']}` -> `{result['after']}`"
            print(f"- {where}: {change}: {result['outcome']}; {result['verdict'] or 'no verdict yet'}")


def main(
    results: tyro.conf.Positional[Path],
    paths: tyro.conf.Positional[tuple[Path, ...]] = (),
    every: Annotated[int, tyro.conf.arg(help="N: test only every N-th mutant.")] = 1,
    seconds: Annotated[float, tyro.conf.arg(help="Computing time of the tests of a mutant; more are left out.")] = 30.0,
) -> None:
    """Test the mutants of files, or of all files in directories; without any, print the report of the results."""
    known = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    if not paths:
        report(known)
        return
    files = [file.resolve() for path in paths for file in ([path] if path.is_file() else sorted(path.rglob("*.py")))]
    mutants = [mutant for file in files for mutant in list(mutants_of(str(file.relative_to(ROOT))))[::every]]
    done = {tuple(result[name] for name in KEY) for result in known}
    waiting = [mutant for mutant in mutants if mutant.key() not in done]
    results, calls = results.resolve(), results.resolve().with_suffix(".calls")
    with tempfile.TemporaryDirectory() as directory:
        enter_copy(Path(directory) / "copy")
        options = ["-s", "-p", "no:cacheprovider", "-m", "not slow"]
        if not calls.exists():
            unfinished = calls.with_suffix(".part")
            outcome_of(lambda: not pytest.main([*options, *TESTS], [Recorder(unfinished)]), limit=math.inf)
            unfinished.rename(calls)
        choose = partial(tests_of, calls=read_calls(calls), seconds=seconds)
        planned = [(mutant, choose(mutant)) for mutant in waiting]
        files_of_tests = {test.split("::")[0] for _, tests in planned for test in tests}
        pytest.main([*options, *sorted(files_of_tests)], [Tester(planned, results)])


def enter_copy(copy: Path) -> None:
    """Go to a copy of the repository, with its files written as mutants are, and import from there."""
    shutil.copytree(ROOT, copy, ignore=IGNORED)
    for file in (file for package in PACKAGES for file in (copy / package).rglob("*.py")):
        file.write_text(ast.unparse(ast.parse(file.read_text())))
        os.utime(file, (0, 0))
    os.chdir(copy)
    sys.path[:] = [str(copy), *(path for path in sys.path if Path(path or ".").resolve() != ROOT)]
    os.environ["OMP_NUM_THREADS"] = "1"  # a forked process has no other threads
    import torch._dynamo  # noqa: F401  # which the first optimizer takes a second for


if __name__ == "__main__":
    tyro.cli(main)
