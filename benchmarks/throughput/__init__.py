"""The speed of stepping and training, as ratios within one run: `python -m benchmarks.throughput`."""
