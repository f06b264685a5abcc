"""The command line as `python -m parallel_rl`."""

from parallel_rl.main import run

if __name__ == "__main__":
    run()
