"""The time to solve a task, from the start of the process: `python -m benchmarks.solve`."""
