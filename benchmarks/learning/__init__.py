"""Learning results: `python -m benchmarks.learning` trains what is missing, and writes the table and the figure."""
