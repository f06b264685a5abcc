"""How long it takes to solve a task, from the shell: `python -m benchmarks.solve`."""
