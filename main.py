#!/usr/bin/env python
"""The command line, from a checkout: `python main.py --help`. Installed, it is called `parallel-rl`."""

from parallel_rl.main import run

if __name__ == "__main__":
    run()
