"""What all tests share: one thread, cheap forks, Ctrl-C, no pictures, whole logs, and which cases are slow."""

import gc
import logging
import os
import signal
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from tests.covering import covering

os.environ.setdefault("OMP_NUM_THREADS", "1")
"""Before torch is imported, and for processes that tests start. Where several processes share the cores, the threads of
torch wait for each other: the suite takes twice the computing time. tests/contracts/test_forks.py has threads."""

os.fsync = lambda descriptor: None  # no test ends the power, and a run of the command line would wait for the disk

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a suite that a shell runs in the background: Ctrl-C is tested
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def pictures_are_blank(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lay out and draw no pictures, except for tests marked `pictures`: a picture takes longer than a short run."""

    from parallel_rl.utils.files import write_atomically

    def save_blank(shown: Any, path: str | os.PathLike[str], *_: Any, **__: Any) -> None:
        write_atomically(path, lambda file: None)

    if not request.node.get_closest_marker("pictures"):
        for name in ("plot_runs", "save_figure"):
            monkeypatch.setattr(f"parallel_rl.utils.plots.{name}", save_blank)


@pytest.fixture(autouse=True)
def loggers_stay_as_they_are() -> Iterator[None]:
    """A test that left a logger silent would fail another one, of the warnings it looks at."""
    yield
    loggers = [logging.getLogger(name) for name in ("AsyncPPO", "OffPolicy", "PPO", "Population", "parallel_rl")]
    assert not [logger for logger in loggers if logger.level or logger.disabled or not logger.propagate]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test marked `covering`, mark the cases that the fast suite can do without as slow.

    The longest test, which mostly waits, comes first, so that the other process does not wait for it at the end.
    """
    items.sort(key=lambda item: "test_machines_join" not in item.name)
    cases = defaultdict(list)
    for item in items:
        if item.get_closest_marker("covering") and hasattr(item, "callspec") and not item.get_closest_marker("slow"):
            cases[item.nodeid.partition("[")[0]].append(item)
    for group in cases.values():
        strength = group[0].get_closest_marker("covering").args
        kept = covering(
            [{name: repr(value) for name, value in item.callspec.params.items()} for item in group], *strength
        )
        for number, item in enumerate(group):
            if number not in kept:
                item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Make forks cheap: what is here already is not for their garbage collector, nor are the libraries to be found."""
    from parallel_rl.utils import blas_threads

    with blas_threads(1):
        gc.collect()
    gc.freeze()
