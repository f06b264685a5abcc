"""What the system learns: `python -m benchmarks.learning` runs what is missing and writes the table and the picture."""
