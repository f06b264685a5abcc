#!/usr/bin/env python
"""The command line, from a checkout: `python main.py --help`. Installed, it is called `parallel-rl`."""

if __name__ == "__main__":
    try:
        from parallel_rl.main import run
    except KeyboardInterrupt:  # the imports take about a second
        raise SystemExit(130) from None
    run()
