"""What all tests share: one thread, cheap forks, and Ctrl-C."""

import gc
import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")
"""Before torch is imported, and for processes that tests start. Where several processes share the cores, the threads of
torch wait for each other: the suite takes twice the computing time. tests/contracts/test_forks.py has threads."""

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a suite that a shell runs in the background: Ctrl-C is tested
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Make forks cheap: what is here already is not for their garbage collector, nor are the libraries to be found."""
    from parallel_rl.utils import blas_threads

    with blas_threads(1):
        gc.collect()
    gc.freeze()
