"""The benchmark of two versions leaves no process behind."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from benchmarks import versions
from tests.processes import runs, wait_until
from tests.program import heed_signals

PROGRAM = """
import os, pathlib, signal
pathlib.Path("part").write_text(str(os.getpid()))
os.rename("part", "pid")
signal.pause()
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_both_trainings(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "PROGRAM", PROGRAM)
    checkouts = [tmp_path / "old", tmp_path / "new"]
    for checkout in checkouts:
        checkout.mkdir()

    def compare() -> None:
        heed_signals()
        versions.main(*checkouts)

    comparison = multiprocessing.get_context("fork").Process(target=compare)
    comparison.start()
    wait_until(lambda: all((checkout / "pid").exists() for checkout in checkouts), "no training starts")
    pids = [int((checkout / "pid").read_text()) for checkout in checkouts]
    try:
        os.kill(comparison.pid, signal.Signals[name])  # type: ignore[arg-type]
        comparison.join()
        assert not any(map(runs, pids)), "a training was left behind"
    finally:
        for pid in filter(runs, pids):
            os.kill(pid, signal.SIGKILL)
