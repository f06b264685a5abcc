"""For fork servers, which import this: they outlive the signals that would end them, and with them all workers.

A program under `nohup` ignores SIGHUP, and so does its server; SIGINT `multiprocessing` ignores there.
"""

import signal

from AsyncPPO.workers.processes import SIGNALS, ignore

ignore([number for number in SIGNALS if signal.getsignal(number) == signal.SIG_DFL])
