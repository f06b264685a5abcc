"""Learning results: `python -m benchmarks.learning` does the missing runs and writes the table and the figure."""
